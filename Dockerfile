# syntax=docker/dockerfile:1
# One image with the three services; which one runs is the container's command.
#
#   docker build -t tidegate/tidegate:0.1.0 .
#   docker build --target debug -t tidegate/tidegate:0.1.0-debug .    # with busybox, for compose.yaml
#
# `make images` builds the same two without Docker: images/root.sh lays out the files here and there, and the
# last stages below are read by images/build.sh. Pin the builder where builds must be repeatable:
# --build-arg BUILDER=rust@sha256:...
ARG BUILDER=docker.io/library/rust:1.95-bookworm

# Compiles on the machine at hand, whatever the image is for: emulated, this takes hours.
FROM --platform=${BUILDPLATFORM} ${BUILDER} AS build
# All three are BuildKit's to set; a default here would win over its values.
ARG BUILDPLATFORM
ARG TARGETPLATFORM
ARG TARGETARCH
WORKDIR /src
# The compilers of the target, where it is another than the builder's.
RUN set -eu; \
    case "$TARGETARCH" in \
        amd64) triple=x86_64-unknown-linux-gnu package=x86-64-linux-gnu ;; \
        arm64) triple=aarch64-unknown-linux-gnu package=aarch64-linux-gnu ;; \
        *) echo "no image for '$TARGETARCH': amd64 or arm64, built with BuildKit" >&2; exit 1 ;; \
    esac; \
    tools=${triple%%-*}-linux-gnu; \
    echo "export CARGO_BUILD_TARGET=$triple TRIPLE=$tools" >/target.env; \
    apt-get -qq update; \
    apt-get -qq install -y --no-install-recommends binutils python3; \
    if [ "$TARGETPLATFORM" != "$BUILDPLATFORM" ]; then \
        dpkg --add-architecture "$TARGETARCH"; \
        apt-get -qq update; \
        apt-get -qq install -y --no-install-recommends "gcc-$package" "g++-$package" \
            "libssl-dev:$TARGETARCH"; \
        pkgconfig=/usr/lib/$tools/pkgconfig; \
        echo "export PKG_CONFIG_ALLOW_CROSS=1 PKG_CONFIG_LIBDIR=$pkgconfig" >>/target.env; \
        rustup target add "$triple"; \
        linker=$(echo "CARGO_TARGET_${triple}_LINKER" | tr 'a-z-' 'A-Z_'); \
        echo "export $linker=$tools-gcc CC=$tools-gcc CXX=$tools-g++ AR=$tools-ar" >>/target.env; \
    fi
COPY . .
# zlib goes into the binary; OpenSSL, for Kafka, is a library beside it.
ENV LIBZ_SYS_STATIC=1
# The directory of the build is a cache and not part of the stage, so the files are laid out in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,id=target-${TARGETPLATFORM},target=/src/target \
    . /target.env \
    && cargo build --profile dist --locked --workspace --exclude tests --bins \
    && images/root.sh "target/$CARGO_BUILD_TARGET/dist" /out "$TRIPLE" \
    && images/debug.sh /debug "$TARGETARCH"

# == Stages that `make images` builds too: nothing runs in them, and they have no base.
FROM scratch AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
COPY --from=build /out /
USER 65532:65532
LABEL org.opencontainers.image.title="Tidegate" \
      org.opencontainers.image.description="ext-authz, ratelimit-svc and ingest-filter, the edge of a telemetry platform" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

FROM runtime AS debug
COPY --from=build /debug /

# The last stage is what is built when none is named.
FROM runtime

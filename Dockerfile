# syntax=docker/dockerfile:1
# One image with the three services; which one runs is the container's command.
#
#   docker build -t tidegate/tidegate:0.1.0 .
#   docker build --target debug -t tidegate/tidegate:0.1.0-debug .    # with busybox, for compose.yaml
#
# Pin the bases by digest where builds must be repeatable:
#   --build-arg BUILDER=rust@sha256:... --build-arg RUNTIME=gcr.io/distroless/cc-debian12@sha256:...
ARG BUILDER=docker.io/library/rust:1.95-bookworm
ARG RUNTIME=gcr.io/distroless/cc-debian12:nonroot
ARG RUNTIME_DEBUG=gcr.io/distroless/cc-debian12:debug-nonroot

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
    echo "export CARGO_BUILD_TARGET=$triple OBJDUMP=$tools-objdump" >/target.env; \
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
# zlib goes into the binary: the runtime has none. OpenSSL, for Kafka, is in the runtime.
ENV LIBZ_SYS_STATIC=1
# The directory of the build is a cache and not part of the stage, hence the copy.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,id=target-${TARGETPLATFORM},target=/src/target \
    . /target.env \
    && cargo build --profile dist --locked --workspace --exclude tests --bins \
    && cd "target/$CARGO_BUILD_TARGET/dist" \
    && install -D -t /out/usr/local/bin ratelimit-svc ext-authz ingest-filter
# Whatever the runtime does not hold would only be found out at the first start. Read, not run: the
# programs may be another processor's.
RUN . /target.env; \
    for program in /out/usr/local/bin/*; do \
        "$OBJDUMP" -p "$program" | awk '$1 == "NEEDED" { print $2 }' \
            | grep -vE '^(ld-linux.*|lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+|ssl|crypto))\.so' && exit 1; \
    done; \
    exit 0

# What the manifests of gateways call the rate limit service. A directory of its own, so that it ends up in
# /bin whether the base has that or a link to /usr/bin.
RUN mkdir /alias && ln -s /usr/local/bin/ratelimit-svc /alias/ratelimit

FROM ${RUNTIME_DEBUG} AS debug
COPY --from=build /out /
COPY --from=build /alias/ /bin/
USER 65532:65532

FROM ${RUNTIME} AS runtime
COPY --from=build /out /
COPY --from=build /alias/ /bin/
USER 65532:65532
LABEL org.opencontainers.image.title="Tidegate" \
      org.opencontainers.image.description="ext-authz, ratelimit-svc and ingest-filter, the edge of a telemetry platform" \
      org.opencontainers.image.licenses="Apache-2.0"

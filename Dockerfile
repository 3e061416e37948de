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

FROM ${BUILDER} AS build
WORKDIR /src
COPY . .
# zlib goes into the binary: the runtime has none.
ENV LIBZ_SYS_STATIC=1
ARG TARGETPLATFORM=native
# The directory of the build is a cache and not part of the stage, hence the copy.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,id=target-${TARGETPLATFORM},target=/src/target \
    cargo build --profile dist --locked --workspace --exclude tests --bins \
    && install -D --strip -t /out/usr/local/bin \
        target/dist/ratelimit-svc target/dist/ext-authz target/dist/ingest-filter
# Whatever the runtime does not hold would only be found out at the first start.
RUN for program in /out/usr/local/bin/*; do \
        ldd "$program" | grep -vE 'linux-vdso|ld-linux|lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+)\.so' && exit 1; \
        "$program" --help >/dev/null || exit 1; \
    done

FROM ${RUNTIME_DEBUG} AS debug
COPY --from=build /out /
USER 65532:65532

FROM ${RUNTIME} AS runtime
COPY --from=build /out /
USER 65532:65532
LABEL org.opencontainers.image.title="Tidegate" \
      org.opencontainers.image.description="ext-authz, ratelimit-svc and ingest-filter, the edge of a telemetry platform" \
      org.opencontainers.image.licenses="Apache-2.0"

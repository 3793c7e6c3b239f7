# percore in an image of one program and its man pages:
#   docker build -t percore .
#   docker buildx build --platform linux/amd64,linux/arm64 -t percore .
# The other architecture is cross-compiled, not emulated. Builders without BuildKit build for their own.

FROM --platform=${BUILDPLATFORM:-linux} rust:1.95.0-slim-bookworm AS build
ARG TARGETARCH
WORKDIR /build

# The target and its linker, which the image has for its own architecture and apt for the other.
RUN set -eu; \
    arch="${TARGETARCH:-$(dpkg --print-architecture)}"; \
    case "$arch" in \
        amd64) cpu=x86_64; package=gcc-x86-64-linux-gnu ;; \
        arm64) cpu=aarch64; package=gcc-aarch64-linux-gnu ;; \
        *) echo "linux/$arch: percore is built for linux/amd64 and linux/arm64" >&2; exit 1 ;; \
    esac; \
    target="$cpu-unknown-linux-gnu"; linker="$cpu-linux-gnu-gcc"; \
    if ! command -v "$linker"; then \
        apt-get update; \
        apt-get install -y --no-install-recommends "$package" "libc6-dev-$arch-cross"; \
        rm -rf /var/lib/apt/lists/*; \
    fi; \
    rustup target add "$target"; \
    mkdir .cargo; \
    printf '[build]\ntarget = "%s"\n[target.%s]\nlinker = "%s"\nrustflags = ["-C", "target-feature=+crt-static"]\n' \
        "$target" "$target" "$linker" >.cargo/config.toml

# A quicker build of a slower server: --build-arg CARGO_PROFILE_RELEASE_LTO=off, and so on.
ARG CARGO_PROFILE_RELEASE_LTO=fat
ARG CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1
ARG CARGO_PROFILE_RELEASE_OPT_LEVEL=3
ARG CARGO_PROFILE_RELEASE_DEBUG=false
ARG CARGO_PROFILE_RELEASE_STRIP=true

# The dependencies by themselves: a layer that is built again only when they change. The benches are not built, but
# Cargo.toml names them.
COPY Cargo.toml Cargo.lock build.rs ./
COPY benches/*.rs benches/
COPY examples/service.rs examples/
RUN mkdir src && echo 'fn main() {}' >src/main.rs && touch src/lib.rs \
    && cargo build --release --locked \
    && rm -r src

COPY src src
# The pages of --demo are part of the program.
COPY examples/*.html examples/
# The repository is not here to be asked: --build-arg PERCORE_COMMIT=$(git rev-parse HEAD).
ARG PERCORE_COMMIT
# Sources are as old as their checkout, and cargo goes by age.
RUN touch src/main.rs src/lib.rs \
    && cargo build --release --locked --bin percore \
    && cp target/*/release/percore /percore

FROM scratch
LABEL org.opencontainers.image.title="percore" \
      org.opencontainers.image.description="A WebSocket server that is one epoll loop per core, and one process per loop" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /percore /percore
COPY deploy/man /usr/share/man/man1
# Nobody in particular, by number, as there are no names here.
USER 65532:65532
# Listens on 0.0.0.0:$PORT, unless PERCORE_LISTEN says where. The health check follows both, and PERCORE_PROXY_PROTOCOL, but
# not the flags --listen and --proxy-protocol.
ENV PORT=8080
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=4s --start-period=5s --retries=3 CMD ["/percore", "healthcheck"]
ENTRYPOINT ["/percore"]
CMD ["serve", "echo"]

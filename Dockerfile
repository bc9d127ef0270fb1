# The image of kamino-wf: one static binary, the authorities that it trusts, and nothing else.
#
#   docker build -t kamino-wf .                                      builds the binary as well
#   docker build -t kamino-wf --target from-binary -f Dockerfile D   takes D/kamino-wf and D/ca-certificates.crt; scripts/image does
#
# Base images are pinned by tag. Pin the digest too where you build releases (`rust:1.95.0-bookworm@sha256:…`): it differs by
# registry mirror, and has to be looked up in yours.

FROM scratch AS base
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="kamino-wf" \
      org.opencontainers.image.description="Keeps the node image of self-managed Kubernetes pools on Azure VM scale sets fresh, durably" \
      org.opencontainers.image.source="https://github.com/kamino-wf/kamino-wf" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The cleaning pod names the binary without a path.
ENV PATH=/
USER 65532:65532
ENTRYPOINT ["/kamino-wf"]
CMD ["serve"]

FROM base AS from-binary
COPY --chmod=0555 kamino-wf /kamino-wf
COPY --chmod=0444 ca-certificates.crt /etc/ssl/certs/ca-certificates.crt

# The release of rust-toolchain.toml.
FROM rust:1.95.0-bookworm AS build
RUN cargo install --locked cargo-auditable@0.7.7
WORKDIR /src
COPY . .
# Static, of the C library too; only for the target, as procedural macros can't be.
ENV RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs"
RUN target="$(rustc --print host-tuple)" \
    && cargo auditable build --locked --profile image --no-default-features --bin kamino-wf --target "$target" \
    && install -D -m 0555 "target/$target/image/kamino-wf" /image/kamino-wf \
    && install -D -m 0444 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt

FROM base AS image
COPY --from=build /image/ /

# The image of Mailferry, for linux/amd64 and linux/arm64: one static program, the certificate authorities, what it is made
# of, and nothing else. `make image` builds it without a registry: the last stage, from what scripts/dist.sh makes.
#
# Two builds with the same arguments give the same program. Arguments: VERSION, REVISION and CREATED (RFC 3339) for the
# labels; SOURCE_DATE_EPOCH (seconds) for the files' times, where the builder rewrites them (BuildKit's rewrite-timestamp,
# buildah's --timestamp).

# Of this Debian's glibc (2.36), name resolution needs no shared library.
ARG RUST=docker.io/library/rust:1.95.0-slim-bookworm

FROM ${RUST} AS build
WORKDIR /mailferry
COPY scripts/install.sh scripts/
RUN scripts/install.sh dist
# The dependencies, with nothing of our own: built again only when Cargo.toml or Cargo.lock change.
COPY Cargo.toml Cargo.lock about.toml about.hbs ./
COPY tests/support/Cargo.toml tests/support/
COPY scripts/dist.sh scripts/
RUN mkdir -p src tests/support/src benches/migrate benches/scale && \
    touch src/lib.rs tests/support/src/lib.rs && \
    for program in src benches/migrate benches/scale; do echo 'fn main() {}' >$program/main.rs; done && \
    scripts/dist.sh /tmp/dependencies
COPY . .
# cargo goes by the files' times, and these may be older than the empty ones were.
RUN find src -name '*.rs' -exec touch {} + && scripts/dist.sh /out

FROM scratch
COPY --from=build /out/ /
USER 65532:65532
ENTRYPOINT ["/usr/bin/mailferry"]
ARG VERSION=0.0.0-dev
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="Mailferry" \
      org.opencontainers.image.description="Moves mailboxes between IMAP servers, on Kubernetes or without it" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.url="https://github.com/mailferry/mailferry" \
      org.opencontainers.image.source="https://github.com/mailferry/mailferry" \
      org.opencontainers.image.documentation="https://github.com/mailferry/mailferry/tree/main/docs" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"

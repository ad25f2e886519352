# Needs the binary: run `bun run build` first.
FROM debian:bookworm-slim
RUN apt-get update \
  && apt-get install -y --no-install-recommends ca-certificates \
  && rm -rf /var/lib/apt/lists/* \
  && useradd --system --uid 10001 --create-home --home-dir /var/lib/stratos stratos
COPY dist/stratos /usr/local/bin/stratos
USER stratos
ENV STRATOS_DATA_DIR=/var/lib/stratos/data STRATOS_HOST=0.0.0.0
VOLUME /var/lib/stratos
EXPOSE 3100
ENTRYPOINT ["stratos"]
CMD ["serve"]

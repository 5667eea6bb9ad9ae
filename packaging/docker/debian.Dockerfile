# A base for the Dockerfile beside it out of Debian's own packages, that behaves like the
# official images: a volume /data, an ordinary user, arguments go to the server.
#
#   docker build -t valkey-debian --build-arg SERVER=valkey - <packaging/docker/debian.Dockerfile
#   docker build -f packaging/docker/Dockerfile --build-arg BASE=valkey-debian -t valkey-uffd .
ARG DEBIAN=debian:trixie-slim
FROM ${DEBIAN}
# redis or valkey
ARG SERVER=valkey
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y \
        --no-install-recommends ${SERVER}-server && \
    rm -rf /var/lib/apt/lists/* && \
    ln -s /usr/bin/${SERVER}-server /usr/local/bin/server && \
    mkdir /data && chown ${SERVER}:${SERVER} /data
USER ${SERVER}
VOLUME /data
WORKDIR /data
EXPOSE 6379
ENTRYPOINT ["server"]

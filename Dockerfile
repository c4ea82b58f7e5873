# The gateway in a container: `docker build --tag chatgate .`, then `docker run --publish 5000:5000 chatgate`.
#
# No step runs as root in the finished image, none fetches anything but what the locks name, and the result holds no
# compiler, no build tool and no pip of the project's own. It serves from a read-only root: only /data is written.

# Where the base image comes from; name a mirror's here where the usual registry cannot be reached.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
# The package index to install from, for those who need another than pip's own.
ARG PIP_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ONLY_BINARY=:all:
# TLS to the providers is checked against the system's certificates, so an image without them must not come to be.
RUN test -s /etc/ssl/certs/ca-certificates.crt
WORKDIR /build
# The dependencies come before the source: a change of the source leaves this layer, the slow one, as it is.
COPY requirements.txt requirements-build.txt ./
RUN python -m venv tools \
    && tools/bin/python -m pip install --require-hashes -r requirements-build.txt \
    && python -m venv --without-pip /chatgate \
    && tools/bin/python -m pip --python /chatgate/bin/python install --require-hashes -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN tools/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && tools/bin/python -m pip --python /chatgate/bin/python install --no-deps --no-index dist/*.whl \
    && mkdir data

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="chatgate" \
      org.opencontainers.image.description="A self-hosted ChatGPT API gateway: one address in front of your model providers." \
      org.opencontainers.image.licenses="GPL-3.0-or-later"
COPY --from=build /chatgate /chatgate
COPY --from=build --chown=10001:10001 /build/data /data
ENV PATH=/chatgate/bin:$PATH PYTHONUNBUFFERED=1 CHATGATE_HOST=0.0.0.0 CHATGATE_DATA=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 5000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 CMD ["chatgate", "health"]
ENTRYPOINT ["chatgate"]
CMD ["serve"]

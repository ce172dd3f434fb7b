# A tag, not a digest: each build takes the fixes of the base. A release names the digest of its image.
FROM python:3.13-slim AS build
WORKDIR /build
# The compiler of the compiled form stays in this stage.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
# Without pip: nothing is installed into the image later.
RUN python -m venv --without-pip /opt/noetl-broker
COPY pyproject.toml hatch_build.py README.md ./
COPY src src
COPY migrations migrations
COPY playbooks playbooks
COPY deploy/roles.sql deploy/roles.sql
RUN HATCH_BUILD_HOOK_ENABLE_CUSTOM=true pip --python /opt/noetl-broker/bin/python install --no-cache-dir --disable-pip-version-check '.[console]'

# The image has the program and its libraries, no compiler and no tests. It works with a read-only root (a worker needs a writable
# /tmp), as a user without a name, a home or rights.
FROM python:3.13-slim
COPY --from=build /opt/noetl-broker /opt/noetl-broker
ENV PATH=/opt/noetl-broker/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NOETL_BROKER_LOG_FORMAT=json \
    NOETL_BROKER_HEALTH_HOST=0.0.0.0 \
    NOETL_BROKER_HEALTH_PORT=9464
WORKDIR /
USER 65532:65532
# Health and metrics of a broker; the console.
EXPOSE 9464 8080
# For a broker. A worker has no health port: use --no-healthcheck.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['NOETL_BROKER_HEALTH_PORT'] + '/ready', timeout=2)"]
ENTRYPOINT ["noetl-broker"]
CMD ["run"]

FROM python:3.13-slim AS build
WORKDIR /build
# Without pip in it: nothing is ever installed into the image.
RUN python -m venv --without-pip /opt/noetl-broker
COPY pyproject.toml README.md ./
COPY src src
COPY migrations migrations
COPY playbooks playbooks
COPY deploy/roles.sql deploy/roles.sql
RUN pip --python /opt/noetl-broker/bin/python install --no-cache-dir --disable-pip-version-check .

# The image holds the program and its libraries, no compiler and no tests. It writes nothing: it runs with a read-only root
# (a worker's jobs want a writable /tmp), as an account without a name, a home or rights.
FROM python:3.13-slim
COPY --from=build /opt/noetl-broker /opt/noetl-broker
ENV PATH=/opt/noetl-broker/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NOETL_BROKER_LOG_FORMAT=json
WORKDIR /
USER 65532:65532
# A broker's; what else the image runs (a worker, a command) serves no port: switch it off there.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:9464/ready', timeout=4).close()"]
ENTRYPOINT ["noetl-broker"]
CMD ["run"]

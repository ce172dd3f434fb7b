FROM python:3.13-slim AS build
WORKDIR /build
RUN python -m venv /opt/noetl-broker
COPY pyproject.toml README.md ./
COPY src src
COPY migrations migrations
COPY playbooks playbooks
RUN /opt/noetl-broker/bin/pip install --no-cache-dir --disable-pip-version-check .

# The image holds the program and its libraries, no compiler and no tests. It writes nothing: it runs with a read-only root,
# as an account without a name, a home or rights.
FROM python:3.13-slim
COPY --from=build /opt/noetl-broker /opt/noetl-broker
ENV PATH=/opt/noetl-broker/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /
USER 65532:65532
ENTRYPOINT ["noetl-broker"]
CMD ["run"]

"""`traces = "otlp"` on the command line: spans over the network, and a clear error if the library is missing."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.cli.conftest import Command, write_playbook

BODY = "workflow:\n  - {step: start, next: end}\n  - {step: end}\n"


class Collector(HTTPServer):
    """Records what an exporter sends."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        super().__init__(("127.0.0.1", 0), Answering)


class Answering(BaseHTTPRequestHandler):
    """Accepts every request."""

    server: Collector

    def do_POST(self) -> None:
        """Record one export."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.requests.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Yield a listening collector."""
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        yield collector
        collector.shutdown()
        thread.join()


def test_spans_go_to_the_endpoint_of_the_otel_variables(command: Command, collector: Collector) -> None:
    """The rest is sent before the command ends."""
    command("register", write_playbook(command.folder, BODY))
    command("start", "examples/story")
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    answer = command.run("run", "--drain", NOETL_BROKER_TRACES="otlp", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
    assert answer.returncode == 0
    [request] = collector.requests
    [spans] = request.resource_spans
    assert [span.name for scope in spans.scope_spans for span in scope.spans] == ["examples/story"]
    assert {pair.key: pair.value.string_value for pair in spans.resource.attributes}["service.name"] == "noetl-broker"


def test_traces_without_the_library_exit_with_2(command: Command) -> None:
    """Only if traces are on."""
    package = command.folder / "opentelemetry"
    package.mkdir()
    (package / "__init__.py").write_text("raise ModuleNotFoundError('no', name='opentelemetry')\n", encoding="utf-8")
    environment = {"PYTHONPATH": str(command.folder)}
    assert command.run("run", "--drain", **environment).returncode == 0
    answer = command.run("run", "--drain", NOETL_BROKER_TRACES="otlp", **environment)
    assert answer.returncode == 2
    assert "pip install 'noetl-broker[otel]'" in answer.stderr

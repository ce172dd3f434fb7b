"""No secret is rendered by the broker or written to the database or a log, but the worker uses it.

Broker and worker run for real with debug logs; secrets are in their environments, in the worker's credentials and in
the DSN. Then the whole database dump and all output of the processes is searched.
"""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest
from psycopg import sql

from noetl_broker.embedded_postgres.binaries import find_bin_folder
from tests.cli.conftest import PATIENCE_SECONDS, Command, read_until, write_playbook
from tests.daemon.processes.test_health_port import free_port, http_get
from tests.postgres import Database, Server, named, psycopg_connect

MARK = "CANARY"  # in every secret, and nowhere else
SECRET, PASSWORD, TOKEN, PLAIN, VARIABLE, DSN = (f"{word}-{MARK}-{n:04}/+ü" for n, word in enumerate("spkxed", 1))
LINES = f"-----BEGIN {MARK}-----\n{MARK}first\n{MARK}second\n-----END-----"
ASCII = {text: text.replace("/+ü", "~") for text in (SECRET, PASSWORD, TOKEN, PLAIN, VARIABLE)}  # headers are ASCII

CHILD = """
workload: {site: "", name: ""}
workflow:
  - {step: start, next: use}
  - {step: use, type: http, url: "{{ site }}/child", headers: {K: "{{ secret[workload.name] }}"}, next: end}
  - {step: end, result: {status: "{{ use.status_code }}"}}
"""
# The commands that show an execution, settings or the database; ID stands for the execution.
SHOWING = (
    ("executions", "--json"), ("config",), ("config", "--json"), ("doctor",), ("doctor", "--json"), ("dead-letters",),
    ("status", "ID"), ("status", "ID", "--json"), ("events", "ID"), ("events", "ID", "--json"), ("graph", "ID"),
    ("explain", "ID"), ("explain", "ID", "given"), ("explain", "ID", "--json"), ("replay", "ID", "--story"),
    ("verify", "ID", "--deep"), ("logs", "ID"), ("logs", "ID", "--json"), ("status", "ID", "--traceback"),
    ("events", "ID", "--traceback"), ("explain", "ID", "raises", "--traceback"),
)  # fmt: skip
# The routes of the HTTP API that show an execution or the database.
ROUTES = (
    "executions", "executions/ID", "executions/ID/events", "executions/ID/jobs", "executions/ID/items",
    "executions/ID/logs", "executions/ID/explain", "executions/ID/explain?step=raises", "executions/ID/graph",
    "executions/ID/snapshot?turn=9", "executions/ID/replay", "executions/ID/verify", "workers", "dead-letters",
    "health/findings",
)  # fmt: skip
PORT = ("/live", "/ready", "/metrics")
PLAYBOOK = (Path(__file__).parent / "canary.yaml").read_text(encoding="utf-8")
REFUSED = """
workflow:
  - {step: start, next: [{when: "{{ secret.api_token == 'x' }}", step: end}]}
  - {step: end, result: "{{ secret.api_token }}"}
"""


class Site:
    """A web server that records its requests, and answers a path `/refused` with 500 and all headers."""

    def __init__(self) -> None:
        self.requests: dict[str, tuple[dict[str, str], str]] = {}
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
                headers = {name.lower(): value for name, value in self.headers.items()}
                site.requests[self.path] = headers, body
                refused = self.path == "/refused"
                answer = json.dumps(headers if refused else {"ok": True}).encode()
                self.send_response(500 if refused else 200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_POST = do_GET  # noqa: N815 - as above

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def site() -> Iterator[Site]:
    """Run the web server."""
    site = Site()
    with site.server:
        thread = threading.Thread(target=site.server.serve_forever)
        thread.start()
        yield site
        site.server.shutdown()
        thread.join()


@contextmanager
def account(database: Database, name: str, password: str) -> Iterator[str]:
    """Create a superuser with this password; give its DSN."""
    parts = urlsplit(database.dsn)
    with psycopg_connect(database, autocommit=True) as connection:
        connection.execute(sql.SQL("create role {} superuser login password {}").format(sql.Identifier(name), password))
    try:
        quoted = "".join(f"%{byte:02X}" for byte in password.encode())
        yield urlunsplit(parts._replace(netloc=f"{name}:{quoted}@{parts.hostname}:{parts.port}"))
    finally:
        with psycopg_connect(database, autocommit=True) as connection:
            connection.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def secrets(database: Database) -> dict[str, str]:
    """Give the environment of broker and worker: what a careless operator might set in both."""
    parts = urlsplit(database.dsn)
    store = {"host": parts.hostname, "port": parts.port, "user": parts.username, "database": database.name}
    return {
        "NOETL_SECRET_API_TOKEN": ASCII[SECRET],
        "NOETL_SECRET_LINES": LINES,
        "NOETL_CREDENTIAL_STORE": json.dumps({**store, "password": parts.password, "token": PASSWORD}),
        "NOETL_CREDENTIAL_TOKENS": json.dumps({"type": "api_key", "token": ASCII[TOKEN]}),
        "NOETL_CREDENTIAL_BROKEN": f"postgresql://me:{PASSWORD}@127.0.0.1:1/x",
        "PLAIN_CANARY": PLAIN,
        "CANARY_PASSWORD": ASCII[VARIABLE],
        "NOETL_BROKER_LOG_LEVEL": "debug",
    }


def traces(text: str) -> list[str]:
    """Give the lines that contain a secret, plain or in base64 at any place of a longer text."""
    encoded = {base64.b64encode(b"x" * shift + MARK.encode())[shift + 1 : 8].decode() for shift in range(3)}
    names = ("PLAIN_CANARY", "CANARY_PASSWORD")  # the names of variables may be shown
    found = []
    for line in text.splitlines():
        rest = line
        for name in names:
            rest = rest.replace(name, "")
        if MARK in rest or any(word in rest for word in encoded):
            found.append(line)
    return found


def test_no_secret_is_written_and_every_secret_is_used(command: Command, database: Database, site: Site) -> None:
    """Events, jobs, results, errors and the logs of broker and worker."""
    with psycopg_connect(database, autocommit=True) as connection:
        connection.execute("create table public.picky (word text check (length(word) < 3))")
    printed = ""
    port = free_port()
    with account(database, "canary_account", DSN) as dsn:
        command.environment |= secrets(database) | {"NOETL_BROKER_DSN": dsn}
        files = [
            write_playbook(command.folder, body, path=path)
            for path, body in (("examples/canary", PLAYBOOK), ("examples/child", CHILD), ("examples/no", REFUSED))
        ]
        registered = [command("register", file) for file in files]
        assert [answer.exit_code for answer in registered] == [0, 0, 1]
        services = [
            command.start("run", NOETL_BROKER_HEALTH_PORT=str(port), NOETL_BROKER_VERIFY_SECONDS="0.5"),
            command.start("worker", "--pass-env", "CANARY_PASSWORD,PLAIN_CANARY", NOETL_BROKER_LOG_FORMAT="json"),
        ]
        payload = json.dumps({"site": site.url})
        ended = command.run("start", "examples/canary", "--payload", payload, "--wait", "--json")
        started = json.loads(ended.stdout)["execution_id"]
        answers = [command(*(str(started) if word == "ID" else word for word in words)) for words in SHOWING]
        printed += "".join(http_get(port, path).body for path in PORT)
        printed += _read_routes(command, started)
        for service in services:
            service.send_signal(signal.SIGTERM)
            out, err = service.communicate(timeout=PATIENCE_SECONDS)
            assert "job_ended" in err or "batch" in err
            printed += out + err
        dump = subprocess.run(
            [find_bin_folder() / "pg_dump", "--inserts", dsn], capture_output=True, text=True, check=True
        )
    assert [answer.exit_code for answer in answers] == [0] * len(SHOWING)
    for answer in (*registered, *answers):
        printed += answer.stdout + answer.stderr
    printed += ended.stdout + ended.stderr
    result = json.loads(ended.stdout)["result"]
    assert traces(dump.stdout) == []
    assert traces(printed) == []
    assert "x" * 100 in printed  # a log is shown, without the token that it ends in
    assert named("insert into noetl.event") in dump.stdout.lower()
    assert result["me"] == urlsplit(database.dsn).username
    _assert_used(site, database)


def _read_routes(command: Command, execution_id: int) -> str:
    """Serve the HTTP API; give all its answers, and what the console printed and logged."""
    port = free_port()
    console = command.start("console", "--port", str(port))
    assert console.stdout is not None
    printed = console.stdout.readline()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1/", trust_env=False, timeout=PATIENCE_SECONDS) as client:
        for route in ROUTES:
            answer = client.get(route.replace("ID", str(execution_id)))
            assert (answer.status_code, route) == (200, route), answer.text
            printed += answer.text
    console.send_signal(signal.SIGTERM)
    return printed + "".join(console.communicate(timeout=PATIENCE_SECONDS))


def _assert_used(site: Site, database: Database) -> None:
    token = ASCII[SECRET]
    headers = {path.partition("?")[0]: request_headers for path, (request_headers, _) in site.requests.items()}
    bodies = {path.partition("?")[0]: json.loads(body) for path, (_, body) in site.requests.items() if body}
    assert headers["/fields"]["authorization"] == f"Bearer {token}"
    assert headers["/fields"]["x-env"] == ASCII[VARIABLE]
    assert headers["/fields"]["x-key"] == ASCII[TOKEN]
    assert bodies["/fields"]["plain"] == PLAIN
    assert bodies["/fields"]["all"]["password"] == urlsplit(database.dsn).password
    assert (headers["/saved"]["x-saved"], bodies["/saved"]["token"]) == (token, token)
    assert (headers["/given"]["t"], headers["/given"]["w"]) == (token, f"<{token}>")
    assert bodies["/told"] == {"t": token, "w": f"<{token}>", "i": f"{token}COMPLETED"}
    assert headers["/workbook"]["authorization"] == f"Bearer {token}"
    for path in ("/each/1", "/each/2", "/spread/1", "/spread/2", "/child", "/refused"):
        assert headers[path]["k"] == token


@pytest.mark.parametrize("place", ["127.0.0.1:1/nowhere", "127.0.0.1:{port}/nowhere", "127.0.0.1:notaport/x"])
def test_an_unreachable_database_shows_no_password(lone_command: Command, postgres_server: Server, place: str) -> None:
    """No server, a refused login, a malformed DSN: log, port and `doctor` show no part of it."""
    quoted = "".join(f"%{byte:02X}" for byte in DSN.encode())
    dsn = f"postgresql://me:{quoted}@{place.format(port=postgres_server.port)}"
    port = free_port()
    process = lone_command.start("run", NOETL_BROKER_DSN=dsn, NOETL_BROKER_HEALTH_PORT=str(port))
    printed = ""
    if place.endswith(":1/nowhere"):
        printed = read_until(process, "waiting for the database")
        printed += "".join(http_get(port, path).body for path in PORT)
        process.send_signal(signal.SIGTERM)
    printed += "".join(process.communicate(timeout=PATIENCE_SECONDS))
    answers = [lone_command(*words, NOETL_BROKER_DSN=dsn) for words in (("doctor",), ("config",), ("executions",))]
    printed += "".join(answer.stdout + answer.stderr for answer in answers)
    assert "noetl-broker: " in printed
    assert traces(printed) == []

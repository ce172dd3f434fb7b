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
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest
from psycopg import sql

from noetl_broker.embedded_postgres.binaries import find_bin_folder
from tests.cli.conftest import PATIENCE_SECONDS, Command, write_playbook
from tests.cli.test_health_port import free_port, http_get
from tests.postgres import Database, named, psycopg_connect

MARK = "CANARY"  # in every secret, and nowhere else
SECRET, PASSWORD, TOKEN, PLAIN, VARIABLE, DSN = (f"{word}-{MARK}-{n:04}/+ü" for n, word in enumerate("spkxed", 1))
LINES = f"-----BEGIN {MARK}-----\n{MARK}first\n{MARK}second\n-----END-----"
ASCII = {text: text.replace("/+ü", "~") for text in (SECRET, PASSWORD, TOKEN, PLAIN, VARIABLE)}  # headers are ASCII

PLAYBOOK = """
workload:
  site: ""
  token: "{{ secret.api_token }}"
  login: {user: "{{ keychain.store.user }}", password: "{{ keychain.store.password }}"}
  bearer: "Bearer {{ secret.api_token }}"
workbook:
  - name: ask
    type: http
    url: "{{ workload.site }}/workbook"
    headers: {Authorization: "{{ bearer }}"}
    args: {password: "{{ workload.login.password }}"}
  - {name: tell, type: http, method: POST, url: "{{ site }}/told", payload: {t: "{{ t }}", w: "{{ w }}", i: "{{ i }}"}}
workflow:
  - {step: start, next: fields}
  - step: fields
    type: http
    method: POST
    url: "{{ site }}/fields"
    params: {key: "{{ secret.api_token }}"}
    headers: {Authorization: "Bearer {{ secret.api_token }}", X-Env: "{{ env.CANARY_PASSWORD }}"}
    payload: {plain: "{{ secret.PLAIN_CANARY }}", all: "{{ keychain.store }}", job: "{{ job.uuid }}"}
    auth: {type: api_key, credential: tokens, header: X-Key}
    save:
      storage: {type: http, url: "{{ site }}/saved", headers: {X-Saved: "{{ secrets.api_token }}"}}
      method: POST
      payload: {status: "{{ result.status_code }}", token: "{{ workload.token }}", event: "{{ execution_id }}"}
    next: given
  - {step: given, type: http, url: "{{ site }}/given", headers: {T: "{{ t }}", W: "{{ w }}"}, next: handed,
     args: {t: "{{ secret.api_token }}", w: "<{{ workload.token }}>"}}
  - {step: handed, type: workbook, task: tell, next: action,
     args: {t: "{{ secret.api_token }}", w: "<{{ workload.token }}>", i: "{{ secret.api_token }}{{ given.status }}"}}
  - {step: action, type: workbook, task: ask, next: each}
  - step: each
    type: iterator
    collection: [1, 2]
    element: n
    task: {type: http, url: "{{ workload.site }}/each/{{ n }}", headers: {K: "{{ key }}"},
           args: {key: "{{ secret.api_token }}"}}
    next: spread
  - step: spread
    type: iterator
    distribute: true
    mode: async
    collection: [1, 2]
    element: n
    task: {type: http, url: "{{ workload.site }}/spread/{{ n }}", headers: {K: "{{ key }}"},
           args: {n: "{{ n }}", key: "{{ secret.api_token }}"}}
    next: child
  - {step: child, type: playbook, path: examples/child, args: {site: "{{ site }}", name: api_token}, next: select}
  - {step: select, type: postgres, auth: store, command: "select current_user::text as me", next: refused}
  - {step: refused, type: http, url: "{{ site }}/refused", headers: {K: "{{ secret.api_token }}"}, on_error: continue,
     retry: {max_attempts: 2, initial_delay: 0, retry_when: "{{ status_code == 500 }}"}, next: raises}
  - step: raises
    type: python
    args: {t: "{{ secret.api_token }}", p: "{{ workload.login.password }}"}
    code: |
      import sys
      def main(t, p):
          print("token", t)
          print("x" * 8161 + t)
          print(repr(p), file=sys.stderr)
          raise ValueError(f"no use for {t!r} {p}")
    on_error: continue
    next: cast
  - {step: cast, type: postgres, command: "select '{{ secret.api_token }}'::int", on_error: continue, next: checked}
  - {step: checked, type: python, code: "def main(): return {'ok': True}", on_error: continue, next: nowhere,
     save: {table: picky, data: {word: "{{ secret.api_token }}"}}}
  - {step: nowhere, type: http, url: "http://127.0.0.1:1/{{ secret.api_token }}", on_error: continue, next: header}
  - {step: header, type: http, url: "{{ site }}/", headers: {K: "{{ secret.lines }}"}, on_error: continue, next: log_in}
  - {step: log_in, type: postgres, auth: broken, command: "select 1", on_error: continue, next: wrong}
  - {step: wrong, type: http, url: "{{ secret.api_token | int + secret.api_token }}", on_error: continue, next: url}
  - {step: url, type: http, url: "{{ secret.api_token }}", on_error: continue, next: method}
  - {step: method, type: http, url: "{{ site }}/", method: "{{ secret.api_token }}", on_error: continue, next: end}
  - step: end
    result:
      me: "{{ select.rows[0].me }}"
      asked: "{{ fields.url }}"
      failed:
        - "{{ refused.error.response }}"
        - "{{ raises.error.message }}"
        - "{{ cast.error.message }}"
        - "{{ checked.error.message }}"
        - "{{ nowhere.error.message }}"
        - "{{ header.error.message }}"
        - "{{ log_in.error.message }}"
        - "{{ wrong.error.message }}"
        - "{{ url.error.message }}"
        - "{{ method.error.message }}"
"""
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
    thread = threading.Thread(target=site.server.serve_forever)
    thread.start()
    yield site
    site.server.shutdown()
    thread.join()
    site.server.server_close()


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

"""A real NoETL server and worker as processes, on a Postgres with the tables of that server, migrated.

This repository has no code of NoETL: NOETL_HOME names a checkout of it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import httpx
import psycopg

from noetl_broker import embedded_postgres
from noetl_broker.broker.model.values import JSON
from noetl_broker.store.connect.migrations import migrate
from tests.cli.conftest import plain_environment
from tests.postgres import Database
from tests.sessions import session

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "beside-noetl.md").read_text(encoding="utf-8")
[WITHOUT_BROKER] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
WORKER = """
import asyncio
from noetl.worker.worker import ScalableQueueWorkerPool
asyncio.run(ScalableQueueWorkerPool(max_workers=4, check_interval=0.2, worker_poll_interval=0.1).run_forever())
"""
DDL = Path("noetl", "database", "ddl", "postgres", "schema_ddl.sql")
# That server reads its settings from the environment, and requires each of them.
SETTINGS = {
    "POSTGRES_USER": "noetl",
    "POSTGRES_PASSWORD": "noetl",
    "POSTGRES_DB": "noetl",
    "NOETL_USER": "noetl",
    "NOETL_PASSWORD": "noetl",
    "NOETL_SCHEMA": "noetl",
    "NOETL_HOST": "127.0.0.1",
    "NOETL_ENABLE_UI": "false",
    "NOETL_DEBUG": "false",
    "NOETL_SERVER": "uvicorn",
    "NOETL_SERVER_NAME": "interop",
    "NOETL_SERVER_WORKERS": "1",
    "NOETL_SERVER_RELOAD": "false",
    "NOETL_DROP_SCHEMA": "false",
    "NOETL_SCHEMA_VALIDATE": "false",
    "NOETL_WORKER_POOL_RUNTIME": "cpu",
    "NOETL_WORKER_POOL_NAME": "interop",
    "TZ": "UTC",
    # requests to other machines fail at once
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1",
}
NOWHERE = "http://127.0.0.1:9"
CREDENTIALS = ("pg_k8s", "pg_local", "test_postgres")  # as the fixtures name them
START_SECONDS = 60.0
END_SECONDS = 60.0
POLL_SECONDS = 0.1


def home() -> tuple[Path, str] | str:
    """Return the checkout of NoETL and its Python, or the reason why there is none."""
    named = os.environ.get("NOETL_HOME")
    if not named:
        return "NOETL_HOME is not set: name a checkout of noetl/noetl to run its server and worker"
    if not (folder := Path(named)).joinpath(DDL).is_file():
        raise AssertionError(f"NOETL_HOME is {folder}, which has no {DDL}: name a checkout of noetl/noetl")
    python = os.environ.get("NOETL_PYTHON") or str(folder / ".venv" / "bin" / "python")
    if shutil.which(python) is None:
        raise AssertionError(f"{python} is no program: set NOETL_PYTHON to a Python with NoETL's requirements")
    return folder, python


@dataclass(frozen=True, slots=True, kw_only=True)
class RealNoETL:
    """Server and worker, used through the server's API; `folder` is the checkout."""

    folder: Path
    url: str
    database: Database
    web: WebServer

    async def register(self, text: str) -> None:
        """Put a playbook into the catalog."""
        content = base64.b64encode(text.encode()).decode("ascii")
        await self._ask("POST", "/api/catalog/register", {"content_base64": content})

    async def start(self, path: str, payload: JSON = None) -> int:
        """Start an execution; return its id."""
        answer = await self._ask("POST", "/api/execute", {"path": path, "parameters": payload or {}})
        return int(answer["execution_id"])

    async def status(self, execution_id: int) -> str:
        """Return the status of an execution by the API."""
        return str((await self._ask("GET", f"/api/executions/{execution_id}"))["status"])

    async def ended(self, *execution_ids: int) -> dict[int, tuple[str, JSON, str | None]]:
        """Wait until executions have ended and their jobs are reported; return status, result and message."""
        notified = asyncio.Event()
        async with AsyncExitStack() as stack:
            own = await stack.enter_async_context(session(self.database))
            # notified at the end of an execution; later reports of the worker end with the row of the job
            await own.add_listener("noetl_end", lambda *_: notified.set())
            statement = """
                select x.execution_id, x.status, x.result, x.error ->> 'message'
                from noetl.execution x
                where x.execution_id = any($1::bigint[])
                  and x.status <> 'RUNNING'
                  and not exists (
                    select from noetl.queue q where q.execution_id = x.execution_id and q.status = 'leased')"""
            async with asyncio.timeout(END_SECONDS):
                while len(found := await own.fetch(statement, [*execution_ids])) < len(execution_ids):
                    notified.clear()
                    try:
                        await asyncio.wait_for(notified.wait(), POLL_SECONDS)
                    except TimeoutError:
                        continue
        return {number: (status, result, message) for number, status, result, message in found}

    async def _ask(self, method: str, path: str, body: JSON = None) -> Any:
        async with httpx.AsyncClient(base_url=self.url, timeout=30.0) as client:
            answer = await client.request(method, path, json=body)
        assert answer.status_code == 200, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()


@contextmanager
def real_noetl(folder: Path, python: str, scratch: Path) -> Iterator[RealNoETL]:
    """Start Postgres, the server without its broker, and the worker; stop them in reverse order."""
    with ExitStack() as stack:
        postgres = embedded_postgres.start(settings={"fsync": "off", "max_connections": "200"})
        stack.callback(postgres.close)
        database = _prepare(postgres, folder)
        # The server gets the open socket, so nobody can take its port before it starts.
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = listening.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        scratch.joinpath("without_broker.py").write_text(WITHOUT_BROKER, encoding="utf-8")
        environment = plain_environment() | SETTINGS
        environment |= {"POSTGRES_HOST": postgres.host, "POSTGRES_PORT": str(postgres.port), "NOETL_PORT": str(port)}
        environment |= {"PYTHONPATH": os.pathsep.join((str(folder), str(scratch))), "NOETL_SERVER_URL": url}
        processes = Processes(scratch, environment)
        stack.callback(processes.end)
        arguments = ("--factory", "--fd", str(listening.fileno()), "--log-level", "warning")
        # the server sends requests to itself and waits for answers that never come; this address refuses them
        server = processes.start(
            "server", python, "-m", "uvicorn", "without_broker:create_app", *arguments,
            descriptors=(listening.fileno(),), NOETL_SERVER_URL=NOWHERE,
        )  # fmt: skip
        listening.close()
        processes.await_answer(server, f"{url}/api/health")
        for name in CREDENTIALS:
            _give_credential(url, name, postgres)
        processes.start("worker", python, "-c", WORKER)
        web = stack.enter_context(WebServer.served())
        yield RealNoETL(folder=folder, url=url, database=database, web=web)


def _prepare(postgres: embedded_postgres.EmbeddedPostgres, folder: Path) -> Database:
    """Create a database with the tables of that server, and migrate it."""
    admin = f"postgresql://{postgres.user}:{postgres.password}@{postgres.host}:{postgres.port}"
    with psycopg.connect(f"{admin}/postgres", autocommit=True) as connection:
        connection.execute("create role noetl login password 'noetl'")
        connection.execute("create database noetl owner noetl")
    with psycopg.connect(f"{admin}/noetl", autocommit=True) as connection:
        connection.execute((folder / DDL).read_bytes())
    database = Database(name="noetl", dsn=f"postgresql://noetl:noetl@{postgres.host}:{postgres.port}/noetl")
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(migrate(database))
    return database


def _give_credential(url: str, name: str, postgres: embedded_postgres.EmbeddedPostgres) -> None:
    data = {
        "db_host": postgres.host,
        "db_port": str(postgres.port),
        "db_user": "noetl",
        "db_password": "noetl",
        "db_name": "noetl",
    }
    answer = httpx.post(f"{url}/api/credentials", json={"name": name, "type": "postgres", "data": data}, timeout=30.0)
    assert answer.status_code == 200, answer.text


class Processes:
    """Processes that run during the tests, each with a log in `scratch`."""

    def __init__(self, scratch: Path, environment: Mapping[str, str]) -> None:
        self.scratch, self.environment = scratch, environment
        self._running: list[subprocess.Popen[bytes]] = []

    def start(
        self, name: str, *command: str, descriptors: tuple[int, ...] = (), **environment: str
    ) -> subprocess.Popen[bytes]:
        """Start one, which gets these open files; its output goes to `<name>.log`."""
        with self.scratch.joinpath(f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=self.scratch,
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=descriptors,
            )
        self._running.append(process)
        return process

    def await_answer(self, process: subprocess.Popen[bytes], url: str) -> None:
        """Wait until the server answers; raise with its log if it ends."""
        for _ in range(int(START_SECONDS / POLL_SECONDS)):
            try:
                if httpx.get(url, timeout=5.0).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            try:
                process.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            break
        log = self.scratch.joinpath("server.log").read_text(encoding="utf-8")[-4000:]
        raise AssertionError(f"the NoETL server does not answer; see NOETL_PYTHON\n{log}")

    def end(self) -> None:
        """Stop all, the last one first."""
        while self._running:
            process = self._running.pop()
            process.terminate()
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass(slots=True)
class WebServer:
    """A web server on this machine that records `requests`; `/status/503` answers with that status."""

    url: str = ""
    requests: list[tuple[str, str, JSON]] = field(default_factory=list)

    @classmethod
    @contextmanager
    def served(cls) -> Iterator[Self]:
        """Serve until the end of the block."""
        web = cls()

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                web.requests.append((self.command, self.path, json.loads(body) if body else None))
                _, kind, *rest = self.path.split("?")[0].split("/")
                content = b'{"ok": true}'
                self.send_response(int(rest[0]) if kind == "status" else 200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the library's names

            def log_message(self, *_: Any) -> None:
                """Do not log requests."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            web.url = f"http://127.0.0.1:{server.server_port}"
            thread = threading.Thread(target=server.serve_forever, name="web")
            thread.start()
            try:
                yield web
            finally:
                server.shutdown()
                thread.join()

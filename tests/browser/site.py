"""A whole installation for a browser: an own Postgres, a broker, a worker and a console, each a process."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from psycopg.types.json import Jsonb

from noetl_broker import embedded_postgres
from noetl_broker.embedded_postgres import EmbeddedPostgres
from noetl_broker.store.admin.api_tokens import create_token
from noetl_broker.store.connect.connection import connect
from noetl_broker.store.connect.migrations import create_roles, migrate
from tests.cli.conftest import plain_environment
from tests.postgres import SETTINGS, Database, fast_root, psycopg_connect
from tests.processes import STDERR, Process, start_command
from tests.stories import document

PATIENCE_SECONDS = 120.0
COOKIE = "noetl_session"  # of the console
PASSWORD = "in"  # noqa: S105 - of a Postgres that lives for a run
ALIVE = "select count(*) from noetl.execution where noetl.is_live(status) and (%s::bigint is null or execution_id = %s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a test of the console acts on. `tokens` are by role."""

    url: str
    postgres: EmbeddedPostgres
    database: Database
    tokens: dict[str, str]
    console_pid: int

    def rows(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        """Run a statement; give its rows, if it has any."""
        with psycopg_connect(self.database, autocommit=True) as connection:
            cursor = connection.execute(statement, arguments or None)
            return [*cursor] if cursor.description else []

    def value(self, statement: str, *arguments: object) -> Any:
        """The first column of the first row."""
        found = self.rows(statement, *arguments)
        return found[0][0] if found else None

    def register(self, path: str, body: str, *, version: int = 1) -> None:
        """Put a playbook with this workload and workflow into the catalog, without a check."""
        self.put(path, document(body, path=json.dumps(path)), version=version)

    def put(self, path: str, text: str, *, version: int = 1) -> None:
        """Put the text of a playbook into the catalog, without a check."""
        self.rows(
            "insert into noetl.catalog (path, version, name, content) values (%s, %s, %s, %s) on conflict do nothing",
            *(path, version, path, text),
        )

    def start(self, path: str, payload: object = None, *, count: int = 1) -> list[int]:
        """Start executions; give their ids."""
        statement = "select noetl.start_execution(%s, %s) from generate_series(1, %s)"
        return [row[0] for row in self.rows(statement, path, Jsonb(payload or {}), count)]

    def run(self, path: str, payload: object = None, *, count: int = 1) -> list[int]:
        """Start executions and wait for their ends; give their ids."""
        found = self.start(path, payload, count=count)
        for execution_id in found:
            self.until_ended(execution_id)
        return found

    def until_ended(self, execution_id: int, *, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until an execution has ended."""
        self.until("noetl_end", lambda: self.value(ALIVE, execution_id, execution_id) == 0, seconds)

    def until_status(self, execution_id: int, status: str) -> None:
        """Wait until an execution has this status."""
        found = "select status from noetl.execution where execution_id = %s"
        self.until("noetl_event", lambda: self.value(found, execution_id) == status)

    def until_step(self, execution_id: int, step: str, status: str) -> None:
        """Wait until a step of an execution has this status."""
        wanted = "select count(*) from noetl.steps where execution_id = %s and step_name = %s and status = %s"
        self.until("noetl_event", lambda: self.value(wanted, execution_id, step, status) > 0)

    def until(self, channel: str, is_so: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until something is so; the database says on this channel when to look again, or a part of a second."""
        with psycopg_connect(self.database, autocommit=True) as connection:
            connection.execute(f"listen {channel}")
            until = time.monotonic() + seconds
            while not is_so():
                assert time.monotonic() < until, f"not so after {seconds:.0f} s"
                for _ in connection.notifies(timeout=0.1, stop_after=1):
                    pass


@contextmanager
def site(folder: Path, *, settings: Mapping[str, str] = MappingProxyType({})) -> Iterator[Site]:
    """Run the installation. The console's login is an operator's: pages must do with these rights."""
    postgres = embedded_postgres.start(settings={**SETTINGS, **settings}, temporary_root=fast_root())
    processes: list[Process] = []
    try:
        owner = Database(name="postgres", dsn=postgres.dsn())
        tokens = asyncio.run(_prepared(owner))
        console = f"postgresql://console:{PASSWORD}@{postgres.host}:{postgres.port}/postgres"
        environment = plain_environment() | {
            "NOETL_BROKER_DSN": owner.dsn,
            "NOETL_BROKER_HEALTH_PORT": "0",
            "NOETL_BROKER_VERIFY_SECONDS": "0",
            "NOETL_BROKER_LOG_LEVEL": "error",
        }
        processes.extend(
            start_command(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=STDERR)
            for command in (["run"], ["worker", "--worker-id", "worker-1"])
        )
        served = start_command(
            ["console", "--port", "0", "--json", "--dsn", console],
            cwd=folder,
            env=environment,
            stderr=STDERR,
        )
        processes.append(served)
        assert served.stdout is not None
        url = json.loads(served.stdout.readline())["url"]
        yield Site(url=url, postgres=postgres, database=owner, tokens=tokens, console_pid=served.pid)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.communicate()
        postgres.close()


async def _prepared(database: Database) -> dict[str, str]:
    """Migrate the database; give a token for each role."""
    await migrate(database)
    await create_roles(database)
    connection = await connect(database, name="test")
    try:
        await connection.execute(f"create role console login password '{PASSWORD}' in role noetl_operator")
        return {role: (await create_token(connection, role, role, None))[0] for role in ("operator", "viewer")}
    finally:
        await connection.close()

"""Two brokers with two schemas in one database get no mail and no notifications of each other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import takewhile

import psycopg
import pytest

from tests.cli.conftest import PATIENCE_SECONDS, Command, read_until, rows
from tests.daemon.processes.test_several_databases import INSERT, PLAYBOOK, run_an_execution
from tests.postgres import SCHEMA, Database, psycopg_connect

SCHEMAS = ("orders", "noetl_2")
JOB = PLAYBOOK.replace(
    "next: end}", "next: work}\n  - {step: work, type: python, code: 'def main(): return 1', next: end}"
)


@pytest.fixture
def schemas(bare_command: Command, empty_database: Database) -> list[Database]:
    """Give one database with two schemas, each migrated by the command and with a playbook."""
    found = [replace(empty_database, schema=schema) for schema in SCHEMAS]
    for database in found:
        assert bare_command("migrate", "--schema", database.schema).exit_code == 0
        rows(database, INSERT, JOB)
    return found


@contextmanager
def serving(command: Command, schema: str) -> Iterator[None]:
    """Run a broker and a worker of the schema as processes."""
    broker = command.start("run", "--schema", schema)
    read_until(broker, "ready")
    worker = command.start("worker", "--schema", schema, "--worker-id", f"worker of {schema}")
    read_until(worker, "worker_started")
    try:
        yield
    finally:
        for process in (worker, broker):
            process.terminate()
            assert process.wait(PATIENCE_SECONDS) == 0


def heard(connection: psycopg.Connection[object]) -> set[str]:
    """Give the channels of all notifications so far, except those that brokers send to themselves."""
    connection.execute("listen mark; notify mark")  # the last of them
    found = iter(connection.notifies(timeout=PATIENCE_SECONDS))
    until_mark = takewhile(lambda notification: notification.channel != "mark", found)
    return {notification.channel for notification in until_mark if not notification.payload.startswith("probe:")}


def test_each_broker_and_worker_serves_its_schema_alone(bare_command: Command, schemas: list[Database]) -> None:
    """While both run, an execution in one schema sends notifications and runs there only."""
    first = schemas[0]
    with ExitStack() as stack:
        for database in schemas:
            stack.enter_context(serving(bare_command, database.schema))
        listener = stack.enter_context(psycopg_connect(first, autocommit=True))
        for database in schemas:
            for kind in ("event", "job", "end"):
                listener.execute(f'listen "{database.schema}_{kind}"')
        for database in schemas:
            run_an_execution(database)
            assert {channel.rpartition("_")[0] for channel in heard(listener)} == {database.schema}
        found = json.loads(bare_command("doctor", "--json", "--schema", first.schema).stdout)["findings"]
        assert [finding["facts"]["brokers"] for finding in found if finding["check"] == "brokers"] == [1]
    for database in schemas:
        assert rows(database, "select status from noetl.execution") == [("COMPLETED",)]
        workers = rows(database, "select distinct worker_id from noetl.event where worker_id is not null")
        assert workers == [(f"worker of {database.schema}",)]


def test_a_schema_without_a_broker_stands_still(bare_command: Command, schemas: list[Database]) -> None:
    """The broker of the other schema does not read its mail."""
    first, second = schemas
    for database in schemas:
        assert bare_command("start", "story", "--schema", database.schema).exit_code == 0
    answer = bare_command("run", "--drain", "--schema", first.schema, "--json")
    assert json.loads(answer.stdout)["turns"] == 1
    assert rows(second, "select count(*) from noetl.inbox") == [(1,)]
    assert rows(second, "select count(*) from noetl.turn") == [(0,)]


@pytest.mark.skipif(SCHEMA != "noetl", reason="the schema that the tests configure needs no option")
def test_remedies_name_the_schema(bare_command: Command, schemas: list[Database]) -> None:
    """Those of `doctor`, `explain`, and of a broker without a schema: whoever copies one reaches the same schema."""
    del schemas

    def said(*arguments: str) -> str:
        return str(bare_command(*arguments, "--schema", "orders").stdout)

    paused = said("pause", "--path", "story")
    started = said("start", "story").strip()
    assert "noetl-broker pause --schema orders --path story --status running" in paused
    assert "no broker serves schema orders (start one: noetl-broker run --schema orders)" in said("explain", started)
    examined = said("doctor")
    assert "no broker serves schema orders" in examined
    assert "noetl-broker run --schema orders, or" in examined
    said("run", "--drain")
    assert "noetl-broker resume --schema orders --path story admits it" in said("status", started)
    bare_command.refuses([("run --fail-fast --schema away", 78, "run noetl-broker migrate --schema away")])


@pytest.mark.parametrize("processes", [1, 2])
def test_one_broker_serves_two_schemas_of_a_database(
    bare_command: Command, schemas: list[Database], processes: int
) -> None:
    """`--schema` for each; totals are printed by database and schema."""
    for database in schemas:
        assert bare_command("start", "story", "--schema", database.schema).exit_code == 0
    both = [word for schema in SCHEMAS for word in ("--schema", schema)]
    answer = bare_command.run("run", "--drain", *both, "--json", "--processes", processes)
    assert answer.returncode == 0
    totals = {entry["database"].rpartition("/")[2]: entry["turns"] for entry in json.loads(answer.stdout)}
    assert totals == dict.fromkeys(SCHEMAS, 1)


def test_a_wrong_schema_is_refused(lone_command: Command) -> None:
    """On the command line and in the environment, before any connection."""
    dsns = " ".join(f"--dsn postgresql://127.0.0.1:1/{name}" for name in "abc")
    both = "3 databases and 2 schemas are given: name one schema for all databases"
    lone_command.refuses([
        (f"run {dsns} --schema orders --schema bills", 2, both),
        ("executions --schema My-Schema", 2, "the schema 'My-Schema' has no valid name"),
    ])  # fmt: skip
    lone_command.environment["NOETL_BROKER_SCHEMA"] = "orders_archive"
    lone_command.refuses([("executions", 2, "the schema 'orders_archive' has no valid name")])


def test_migrate_prints_the_sql_of_a_schema(lone_command: Command) -> None:
    """Rendered, with the roles."""
    text = lone_command("migrate", "--sql", "--roles", "--schema", "orders").stdout
    assert "create table if not exists orders." in text
    assert "grant usage on schema orders to orders_broker" in text
    assert re.search(r"\bnoetl\.", text) is None

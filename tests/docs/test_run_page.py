"""docs/run.md: a broker works with the login that the page makes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from noetl_broker.store.migrations import create_roles
from tests.brokers import (
    PATIENCE_SECONDS,
    broken_invariants,
    complete_jobs,
    drain,
    execute,
    register,
    rows,
    running,
    start,
    value,
)
from tests.docs.pages import code_blocks, read_page
from tests.postgres import Database, psycopg_connect
from tests.test_tidy import ROOT

[LOGIN] = code_blocks(read_page("run"), "sql")
CHILD = """
    workflow:
      - {step: start, next: work}
      - {step: work, type: python, code: "def main(): ...", next: end}
      - {step: end}
    """
PARENT = """
    workflow:
      - {step: start, next: [call, each]}
      - {step: call, type: playbook, path: story, next: end}
      - step: each
        type: iterator
        collection: [1, 2]
        element: n
        distribute: true
        task: {type: python, args: {n: "{{ n }}"}, code: "def main(n): ..."}
        next: end
      - {step: end, result: "{{ each }}"}
    """


@pytest.fixture
def role(database: Database, maintenance: psycopg.Connection) -> Iterator[str]:
    """Yield the name of a role of this test alone; the role is dropped with its rights."""
    name = f"broker_of_{database.name}"
    yield name
    with psycopg_connect(database, autocommit=True) as connection:
        connection.execute(sql.SQL("drop owned by {}").format(sql.Identifier(name)))
    maintenance.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


async def test_a_broker_runs_with_the_login_of_the_page(database: Database, role: str) -> None:
    """It runs executions with children and items, ends one, cancels one, and verifies them."""
    await create_roles(database)
    await execute(database, LOGIN.replace("broker_1", role))
    address = database.dsn.split("@", 1)[1]
    limited = Database(name=database.name, dsn=f"postgresql://{role}:change%20me@{address}")
    await register(database, CHILD)
    await register(database, PARENT, path="family")
    done, cancelled = await start(database, "family", count=2)
    # A broker that lacks a right retries for ever.
    async with asyncio.timeout(PATIENCE_SECONDS), running(limited, reap_seconds=0.1):
        await drain(limited)
        await execute(database, "select noetl.cancel_execution($1)", cancelled)
        await drain(limited)
        while await value(database, "select count(*) from noetl.execution where noetl.is_live(status)"):
            await complete_jobs(database, 1)
            await drain(limited)
    statement = (
        "select coalesce(parent_execution_id, execution_id), status, result from noetl.execution order by 1, path"
    )
    assert await rows(database, statement) == [
        (done, "COMPLETED", [1, 1]),
        (done, "COMPLETED", 1),
        (cancelled, "CANCELLED", None),
        (cancelled, "CANCELLED", None),
    ]
    assert await broken_invariants(limited) == {}


@pytest.mark.parametrize(
    "row, used_in, pattern", [
        ("channels", "migrations/*.sql", r"pg_notify\('noetl_(\w+)'"),
        ("roles", "deploy/roles.sql", r"'noetl_(\w+)'"),
    ],
)  # fmt: skip
def test_the_page_names_everything_that_has_the_name_of_the_schema(row: str, used_in: str, pattern: str) -> None:
    """Of a schema `orders`: each channel that is notified, each role that is made."""
    [told] = re.findall(rf"^\| {row} \| (.*) \|$", read_page("run"), re.MULTILINE)
    used = {name for file in ROOT.glob(used_in) for name in re.findall(pattern, file.read_text(encoding="utf-8"))}
    assert {*re.findall(r"`orders_(\w+)`", told)} == used

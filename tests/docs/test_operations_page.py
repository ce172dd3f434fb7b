"""The page about operations keeps its word: settings, outcomes and exit codes are the code's, its statements run."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest
from psycopg import sql

from noetl_broker import errors
from noetl_broker.broker import core, dispatcher, draft, initial
from noetl_broker.settings import Settings
from noetl_broker.store.faults import KINDS
from noetl_broker.store.migrate import create_roles
from noetl_broker.store.pool import connect
from noetl_broker.store.verify import CHECKS, TABLES, TURNS
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
    until_ended,
)
from tests.postgres import Database

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
STATEMENTS = re.findall(r"^```sql\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
ROLE, *LOOKS = (statement for statement in STATEMENTS if "noetl_operator" not in statement)
DIAMOND = """
    workflow:
      - {step: start, next: [left, right]}
      - {step: left, type: python, code: "def main(): ...", next: [{when: "{{ left > 0 }}", step: both}]}
      - {step: right, type: python, code: "def main(): ...", next: both}
      - {step: both, type: python, code: "def main(): ...", next: end}
      - {step: end}
    """

FAMILY = """
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


def _table(head: str) -> dict[str, list[str]]:
    """Give the rows of a table of the page by their first cell; `head` is the beginning of its first line."""
    lines = PAGE.split(f"\n{head}", 1)[1].split("\n\n")[0].splitlines()[2:]
    cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {first.strip("`"): rest for first, *rest in cells}


def _plain(default: Any) -> str:
    if default is None:
        return ""
    return f"`{json.dumps(sorted(default) if isinstance(default, frozenset) else default)}`"


def _bounds(name: str) -> str:
    schema = Settings.model_json_schema()["properties"][name]
    schema |= schema.get("anyOf", [{}])[0]  # of what may be None
    if "enum" in schema:
        return ", ".join(schema["enum"])
    return f"{schema['minimum']:.12g} to {schema['maximum']:.12g}" if "minimum" in schema else ""


def _texts(module: ModuleType, of: type[ast.AST]) -> Iterator[str]:
    """Give the texts that stand in the returns, or the calls of Decision, of a module."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if not isinstance(node, of):
            continue
        if isinstance(node, ast.Return) and node.value is not None:
            where: ast.AST = node.value
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Decision" and node.args
        ):
            where = node.args[0]
        else:
            continue
        if isinstance(where, ast.IfExp):
            parts = [where.body, where.orelse]
        else:
            parts = [where] if isinstance(where, ast.Constant) else []
        yield from (part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str))


def test_every_setting_stands_in_the_table_with_its_default_and_its_bounds() -> None:
    """In the order of the class."""
    table = {name: cells[:2] for name, cells in _table("| setting |").items()}
    assert list(table.items()) == [
        (name, [_plain(field.default), _bounds(name)]) for name, field in Settings.model_fields.items()
    ]


def test_every_outcome_that_the_core_can_give_is_listed() -> None:
    """Taken from the source of what decides about outcomes."""
    given = {
        draft.DECIDED,
        *_texts(dispatcher, ast.Return),
        *_texts(core, ast.Call),
        *_texts(initial, ast.Call),
    }
    assert _table("| outcome |").keys() == given


def test_every_exit_code_is_listed() -> None:
    """As errors.py has them."""
    codes = {0, *(number for name, number in vars(errors).items() if name.startswith("EXIT_"))}
    assert {int(code) for code in _table("| code |")} == codes


def test_every_fault_of_the_database_stands_in_the_table_with_its_remedy() -> None:
    """What the program does about a SQLSTATE, and the word that its log has for it."""
    assert _table("| SQLSTATE |") == {state: [kind.remedy.value, kind.word] for state, kind in KINDS.items()}


def test_every_invariant_that_verify_asks_for_is_listed() -> None:
    """With its sentence, in the order of their numbers."""
    lines = PAGE.split("\n| invariant |", 1)[1].split("\n\n")[0].splitlines()[2:]
    listed = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    checks = sorted((*CHECKS, TABLES, TURNS), key=lambda check: int(check.invariant.removeprefix("I")))
    assert listed == [(check.invariant, check.sentence) for check in checks]


def test_every_table_that_is_explained_exists(database: Database) -> None:
    """By its name, in a migrated database."""
    with psycopg.connect(database.dsn) as connection:
        found = {row[0] for row in connection.execute("select table_name from information_schema.tables").fetchall()}
    names = re.findall(r"^\| `noetl\.(\w+)`(?:, `noetl\.(\w+)`)? \|", PAGE, re.MULTILINE)
    assert {name for pair in names for name in pair if name} <= found


@pytest.fixture
def role(database: Database, maintenance: psycopg.Connection) -> Iterator[str]:
    """Yield the name of a role that no other test has; the role is dropped with its rights."""
    name = f"broker_of_{database.name}"
    yield name
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("drop owned by {}").format(sql.Identifier(name)))
    maintenance.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


async def test_the_rights_on_the_page_are_enough_for_a_daemon(database: Database, role: str) -> None:
    """It runs executions with children and items as that role, one to its end, one into a cancel, and verifies them."""
    await create_roles(database.dsn)
    await execute(database, ROLE.replace("broker_1", role))
    address = database.dsn.split("@", 1)[1]
    limited = Database(name=database.name, dsn=f"postgresql://{role}:change%20me@{address}")
    await register(database, DIAMOND)
    await register(database, FAMILY, path="family")
    done, cancelled = await start(database, "family", count=2)
    # A daemon that lacks a right tries again for ever.
    async with asyncio.timeout(PATIENCE_SECONDS), running(limited, reap_seconds=0.1):
        await drain(limited)
        await execute(database, "select noetl.cancel_execution($1)", cancelled)
        await drain(limited)
        while await complete_jobs(database, 1):
            await drain(limited)
        await until_ended(database)
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


async def test_every_look_at_a_stuck_execution_runs_and_shows_it(database: Database) -> None:
    """One branch has ended and waits at the join, the other's job waits for a worker."""
    await register(database, DIAMOND)
    (stuck,) = await start(database)
    await drain(database)
    await complete_jobs(database, 1, most=1)
    shown = await _looks(database, stuck)
    assert [row[1] for row in shown["noetl.inbox"]] == ["action_completed"]
    await drain(database)
    shown = await _looks(database, stuck)
    assert [row[0] for row in shown["noetl.queue"]] == ["right"]
    ((turn, live, waiting),) = shown["noetl.execution_state"]
    assert (turn, [token["step"] for token in live], [*waiting]) == (2, ["right"], ["both"])
    assert [row[1] for row in shown["noetl.turn"]] == ["decided", "decided"]
    assert [row[1:3] for row in shown["noetl.event"]] == [("{{ left > 0 }}", "true")]
    assert shown["noetl.dead_letter"] == shown["pg_locks"] == []


async def test_who_sleeps_is_shown(database: Database) -> None:
    """By the gate that a sleeping daemon holds."""
    look = next(statement for statement in LOOKS if "pg_locks" in statement)
    async with running(database):
        while not (found := await rows(database, look)):
            pass
    assert found[0][1] == "noetl-broker bell"


async def _looks(database: Database, execution_id: int) -> dict[str, list[tuple[Any, ...]]]:
    """Give the rows of every statement of the page that only looks, by the table that it reads first."""
    shown: dict[str, list[tuple[Any, ...]]] = {}
    connection = await connect(database.dsn, name="psql")
    try:
        for statement in LOOKS:
            if statement.startswith("select"):
                table = re.findall(r"from ([\w.]+)", statement)[0]
                found = await connection.fetch(statement.replace(":id", str(execution_id)))
                shown[table] = [tuple(row) for row in found]
    finally:
        await connection.close()
    assert len(shown) == len(LOOKS)
    return shown

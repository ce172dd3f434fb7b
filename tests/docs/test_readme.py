"""README.md keeps its word: its first playbook, its commands and its worker in SQL run as they stand there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import psycopg

from noetl_broker.playbook import Rules, check
from tests.cli.conftest import Command, decide, rows
from tests.docs.shell import blocks, run_script
from tests.postgres import Database
from tests.test_tidy import ROOT

PAGE = (ROOT / "README.md").read_text(encoding="utf-8")
[PLAYBOOK] = blocks(PAGE, "yaml")
FIRST, SCHEMA = blocks(PAGE)
[WORKER] = blocks(PAGE, "sql")
DEMO, _ = blocks(PAGE, "console")


def test_the_first_playbook_has_no_finding() -> None:
    """As `validate` looks at it."""
    assert check(PLAYBOOK, file="hello.yaml", rules=Rules()) == ()


def test_the_first_commands_run_the_first_playbook(empty_database: Database, tmp_path: Path) -> None:
    """In their order, on an empty database; it is installed here, and where the database is, the test says."""
    (tmp_path / "hello.yaml").write_text(PLAYBOOK, encoding="utf-8")
    install, export, *commands = FIRST.splitlines(keepends=True)
    assert [install.split()[0], export.split("=")[0]] == ["pip", "export NOETL_BROKER_DSN"]
    answer = run_script("".join(commands), tmp_path, empty_database)
    assert answer.stdout.splitlines()[-1] == '"Hello, Ada!"'
    assert rows(empty_database, "select path, status, result from noetl.execution") == [
        ("examples/hello", "COMPLETED", "Hello, Ada!")
    ]


def test_the_commands_for_an_editor_write_what_they_say(tmp_path: Path) -> None:
    """The schema, and the playbook with the line that names it."""
    (tmp_path / "hello.yaml").write_text(PLAYBOOK, encoding="utf-8")
    run_script(SCHEMA, tmp_path)
    first, *rest = (tmp_path / "with-schema.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
    [name] = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)\n", first).groups()  # type: ignore[union-attr]
    assert json.loads((tmp_path / name).read_text(encoding="utf-8"))["title"] == "NoETL playbook"
    assert "".join(rest) == PLAYBOOK


def test_the_worker_in_sql_does_the_job_of_the_first_playbook(database: Database) -> None:
    """It leases what the broker has queued and completes it, and the execution ends with what it said."""
    statement = "insert into noetl.catalog (path, version, name, content) values ('examples/hello', 1, 'hello', %s)"
    lease, complete = WORKER.split("\n\n")
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute(statement, (PLAYBOOK,))
        connection.execute("select noetl.start_execution('examples/hello')")
        decide(database)
        [(_, attempt, step, arguments)] = connection.execute(lease).fetchall()
        assert (attempt, step, arguments) == (1, "greet", {"name": "world"})
        assert connection.execute(complete).fetchall() == [(True,)]
    decide(database)
    assert rows(database, "select status, result from noetl.execution") == [("COMPLETED", "Hello, Ada!")]


def test_the_demo_prints_what_is_shown(demo: Command) -> None:
    """Line by line, but for times and for what is cut short with an ellipsis."""
    _, *shown, last = DEMO.splitlines()
    answer = run_script("noetl-broker demo", demo.folder)
    assert last == "…"
    for line, printed in zip(map(_timeless, shown), map(_timeless, answer.stdout.splitlines()), strict=False):
        assert printed.startswith(line.removesuffix("…")), printed
        assert line.endswith("…") or printed == line


def _timeless(line: str) -> str:
    return re.sub(r"\d+(\.\d+)? m?s\b", "SPAN", line)

"""The command `doctor`: its output and exit codes; tests/store/test_doctor.py causes each finding."""

from __future__ import annotations

import asyncio
import platform

import pytest

from noetl_broker import __version__
from noetl_broker.compiled_form import installed_form
from tests.brokers import execute, running
from tests.cli.conftest import NOWHERE, Command
from tests.postgres import Database


def test_doctor_prints_a_line_for_each_check_and_a_remedy_for_each_problem(
    command: Command, database: Database
) -> None:
    """A problem exits with 1. A misspelled variable gets a suggestion: no other command reports it."""
    answer = command("doctor")
    assert answer.exit_code == 1
    after_connection = answer.stdout.partition("no broker is connected to this database\n")[2]
    assert [line.split()[0] for line in after_connection.splitlines()[:2]] == ["why", "do"]
    assert answer.stdout.splitlines()[-1] == "1 problem, 2 notices"
    command.environment["NOETL_BROKER_SWEEP_SECOND"] = "3"
    [finding] = [finding for finding in command.json("doctor")["findings"] if finding["check"] == "settings"]
    assert (finding["state"], finding["facts"]["meant"]) == ("notice", "NOETL_BROKER_SWEEP_SECONDS")
    del command.environment["NOETL_BROKER_SWEEP_SECOND"]

    # A database that cannot be reached is a problem of its own, unless it is the only one.
    answer = command("doctor", "--dsn", NOWHERE, "--dsn", database.dsn)
    lines = answer.stdout.splitlines()
    here, first, second = (index for index, line in enumerate(lines) if line.endswith(":"))
    form = f"the {installed_form()} form, on Python {platform.python_version()}"
    assert lines[here + 1] == f"ok       program       noetl-broker {__version__}, {form}"
    assert lines[first].startswith("127.0.0.1:1/nowhere")
    assert lines[first + 1].split()[:2] == ["problem", "connection"]
    assert (lines[second + 1].split()[:2], answer.exit_code) == (["ok", "connection"], 1)
    command.refuses([(f"doctor --dsn {NOWHERE}", 69, "")])


async def test_notices_alone_exit_with_0(database: Database, command: Command) -> None:
    """A superuser and a server without fsync do not prevent work."""
    async with running(database):
        document = await asyncio.to_thread(command.json, "doctor")
        assert (await asyncio.to_thread(command, "doctor")).exit_code == 0
    assert (document["problems"], document["notices"]) == (0, 2)
    assert {"database", "check", "state", "says", "why", "do", "facts"} == set(document["findings"][0])


@pytest.mark.parametrize(
    "change, expected",
    [
        ("update noetl.schema_version set checksum = '' where version = 2", ("problem", True)),
        ("insert into noetl.schema_version (version, name, checksum, serves_from) values (99, 'x.sql', '', 1)",
         ("notice", True)),
        ("delete from noetl.schema_version where version > 3", ("problem", False)),
    ],
)  # fmt: skip
async def test_a_finding_about_the_schema_says_whether_brokers_start(
    command: Command, database: Database, change: str, expected: tuple[str, bool]
) -> None:
    """`run` does as the finding says. A changed or newer migration that is served stops only `migrate`."""
    await execute(database, change)
    [schema] = [
        one for one in (await asyncio.to_thread(command.json, "doctor"))["findings"] if one["check"] == "schema"
    ]
    starts = schema["why"].startswith(("Brokers start, but", "An upgrade is under way"))
    assert (schema["state"], starts) == expected
    assert command.run("run", "--drain", "--fail-fast").returncode == (0 if starts else 78)
    assert command.run("migrate").returncode == (78 if starts else 0)

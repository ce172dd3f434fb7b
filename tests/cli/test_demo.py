"""`demo`: the whole system in a few seconds, and nothing left over."""

from __future__ import annotations

import json
import signal

import pytest

from tests.cli.conftest import Command

STEPS = ("create_flat_table", "create_nested_table", "create_summary_table")
EVENTS = ("step_started", "action_started", "action_completed", "step_completed")
LOG = [
    "execution_start    | create_tables",
    *(f"{event:<18} | {step}" for step in STEPS for event in EVENTS),
    "execution_complete | create_tables",
]


def test_the_demo_prints_the_sequence_of_the_first_description(demo: Command) -> None:
    """Twice in one folder, which keeps its data, and nothing is left running."""
    for _ in range(2):
        answer = demo.run("demo")
        assert (answer.returncode, answer.stderr) == (0, "")
        assert [line for line in answer.stdout.splitlines() if " | " in line] == LOG
        assert (demo.folder / ".demo" / "data").exists()
        assert not (demo.folder / ".demo" / "data" / "postmaster.pid").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_demo_with_all_that_it_started(demo: Command, number: signal.Signals) -> None:
    """Its Postgres too, in good order."""
    process = demo.start("demo")
    assert process.stdout is not None
    while not process.stdout.readline().startswith("migrated"):
        pass
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    assert not (demo.folder / ".demo" / "data" / "postmaster.pid").exists()


def test_the_demo_makes_one_document_for_programs(lone_command: Command) -> None:
    """The log, the tables that were made, and both executions."""
    shown = json.loads(lone_command.run("demo", "--json").stdout)
    assert [f"{event_type:<18} | {node_name}" for event_type, node_name in shown["log"]] == LOG
    assert [(table["schema"], table["name"]) for table in shown["tables"]] == [
        ("demo", "flat"),
        ("demo", "nested"),
        ("demo", "summary"),
    ]
    assert min(table["rows"] for table in shown["tables"]) > 0
    assert [shown["first"]["status"], shown["second"]["status"]] == ["COMPLETED", "COMPLETED"]


def test_a_folder_that_cannot_be_written_is_one_sentence(lone_command: Command) -> None:
    """A file stands where the demo's folder should be made."""
    (lone_command.folder / ".demo").write_text("in the way")
    answer = lone_command.run("demo")
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    assert ".demo" in answer.stderr


def test_a_postgres_that_is_not_there_is_one_sentence(lone_command: Command) -> None:
    """With what to install."""
    answer = lone_command.run("demo", NOETL_BROKER_PG_BINDIR="/nowhere/bin")
    assert answer.returncode == 2
    assert answer.stderr == (
        "noetl-broker: NOETL_BROKER_PG_BINDIR is /nowhere/bin, where there are no programs postgres and initdb.\n"
    )

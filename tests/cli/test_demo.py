"""`demo` runs the whole system in a few seconds, and leaves nothing behind."""

from __future__ import annotations

import json
import signal

from tests.cli.conftest import PATIENCE_SECONDS, Command

STEPS = ("create_flat_table", "create_nested_table", "create_summary_table")
EVENTS = ("step_started", "action_started", "action_completed", "step_completed")
LOG = [
    "execution_start    | create_tables",
    *(f"{event:<18} | {step}" for step in STEPS for event in EVENTS),
    "execution_complete | create_tables",
]


def test_the_demo_prints_the_documented_sequence_of_events(demo: Command) -> None:
    """Twice in one folder, which keeps its data. No process is left running."""
    for _ in range(2):
        answer = demo.run("demo")
        assert (answer.returncode, answer.stderr) == (0, "")
        assert [line for line in answer.stdout.splitlines() if " | " in line] == LOG
        assert (demo.folder / ".demo" / "data").exists()
        assert not (demo.folder / ".demo" / "data" / "postmaster.pid").exists()


def test_a_signal_ends_the_demo_with_all_that_it_started(demo: Command) -> None:
    """Its Postgres also shuts down cleanly."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        process = demo.start("demo")
        assert process.stdout is not None
        while not process.stdout.readline().startswith("migrated"):
            pass
        process.send_signal(number)
        assert process.wait(PATIENCE_SECONDS) == 128 + number
        assert not (demo.folder / ".demo" / "data" / "postmaster.pid").exists()


def test_the_demo_prints_one_json_document(lone_command: Command) -> None:
    """The log, the tables, and both executions."""
    document = json.loads(lone_command.run("demo", "--json").stdout)
    assert [f"{event_type:<18} | {node_name}" for event_type, node_name in document["log"]] == LOG
    assert [(table["schema"], table["name"]) for table in document["tables"]] == [
        ("demo", "flat"),
        ("demo", "nested"),
        ("demo", "summary"),
    ]
    assert min(table["rows"] for table in document["tables"]) > 0
    assert [document["first"]["status"], document["second"]["status"]] == ["COMPLETED", "COMPLETED"]


def test_the_demo_says_what_is_missing(lone_command: Command) -> None:
    """A folder that it may write: a file has the name of the demo's folder. Or a Postgres: it says what to install."""
    missing = lone_command.run("demo", NOETL_BROKER_PG_BINDIR="/nowhere/bin")
    assert (missing.returncode, missing.stderr) == (
        2, "noetl-broker: NOETL_BROKER_PG_BINDIR is /nowhere/bin: there are no programs postgres and initdb.\n",
    )  # fmt: skip
    (lone_command.folder / ".demo").write_text("in the way")
    answer = lone_command.run("demo")
    assert (answer.returncode, answer.stderr.count("\n"), ".demo" in answer.stderr) == (2, 1, True)

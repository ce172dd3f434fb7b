"""The filters that choose executions are the same in every command."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import click
import pytest

from noetl_broker.cli.main import cli
from noetl_broker.cli.selection import FILTERS, Since, TimeSpan
from noetl_broker.commands import COMMANDS
from tests.cli.conftest import Command, decide, execute, rows, write_playbook
from tests.postgres import Database

CHOOSING = (
    "executions", "dead-letters", "reevaluate", "retry", "fork", "cancel", "pause", "resume", "replay", "verify",
)  # fmt: skip
FAILING = """\
workflow:
  - {step: start, next: load}
  - {step: load, type: python, code: "def main(): ..."}
"""


@click.command()
def _no_filters() -> None:
    """A command with the filters, for comparison."""


@pytest.mark.parametrize("name", CHOOSING)
def test_every_command_that_chooses_executions_has_the_same_filters(name: str) -> None:
    """With the same help."""
    expected = _no_filters
    for option in FILTERS:
        expected = option(expected)
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    known = {option.name: _described(option) for option in command.params if isinstance(option, click.Option)}
    assert {option.name: known.get(option.name) for option in expected.params} == {
        option.name: _described(option) for option in expected.params if isinstance(option, click.Option)
    }


def _described(option: click.Option) -> tuple[Any, ...]:
    return option.opts, type(option.type), option.metavar, option.help


def test_no_other_command_reads_a_time_or_a_filter_by_itself() -> None:
    """One module parses time spans."""
    readers = {
        name: {option.name for option in command.params if isinstance(option.type, Since | TimeSpan)}
        for name in COMMANDS
        if (command := cli.get_command(click.Context(cli), name)) is not None
    }
    assert {name: options for name, options in readers.items() if options} == {
        **{name: {"since", "until"} for name in CHOOSING if name != "replay"},
        "replay": {"since"},
        "archive": {"older_than"},
    }


@pytest.mark.parametrize(
    "text,seconds",
    [
        ("90s", 90),
        ("1.5 h", 5400),
        ("30 min", 1800),
        ("30m", 1800),
        ("2D", 172_800),
        ("2w", 1_209_600),
        (" 7d ", 604_800),
        ("2h30m", 9000),
        ("1d 2h30min", 95_400),
        ("P1DT2H", 93_600),
    ],
)
def test_a_time_span_is_a_duration_with_units(text: str, seconds: float) -> None:
    """Seconds, minutes, hours, days and weeks, as in a playbook; `sec` and `min` too."""
    assert (TimeSpan().convert(text, None, None), Since().convert(text, None, None)) == (seconds, seconds)


@pytest.mark.parametrize("text", ["2026-01-31T08:00Z", "2026-01-31T08:00", "20260131T08", "2026-01-31T09:00+01:00"])
def test_since_can_be_a_point_in_time(text: str) -> None:
    """In ISO 8601; without a zone it is UTC."""
    assert Since().convert(text, None, None) == datetime(2026, 1, 31, 8, tzinfo=UTC)


def test_a_date_as_an_end_includes_its_day() -> None:
    """As a beginning it is midnight."""
    day = datetime(2026, 1, 31, tzinfo=UTC)
    assert (Since().convert("2026-01-31", None, None), Since(end=True).convert("2026-01-31", None, None)) == (
        day, day.replace(hour=23, minute=59, second=59, microsecond=999_999),
    )  # fmt: skip


@pytest.mark.parametrize("text", ["1 hour", "yesterday", "-2h", "2", "\u0661h", "101 years", "5300w", "99999999999s"])
@pytest.mark.parametrize("name", CHOOSING)
def test_a_wrong_time_is_refused_with_what_to_write(lone_command: Command, name: str, text: str) -> None:
    """Exit code 2, before any connection."""
    refused = lone_command(name, f"--since={text}")
    assert (refused.exit_code, "a span (90s, 30min, 2h30m, 7d, 2w) nor a moment (2026-01-31" in refused.stderr) == (
        2,
        True,
    )


@pytest.mark.parametrize("name", ["reevaluate", "retry", "replay"])
def test_a_command_never_takes_all_executions_by_default(lone_command: Command, name: str) -> None:
    """It needs an id, a filter or --all. An id and a filter exclude each other."""
    takes = "ids" if name == "replay" else "one ID"
    nothing = lone_command(name)
    assert (nothing.exit_code, f"{name} needs the id of an execution, a filter" in nothing.stderr) == (2, True)
    for both in (("5", "--all"), ("5", "--path", "x"), ("5", "--since", "1h")):
        refused = lone_command(name, *both)
        assert (refused.exit_code, f"{name} takes either {takes} or filters" in refused.stderr) == (2, True)


def test_each_filter_chooses_the_same_executions_in_each_command(command: Command, database: Database) -> None:
    """`since` is about the start and the last turn, so it finds a long execution that failed now."""
    command("register", write_playbook(command.folder, FAILING, path="examples/load"))
    failed, running = (int(command("start", "examples/load").stdout) for _ in range(2))
    decide(database)
    refuse = """select noetl.fail_job(queue_id, 'w', attempts, '{"message": "disk full"}') from noetl.lease_jobs('w', 2)
        where execution_id = %s"""
    rows(database, refuse, failed)
    decide(database)
    execute(database, "update noetl.execution set started_at = started_at - interval '3 hours'")
    execute(database, f"update noetl.execution_state set last_at = '2020-01-01' where execution_id = {running}")

    def counts(*filters: str) -> tuple[int, int, int, int]:
        listed = json.loads(command("executions", *filters, "--json").stdout)
        retried = json.loads(command("retry", *filters, "--json").stdout)["found"]
        replayed = json.loads(command("replay", *filters, "--json").stdout)["executions"]
        verified = json.loads(command("verify", *filters, "--json").stdout)["executions"]
        return len(listed), retried, replayed, verified

    assert counts("--path", "examples/*") == (2, 1, 2, 2)
    assert counts("--since", "2h") == (1, 1, 1, 1)
    assert counts("--since", "2w") == (2, 1, 2, 2)
    assert counts("--since", "2100-01-01") == (0, 0, 0, 0)
    assert counts("--status", "failed") == (1, 1, 1, 1)
    assert counts("--error", "DISK*ull") == (1, 1, 1, 1)
    assert counts("--step", "load") == (1, 1, 1, 1)
    assert counts("--step", "load", "--status", "running") == (0, 0, 0, 0)

"""The filters that choose executions are the same in every command."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest

from noetl_broker.cli.main import cli
from tests.cli.conftest import FETCH, Command, begin, decide, execute, fail, write_playbook
from tests.postgres import Database, psycopg_connect

FILTERS = ("--path", "--status", "--error", "--step", "--since", "--of-version")
CHOOSING = (
    "executions", "dead-letters", "reevaluate", "retry", "fork", "cancel", "pause", "resume", "replay", "verify",
)  # fmt: skip


@pytest.mark.parametrize("name", CHOOSING)
def test_every_command_that_chooses_executions_has_the_same_filters(name: str) -> None:
    """With the same help as `executions`."""
    wanted, found = (_options(command) for command in ("executions", name))
    filters = (*FILTERS, *(() if name == "replay" else ("--until",)))  # its --until is a turn
    assert {each: found.get(each) for each in filters} == {each: wanted[each] for each in filters}


def _options(name: str) -> dict[str, tuple[Any, ...]]:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    options = [option for option in command.params if isinstance(option, click.Option)]
    return {option.opts[0]: (type(option.type), option.metavar, option.help) for option in options}


def started_since(command: Command, since: str, until: str = "0s") -> int:
    """Give how many executions `--since` and `--until` choose."""
    return int(command.json("cancel", "--since", since, "--until", until)["found"])


def test_since_and_until_take_a_span_or_a_moment(command: Command, database: Database, started: int) -> None:
    """Spans of seconds to weeks as in a playbook; moments in ISO 8601, without a zone in UTC; a day to its end."""
    spans = {
        "90s": 90, "1.5 h": 5400, "30 min": 1800, "30m": 1800, "2D": 172_800, "2w": 1_209_600, " 7d ": 604_800,
        "2h30m": 9000, "1d 2h30min": 95_400, "P1DT2H": 93_600,
    }  # fmt: skip
    moved = f"""
        with moved as (update noetl.execution set started_at = %s where execution_id = {started})
        update noetl.execution_state set last_at = %s where execution_id = {started}"""

    def move(at: datetime) -> None:
        with psycopg_connect(database, autocommit=True) as connection:
            connection.execute(moved, (at, at))

    for text, seconds in spans.items():
        now = datetime.now(UTC)
        found = []
        for more in (-60, 60):
            move(now - timedelta(seconds=seconds + more))
            found.append((started_since(command, text), started_since(command, "100w", text)))
        assert (text, found) == (text, [(1, 0), (0, 1)])
    move(datetime(2026, 1, 31, 8, tzinfo=UTC))
    moments = ("2026-01-31T08:00Z", "2026-01-31T08:00", "20260131T08", "2026-01-31T09:00+01:00")
    assert [started_since(command, text) for text in moments] == [1] * 4
    assert [started_since(command, text.replace("08", "09")) for text in moments[:3]] == [0] * 3
    assert started_since(command, "2026-01-31", "2026-01-31") == 1
    assert [started_since(command, f"2026-0{day}", f"2026-0{day}") for day in ("1-30", "2-01")] == [0, 0]


@pytest.mark.parametrize("name", CHOOSING)
def test_a_wrong_choice_is_refused_before_any_connection(lone_command: Command, name: str) -> None:
    """A wrong time with what to write. Some commands need an id, a filter or --all, and never take two of them."""
    texts = ("1 hour", "yesterday", "-2h", "2", "\u0661h", "101 years", "5300w", "99999999999s")
    time = "a span (90s, 30min, 2h30m, 7d, 2w) nor a moment (2026-01-31"
    own = ("--from", "a") if name == "fork" else ()
    cases: list[tuple[tuple[str, ...], int, str]] = [((name, f"--since={text}", *own), 2, time) for text in texts]
    if name in {"reevaluate", "retry", "replay"}:
        takes = f"{name} takes either {'ids' if name == 'replay' else 'one ID'} or filters"
        cases += [((name,), 2, f"{name} needs the id of an execution, a filter")]
        cases += [((name, "5", *filters.split()), 2, takes) for filters in ("--all", "--path x", "--since 1h")]
    lone_command.refuses(cases)


def test_each_filter_chooses_the_same_executions_in_each_command(command: Command, database: Database) -> None:
    """`since` is about the start and the last turn, so it finds a long execution that failed now."""
    command("register", write_playbook(command.folder, FETCH, path="examples/load"))
    command("start", "examples/load")
    decide(database)
    fail(database, message="disk full")
    running = begin(command, database, FETCH, path="examples/load")
    execute(database, "update noetl.execution set started_at = started_at - interval '3 hours'")
    execute(database, f"update noetl.execution_state set last_at = '2020-01-01' where execution_id = {running}")

    def counts(*filters: str) -> tuple[int, int, int, int]:
        listed = command.json("executions", *filters)
        retried = command.json("retry", *filters)["found"]
        replayed, verified = (command.json(name, *filters)["executions"] for name in ("replay", "verify"))
        return len(listed), retried, replayed, verified

    assert counts("--path", "examples/*") == (2, 1, 2, 2)
    assert counts("--since", "2h") == (1, 1, 1, 1)
    assert counts("--since", "2w") == (2, 1, 2, 2)
    assert counts("--since", "2100-01-01") == (0, 0, 0, 0)
    assert counts("--status", "failed") == (1, 1, 1, 1)
    assert counts("--error", "DISK*ull") == (1, 1, 1, 1)
    assert counts("--step", "fetch") == (1, 1, 1, 1)
    assert counts("--step", "fetch", "--status", "running") == (0, 0, 0, 0)

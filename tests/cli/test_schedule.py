"""The commands `schedule …`: what they print, change and refuse."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from noetl_broker.resources import playbooks_folder
from tests.cli.conftest import Command, execute, rows
from tests.postgres import Database

PATH = "examples/conditional"
FILE = playbooks_folder() / "conditional.yaml"


@pytest.fixture
def command(command: Command) -> Command:
    """Commands on a database with a playbook."""
    command("register", FILE)
    return command


def test_put_makes_a_schedule_and_says_when_it_starts(command: Command) -> None:
    """The same call again changes nothing. As many moments are listed as are asked for. No catch-up is said."""
    call = ("schedule", "put", "yearly", PATH, "--cron", "@yearly", "--timezone", "Europe/Berlin")
    year = datetime.now(UTC).year + 1
    first = command(*call)
    assert first.exit_code == 0
    assert first.stdout.splitlines() == [
        "yearly: At 00:00 on January 1 (Europe/Berlin)",
        f"next: {year}-01-01T00:00:00+01:00",
    ]
    assert command(*call).stdout.splitlines()[0] == "yearly: At 00:00 on January 1 (Europe/Berlin) (unchanged)"
    moments = [f"{year + n}-01-01T00:00:00+01:00" for n in range(2)]
    assert command("schedule", "next", "yearly", "--count", "2").stdout.splitlines() == moments
    put = command("schedule", "put", "fast", PATH, "--every", "2s", "--catch-up", "0")
    shown = command("schedule", "show", "fast")
    assert ["are not made up" in said.stdout for said in (put, shown)] == [True, True]


def test_each_start_has_the_tags_and_the_priority_of_its_schedule(command: Command, database: Database) -> None:
    """Both may change later. A moment that a person makes up has their name, one that is due nobody's."""
    options = ("--tag", "job=nightly", "--priority", "9")
    command("schedule", "put", "daily", PATH, "--cron", "0 3 * * *", *options)
    assert "each start has: job=nightly, priority 9" in command("schedule", "show", "daily").stdout.splitlines()
    command("schedule", "backfill", "daily", "--from", "2026-03-28T00:00Z", "--to", "2026-03-29T00:00Z", "--yes")
    execute(database, "select noetl.start_scheduled('daily', now(), '2026-03-30T03:00:00+00:00', true)")
    found = rows(
        database,
        "select tags, (e.meta ->> 'priority')::int, started_by is null from noetl.execution"
        " join noetl.event e using (execution_id) where e.event_type = 'execution_start' order by execution_id",
    )
    assert found == [({"job": "nightly"}, 9, False), ({"job": "nightly"}, 9, True)]
    command("schedule", "put", "daily", PATH, "--cron", "0 3 * * *", "--priority", "0")
    assert "each start has: priority 0" in command("schedule", "show", "daily").stdout.splitlines()


def test_put_refuses_a_bad_schedule(command: Command) -> None:
    """As a usage error."""
    cases = [
        (("--cron", "61 * * * *"), "the cron text '61 * * * *' is wrong: bad minute; write five fields"),
        (("--cron", "@daily", "--timezone", "Nowhere"), "there is no time zone 'Nowhere'; write an IANA name"),
        (("--every", "soon"), "'soon' is not a duration; write a number of seconds, 90s, 15m"),
        (("--every", "1h", "--overlap", "never"), "'never' is not one of 'skip', 'queue', 'cancel', 'allow'"),
        (("--every", "1h", "--payload", "[1]"), "must be a JSON object"),
    ]
    command.refuses([(("put", "bad", PATH, *options), 2, message) for options, message in cases], "schedule")


def test_list_and_show_have_state_and_next_moments(command: Command, database: Database) -> None:
    """A pause, and what went wrong last."""
    command("schedule", "put", "often", PATH, "--every", "15m", "--payload", '{"city": "Paris"}')
    assert command("schedule", "pause", "often").stdout == "schedule often is paused\n"
    assert command("schedule", "pause", "often").stdout == "schedule often is paused already\n"
    assert command("schedule", "list").stdout.splitlines()[1].split()[-3:] == ["0", "0", "paused"]
    assert command("schedule", "resume", "often").stdout == "schedule often goes on\n"
    execute(database, "update noetl.start_schedule set error = 'no such thing'")
    shown = command("schedule", "show", "often").stdout.splitlines()
    assert shown[:4] == [
        "often: every 900 s",
        'starts examples/conditional, the latest version, with {"city": "Paris"}',
        "jitter: 0 ms",
        "catch_up: 1 h 0 min",
    ]
    assert shown[4] == "started 0 times, skipped 0 moments (too late, or during a pause); last: never"
    assert shown[-2] == "state: no such thing"
    assert shown[-1].startswith("next: ")


def test_a_schedule_is_deleted_unless_a_playbook_declares_it(command: Command, database: Database) -> None:
    """Then its playbook must change."""
    command("schedule", "put", "often", PATH, "--every", "15m")
    assert command("schedule", "delete", "often").stdout == "schedule often is deleted\n"
    execute(database, f"select noetl.put_schedule('{PATH}#a', '{PATH}', '@daily', declared_in => '{PATH}')")
    declared = f"the playbook {PATH} declares the schedule {PATH}#a"
    command.refuses([(f"delete {PATH}#a", 1, declared)], "schedule")


def test_backfill_counts_moments_and_starts_those_without_an_execution(command: Command, database: Database) -> None:
    """Without --yes it starts nothing; a second call finds nothing to start."""
    command("schedule", "put", "daily", PATH, "--cron", "0 3 * * *", "--timezone", "Europe/Berlin")
    call = ("schedule", "backfill", "daily", "--from", "2026-03-28T00:00Z", "--to", "2026-03-31T00:00Z")
    assert command(*call).stdout.splitlines() == [
        "3 moments, 0 of them have their execution",
        "  2026-03-28T03:00:00+01:00",
        "  2026-03-29T03:00:00+02:00",
        "  2026-03-30T03:00:00+02:00",
        "3 executions would be started; nothing was done, --yes does it",
    ]
    assert command(*call, "--limit", 1).stdout.splitlines()[1:] == [
        "  2026-03-28T03:00:00+01:00",
        "1 execution would be started; nothing was done, --yes does it",
    ]
    assert rows(database, "select count(*) from noetl.execution") == [(0,)]
    assert command(*call, "--yes", "--limit", 1).stdout == "1 of 3 executions started\n"
    assert command(*call, "--yes").stdout == "2 of 2 executions started\n"
    assert command(*call, "--yes").stdout == "3 moments, 3 of them have their execution\n"
    [execution] = rows(database, "select min(execution_id) from noetl.execution")
    headline = command("explain", execution[0]).stdout.splitlines()[0]
    assert headline.endswith("; started by the schedule daily for 2026-03-28T02:00:00Z")
    found = rows(database, "select context #>> '{workload,schedule,at}' from noetl.event order by 1")
    assert found == [(f"2026-03-{day}T03:00:00+0{offset}:00",) for day, offset in ((28, 1), (29, 2), (30, 2))]


@pytest.mark.parametrize("day, offset", [("2026-03-28", "+01:00"), ("2026-03-29", "+02:00")])
def test_a_day_of_a_backfill_is_one_of_the_schedules_zone(command: Command, day: str, offset: str) -> None:
    """From its beginning to its end: midnight there belongs to it, and is the evening before in UTC."""
    command("schedule", "put", "daily", PATH, "--cron", "0 0,23 * * *", "--timezone", "Europe/Berlin")
    answer = command("schedule", "backfill", "daily", "--from", day, "--to", day)
    evening = f"  {day}T23:00:00+02:00" if day == "2026-03-29" else f"  {day}T23:00:00{offset}"
    assert answer.stdout.splitlines()[1:3] == [f"  {day}T00:00:00+01:00", evening]
    assert answer.stdout.startswith("2 moments")


def test_backfill_starts_at_most_so_many_a_second(command: Command) -> None:
    """Three at twenty a second take a tenth of a second."""
    command("schedule", "put", "daily", PATH, "--cron", "@daily")
    began = datetime.now(UTC)
    answer = command(
        "schedule", "backfill", "daily", "--from", "2026-03-01", "--to", "2026-03-03", "--yes", "--rate", "20", "--json"
    )
    assert (datetime.now(UTC) - began).total_seconds() >= 0.1
    assert [entry["at"] for entry in json.loads(answer.stdout)["done"]] == [
        "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z", "2026-03-03T00:00:00Z",
    ]  # fmt: skip


def test_backfill_leaves_the_future_to_the_schedule(command: Command) -> None:
    """Until now, whatever --to says, also the end of the calendar: in UTC it is in the year 10000 for New York."""
    command("schedule", "put", "daily", PATH, "--cron", "@daily", "--timezone", "America/New_York")
    for end in ("2090-01-01", "9999-12-31"):
        answer = command("schedule", "backfill", "daily", "--from", "0s", "--to", end)
        assert answer.stdout == "0 moments, 0 of them have their execution\n"
    command("schedule", "put", "often", PATH, "--every", "1s")
    call = "schedule backfill often --from 2020-01-01"
    command.refuses([
        ("schedule backfill often --from 2026-01-02 --to 2026-01-01", 2, "after its end at"),
        ("schedule backfill often --from 300d", 2, "has more than 100,000 moments from 20"),
        ("schedule backfill often --from 300d", 2, "give a later --from, or an earlier --to"),
        (call, 2, "would begin at 2020-01-01 00:00:00.000Z, which is longer ago than the setting keep_keys, 365d"),
    ])  # fmt: skip

"""docs/beside-noetl.md: its statements run on the database of a NoETL server."""

from __future__ import annotations

import re
from pathlib import Path

from noetl_broker.settings import Settings
from noetl_broker.store.migrations import compat_noetl, migrations
from tests.brokers import drain, rows, value
from tests.noetl import open_noetl
from tests.postgres import Database

PAGE = (Path(__file__).parents[2] / "docs" / "beside-noetl.md").read_text(encoding="utf-8")
STATEMENTS = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
BODY = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: b}
- {step: b, type: python, code: x, next: end}
- {step: end}
"""


async def test_the_statements_show_missing_events_and_their_replacements(noetl_database: Database) -> None:
    """One job was set to `done`; another one was decided after that."""
    noetl = await open_noetl(noetl_database)
    await noetl.register(BODY)
    noetl.tasks |= {"a": lambda _: 1, "b": lambda _: 2}
    noetl.lost = {"action_completed"}
    await noetl.start(9)
    await drain(noetl_database)
    await noetl.work()
    await noetl.connection.execute("select noetl.reap_ended_jobs(9, -1)")
    await drain(noetl_database)
    await noetl.work()
    await noetl.connection.close()
    waiting, decided, running, *_ = STATEMENTS
    assert [row[1:] for row in await rows(noetl_database, waiting)] == [("done", 9, "b", "done", 1)]
    assert [row[1:] for row in await rows(noetl_database, decided)] == [(9, "a", "action_completed", "done")]
    assert await value(noetl_database, running) == 1


async def test_going_back_removes_all_triggers(noetl_database: Database) -> None:
    """Its tables have no trigger of ours."""
    noetl = await open_noetl(noetl_database)
    await noetl.connection.execute(STATEMENTS[-1])
    triggers = "select count(*) from pg_trigger where not tgisinternal and tgname like 'noetl%'"
    assert await value(noetl_database, triggers) == 0
    await noetl.register(BODY)
    await noetl.start(9)
    assert await value(noetl_database, "select count(*) from noetl.inbox") == 0
    for migration in (*migrations(), compat_noetl()):  # as `migrate --sql` prints them
        await noetl.connection.execute(migration.text)
    assert await value(noetl_database, triggers) == 8
    await noetl.connection.close()


def test_the_defaults_are_those_of_the_program() -> None:
    """With the defaults of the page."""
    assert Settings.model_fields["retry_owner"].default == "broker"
    assert f"`foreign_lease_grace_seconds` ({Settings.model_fields['foreign_lease_grace_seconds'].default:g})" in PAGE
    assert f"`missing_event_seconds` ({Settings.model_fields['missing_event_seconds'].default:g})" in PAGE

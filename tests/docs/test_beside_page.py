"""docs/how-to/beside-noetl.md: its statements run on the database of a NoETL server."""

from __future__ import annotations

from noetl_broker.store.connect.migrations import compat_noetl, migrations
from tests.brokers import drain, rows, value
from tests.docs.pages import code_blocks, read_page
from tests.noetl import open_noetl
from tests.postgres import Database

STATEMENTS = code_blocks(read_page("beside-noetl"), "sql")
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

"""What the first page of the console counts."""

from __future__ import annotations

from noetl_broker.store.admin.overview import load_activity, load_present
from tests.brokers import drain, execute, register, start
from tests.postgres import Database
from tests.sessions import pooled_session

STORY = """
workflow:
  - {step: start, next: end}
  - {step: end, result: {sum: "{{ workload.x + 1 }}"}}
"""


async def test_what_started_is_counted_by_time_playbook_and_failure(database: Database) -> None:
    """A failure that a fork recovered is none any more. A block is no playbook."""
    await register(database, STORY)
    ids = await start(database, payload={"x": 1}, count=2) + await start(database, payload={"x": "text"}, count=3)
    await drain(database)
    await execute(database, "update noetl.execution set forked_from = $1 where execution_id = $2", ids[2], ids[0])
    await execute(database, "update noetl.execution set path = 'story#pay' where execution_id = $1", ids[1])
    async with pooled_session(database) as connection:
        found = await load_activity(connection, seconds=3600, parts=4, most=5)
    [playbook] = found["playbooks"]
    [failure] = found["failures"]
    assert (
        (found["executions"], found["is_cut"], found["recovered"], sorted(found["parts"])),
        (playbook["path"], playbook["executions"], playbook["failed"], playbook["live"]),
        (failure["path"], failure["step"], failure["count"], failure["execution_id"]),
    ) == ((5, False, 1, [[3, "COMPLETED", 2], [3, "FAILED", 3]]), ("story", 4, 3, 0), ("story", "end", 2, str(ids[4])))


async def test_what_there_is_now_is_counted(database: Database) -> None:
    """Executions, jobs, approvals, unread events, and brokers."""
    await register(
        database,
        """
workflow:
  - {step: start, next: [{step: ask}, {step: work}]}
  - {step: ask, type: approval, title: "?", next: end}
  - {step: work, type: python, code: "def main(): pass", next: end}
  - step: end
""",
    )
    await start(database, count=2)
    await drain(database)
    await start(database)
    await execute(database, "update noetl.event set created_at = created_at - interval '1 hour'")
    async with pooled_session(database) as connection:
        found = await load_present(connection)
    assert 3600 <= found["oldest_mail_seconds"] < 3700
    names = ("live", "queued", "paused", "ready_jobs", "leased_jobs", "approvals", "unread_mail", "dead_letters")
    assert [found[name] for name in names] == [3, 0, 0, 2, 0, 2, 1, 0]

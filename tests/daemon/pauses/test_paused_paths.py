"""New executions of a paused playbook are queued, and admitted in order when it is resumed."""

from __future__ import annotations

import asyncio

from noetl_broker.playbook import PlaybookRules
from noetl_broker.service.recoveries import recover_failed
from tests.brokers import complete_jobs, drain, execute, register, rows, start, value
from tests.consistency import inconsistencies
from tests.postgres import Database
from tests.sessions import blocked, session

STORY = """
workflow:
  - {step: start, next: a}
  - {step: a, type: python, code: "def main(): ...", next: end}
  - {step: end}
"""
PARENT = """
workflow:
  - {step: start, next: call}
  - {step: call, type: playbook, path: story, next: end}
  - {step: end}
"""
STATUSES = "select execution_id, status from noetl.execution where path = 'story' order by execution_id"


async def test_starts_of_a_paused_path_are_queued_and_admitted_in_order(database: Database) -> None:
    """The oldest first; a second pause or resume says that it changed nothing."""
    await register(database, STORY)
    assert await value(database, "select noetl.pause_path('story', 'a fix')")
    assert await value(database, "select noetl.pause_path('story')") is False
    started = await start(database, count=3)
    await drain(database)
    assert await rows(database, STATUSES) == [(one, "QUEUED") for one in started]
    assert await value(database, "select count(*) from noetl.queue") == 0
    assert await value(database, "select noetl.resume_path('story')")
    assert await value(database, "select noetl.resume_path('story')") is False
    assert await value(database, "select noetl.admit_executions('story', 2)") == 2
    mail = "select execution_id from noetl.inbox order by mail_id"
    assert await rows(database, mail) == [(one,) for one in started[:2]]
    await execute(database, "update noetl.catalog set name = null")  # as a NoETL server registers it
    assert await value(database, "select noetl.admit_executions('story', 2)") == 1
    assert await value(database, "select noetl.admit_executions('story', 2)") == 0
    named = "select distinct node_name from noetl.event where event_type = 'place_free'"
    assert await rows(database, named) == [("story",)]
    await drain(database)
    await complete_jobs(database)
    await drain(database)
    assert await rows(database, STATUSES) == [(one, "COMPLETED") for one in started]
    assert await inconsistencies(database) == {}


async def test_the_reaper_admits_what_is_queued_of_paths_that_are_not_paused(database: Database) -> None:
    """Nobody has to call admit_executions after resume_path."""
    await register(database, STORY)
    await register(database, STORY, path="other")
    for path in ("story", "other"):
        await execute(database, "select noetl.pause_path($1)", path)
        await start(database, path)
    await drain(database)
    await execute(database, "select noetl.reap(100, 5)")
    assert await value(database, "select count(*) from noetl.inbox") == 0
    await execute(database, "select noetl.resume_path('story')")
    await execute(database, "select noetl.reap(100, 5)")
    await execute(database, "select noetl.reap(100, 5)")
    await drain(database)
    statuses = "select path, status from noetl.execution order by path"
    assert await rows(database, statuses) == [("other", "QUEUED"), ("story", "RUNNING")]


async def test_a_child_of_a_paused_path_is_queued(database: Database) -> None:
    """Its parent runs on and waits."""
    await register(database, STORY)
    await register(database, PARENT, path="parent")
    await execute(database, "select noetl.pause_path('story')")
    await start(database, "parent")
    await drain(database)
    statuses = "select path, status from noetl.execution order by path"
    assert await rows(database, statuses) == [("parent", "RUNNING"), ("story", "QUEUED")]
    await execute(database, "select noetl.resume_path('story')")
    await execute(database, "select noetl.reap(100, 5)")
    await drain(database)
    await complete_jobs(database)
    await drain(database)
    assert await rows(database, statuses) == [("parent", "COMPLETED"), ("story", "COMPLETED")]
    assert await inconsistencies(database) == {}


async def test_a_deadline_counts_from_the_admission(database: Database) -> None:
    """A queued execution has none."""
    await register(database, STORY, metadata='deadline: "{{ workload.limit | default(60) }}"')
    await execute(database, "select noetl.pause_path('story')")
    await start(database)
    await drain(database)
    due = "select due_at from noetl.timer where purpose = 'deadline'"
    assert await value(database, due) is None
    await execute(database, "select noetl.resume_path('story')")
    await execute(database, "select noetl.reap(100, 5)")
    await drain(database)
    assert await value(database, f"select ({due}) > now() + interval '30 s'")


async def test_no_start_is_stranded_while_its_path_is_resumed(database: Database) -> None:
    """The claim saw the pause, and the resume commits before the turn is written: the turn admits it at once."""
    await register(database, STORY)
    await execute(database, "select noetl.pause_path('story')")
    (execution_id,) = await start(database)
    async with session(database) as operator, operator.transaction():
        await operator.execute("select noetl.resume_path('story')")
        await drain(database)  # the row of the path is locked: the claim still sees it
    assert await rows(database, STATUSES) == [(execution_id, "RUNNING")]
    types = "select event_type from noetl.event where event_type like 'execution%' order by created_at"
    assert await rows(database, types) == [("execution_start",), ("execution_queued",), ("execution_admitted",)]


async def test_a_resume_of_a_path_finds_a_start_that_is_written_meanwhile(database: Database) -> None:
    """It waits for the turn that has queued it."""
    await register(database, STORY)
    await execute(database, "select noetl.pause_path('story')")
    await start(database)
    await drain(database)
    async with session(database) as broker, session(database) as operator:
        async with broker.transaction():
            await broker.execute("select from noetl.path_pause for key share")
            resuming = asyncio.create_task(operator.fetchval("select noetl.resume_path('story')"))
            await blocked(broker)
        assert await resuming is True


async def test_a_retry_of_a_paused_path_is_queued_and_continues_from_its_step(database: Database) -> None:
    """It repeats the failed visit when it is admitted."""
    await register(database, STORY)
    (failed,) = await start(database)
    await drain(database)
    fails = "select noetl.fail_job(q.queue_id, 'w', 1, '{\"message\": \"no\"}') from noetl.lease_jobs('w') q"
    await execute(database, fails)
    await drain(database)
    await execute(database, "select noetl.pause_path('story')")
    async with session(database) as own:
        retried = (await recover_failed(own, failed, PlaybookRules()))["recovered_as"]
    await drain(database)
    assert await rows(database, STATUSES) == [(failed, "FAILED"), (retried, "QUEUED")]
    await execute(database, "select noetl.resume_path('story')")
    await execute(database, "select noetl.reap(100, 5)")
    await drain(database)
    assert await complete_jobs(database) == 1
    await drain(database)
    assert await rows(database, STATUSES) == [(failed, "FAILED"), (retried, "COMPLETED")]
    assert await inconsistencies(database) == {}

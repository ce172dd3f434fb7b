"""Forks and retries get the signals that their source had and did not take."""

from __future__ import annotations

from noetl_broker.broker.model.values import JSON
from tests.brokers import broken_invariants, complete_jobs, drain, execute, register, rows, start, value
from tests.daemon.history.test_forks import answer, differences, fork, retry_execution
from tests.postgres import Database

BODY = """
workflow:
- {step: start, next: [first, work]}
- {step: first, type: wait, signal: go}
- {step: work, type: python, code: x, next: more}
- {step: more, type: wait, signal: go, when: "{{ signal.payload > 2 }}", next: last}
- {step: last, type: wait, signal: last}
"""


async def signal(database: Database, execution_id: int, name: str, payload: JSON) -> None:
    """Send a signal to an execution."""
    await execute(database, "select noetl.signal_execution($1, $2, $3::jsonb)", execution_id, name, payload)


async def ended(database: Database, execution_id: int) -> list[tuple[object, ...]]:
    """Give the completed steps of an execution with the results that they carry."""
    query = """
    select node_name, result
    from noetl.event
    where execution_id = $1 and event_type = 'step_completed'
    order by created_at"""
    return await rows(database, query, execution_id)


async def test_a_retry_takes_over_the_signals_that_were_not_taken(database: Database) -> None:
    """Those that were kept, and those that nobody waited for yet; not those that it has taken."""
    await register(database, BODY)
    [source] = await start(database)
    await drain(database)
    for payload in (1, 2, 3):
        await signal(database, source, "go", payload)
    await signal(database, source, "last", 9)
    await drain(database)
    assert await ended(database, source) == [("first", 1)]
    await answer(database, "work", error="boom")
    assert await value(database, "select status from noetl.execution") == "FAILED"
    retried = await retry_execution(database, source)
    await drain(database)
    await complete_jobs(database)
    await drain(database)
    assert await ended(database, retried) == [("work", None), ("more", 3), ("last", 9)]
    assert await differences(database, retried) == []
    assert await broken_invariants(database) == {}


async def test_a_fork_gets_a_kept_signal_once(database: Database) -> None:
    """Its `since` counts from the start of the original. What the original took later comes to the fork, too."""
    body = BODY.replace("signal: last", "signal: last, key: k")
    await register(database, body)
    [source] = await start(database)
    await execute(database, "select noetl.send_signal('last', 'k', '8')")
    await drain(database)
    for payload in (1, 2, 3):
        await signal(database, source, "go", payload)
        await drain(database)
    await complete_jobs(database)
    await drain(database)
    assert await ended(database, source) == [("first", 1), ("work", None), ("more", 3), ("last", 8)]
    forked = await fork(database, source, "more")
    await drain(database)
    assert await ended(database, forked) == [("more", 3), ("last", 8)]
    assert await differences(database, forked) == []
    assert await broken_invariants(database) == {}

"""Forks in the database: what they copy, how a daemon runs them, and that a replay finds no difference."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from noetl_broker.broker.model.values import JSON
from noetl_broker.errors import BrokerError
from noetl_broker.history.fork_plan import plan_fork
from noetl_broker.history.recovery_plan import plan_restart
from noetl_broker.history.replay import Replay, replay_history, sentences
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.service.recoveries import recover_failed
from noetl_broker.store.admin import recovery
from noetl_broker.store.admin.history import Versions, load_history
from noetl_broker.store.admin.history_scan import MOST_TURNS, HistorySize, read
from noetl_broker.store.connect.connection import connect
from tests.brokers import broken_invariants, complete_jobs, drain, execute, register, rows, start, value
from tests.postgres import Database
from tests.sessions import session

RULES = PlaybookRules()
DIAMOND = """
workload: {n: 1, id: "{{ uuid() }}"}
workflow:
- {step: start, next: [a, b]}
- {step: a, type: python, code: x, next: r}
- {step: r, type: route, next: [{when: "{{ a.ok }}", step: c, args: {v: "{{ a.v }}", handed: "{{ result.v }}"}}]}
- {step: c, type: python, code: x, next: j}
- {step: b, type: python, code: x, next: j}
- {step: j, type: python, code: x, args: {a: "{{ a.big | length }}", b: "{{ b.v }}", c: "{{ c.v }}"}, next: end}
- {step: end, result: {id: "{{ workload.id }}", j: "{{ j }}"}}
"""


async def answer(database: Database, step: str, result: JSON = None, *, error: str | None = None) -> None:
    """Lease the job of this step, complete or fail it, and let a daemon decide."""
    leased = await rows(
        database, "select queue_id, attempts from noetl.lease_jobs('w', 1000) where node_name = $1", step
    )
    ((queue_id, attempt),) = leased
    if error is None:
        await execute(database, "select noetl.complete_job($1, 'w', $2, $3)", queue_id, attempt, result)
    else:
        await execute(database, "select noetl.fail_job($1, 'w', $2, $3)", queue_id, attempt, {"message": error})
    await execute(database, "update noetl.queue set status = 'queued', attempts = 0 where status = 'leased'")
    await drain(database)


async def differences(database: Database, execution_id: int) -> list[str]:
    """Give the differences that a replay of the execution finds."""
    async with session(database) as connection:
        found = await load_history(connection, execution_id, RULES)
    return sentences(replay_history(found)[1])


async def retry_execution(database: Database, execution_id: int) -> int:
    """Retry an execution like the command; gives the new one."""
    connection = await connect(database, name="test")
    try:
        return int((await recover_failed(connection, execution_id, RULES))["recovered_as"])
    finally:
        await connection.close()


async def fork(database: Database, execution_id: int, step: str, **values: JSON) -> int:
    """Fork an execution like the command; gives the new one."""
    connection = await connect(database, name="test")
    try:
        history = await load_history(connection, execution_id, RULES)
        return await recovery.fork_execution(connection, execution_id, plan_fork(history, step, values=values))
    finally:
        await connection.close()


async def inputs(database: Database, execution_id: int) -> dict[str, Any]:
    """Give the inputs of the jobs of an execution, by step."""
    found = await rows(
        database, "select node_name, action::jsonb -> 'args' from noetl.queue where execution_id = $1", execution_id
    )
    return dict(found)


@pytest.fixture
async def failed(database: Database) -> int:
    """Run an execution until its step c fails; a and b have large results. Gives its id."""
    await register(database, DIAMOND)
    [execution_id] = await start(database, payload={"n": 5})
    await drain(database)
    await answer(database, "a", {"ok": True, "v": 1, "big": "x" * 20_000})
    await answer(database, "b", {"v": 2})
    await answer(database, "c", error="boom")
    assert await value(database, "select status from noetl.execution") == "FAILED"
    return execution_id


async def test_a_retry_begins_at_the_failed_step(database: Database, failed: int) -> None:
    """A new execution with the same results and workload; the old one stays unchanged."""
    before = await rows(database, "select * from noetl.event where execution_id = $1 order by event_id", failed)
    new = await retry_execution(database, failed)
    await drain(database)
    assert await inputs(database, new) == {"c": {"v": 1, "handed": 1}}
    await answer(database, "c", {"v": 3})
    assert (await inputs(database, new))["j"] == {"a": 20_000, "b": 2, "c": 3}
    await answer(database, "j", 4)
    ids = await value(database, "select workload ->> 'id' from noetl.execution where execution_id = $1", failed)
    query = "select execution_id, status, forked_from, result from noetl.execution order by execution_id"
    assert await rows(database, query) == [
        (failed, "FAILED", None, None),
        (new, "COMPLETED", failed, {"id": ids, "j": 4}),
    ]
    assert before == await rows(database, "select * from noetl.event where execution_id = $1 order by event_id", failed)
    assert await broken_invariants(database) == {}
    assert await differences(database, new) == []


async def test_a_restart_makes_its_workload_again(database: Database, failed: int) -> None:
    """It begins with the payload, so defaults of the playbook are evaluated again."""
    connection = await connect(database, name="test")
    try:
        plan = plan_restart(await load_history(connection, failed, RULES))
        new = await recovery.start_recovery(connection, failed, plan)
    finally:
        await connection.close()
    await drain(database)
    old, made = [row[0] for row in await rows(database, "select workload from noetl.execution order by execution_id")]
    assert (made["n"], made["id"] == old["id"], await inputs(database, new)) == (5, False, {"a": None, "b": None})
    assert await differences(database, new) == []


async def test_copied_results_are_events_of_the_new_execution(database: Database, failed: int) -> None:
    """Each names its origin; the tracking rows show that the steps are done."""
    new = await retry_execution(database, failed)
    await drain(database)
    taken = await rows(
        database,
        """select t.node_id, t.status, t.result = s.result, (t.meta #>> '{taken_from,execution_id}')::bigint
        from noetl.event t
        join noetl.event s on s.event_id = (t.meta #>> '{taken_from,event_id}')::bigint
        where t.execution_id = $1 and t.event_type = 'step_result' order by t.created_at""",
        new,
    )
    assert taken == [(f"{new}:a", "COMPLETED", True, failed), (f"{new}:b", "COMPLETED", True, failed)]
    steps = (
        "select step_name, status, visits, result_visit from noetl.workflow where execution_id = $1 order by ordinal"
    )
    assert await rows(database, steps, new) == [
        ("start", "COMPLETED", 1, None),
        ("a", "COMPLETED", 1, 1),
        ("r", "COMPLETED", 1, None),
        ("c", "RUNNING", 1, None),
        ("b", "COMPLETED", 1, 1),
        ("j", "PENDING", 0, None),
        ("end", "PENDING", 0, None),
    ]
    assert await differences(database, new) == []


async def test_a_fork_knows_that_no_item_failed(database: Database) -> None:
    """It has no rows of items, so the event of the result says so."""
    each = "{step: each, type: iterator, collection: [1], element: n, distribute: true, task: {type: http}, next: b}"
    await register(database, f"workflow: [{{step: start, next: each}}, {each}, {{step: b, type: python, code: x}}]")
    [source] = await start(database)
    for _ in range(2):
        await drain(database)
        await complete_jobs(database)
    await drain(database)
    forked = await fork(database, source, "b")
    taken = "select context from noetl.event where execution_id = $1 and event_type = 'step_result'"
    assert await rows(database, taken, forked) == [({"failed": []},)]


async def test_a_fork_that_is_read_in_parts_has_its_copied_results(database: Database, failed: int) -> None:
    """As a long history is read."""
    new = await retry_execution(database, failed)
    await drain(database)
    await answer(database, "c", {"v": 3})
    connection = await connect(database, name="test")
    try:
        size = HistorySize(new, MOST_TURNS + 1, 0)
        parts = [part async for some in read(connection, [size], Versions(RULES)) for part in some]
    finally:
        await connection.close()
    replay = Replay(parts[0].history, in_parts=True)
    for part in parts:
        replay.add_jobs(part.jobs or {})
        for turn in part.turns:
            assert replay.apply(turn).differences == ()
    assert replay.finish() == []


async def test_a_repeated_retry_gives_one_execution(database: Database, failed: int) -> None:
    """Also for many callers at once."""
    given = await asyncio.gather(*(retry_execution(database, failed) for _ in range(6)))
    assert len(set(given)) == 1
    assert await value(database, "select count(*) from noetl.execution") == 2
    await drain(database)
    assert await value(database, "select count(*) from noetl.queue where execution_id = $1", given[0]) == 1


async def test_a_failed_retry_can_be_retried(database: Database, failed: int) -> None:
    """It passes on the results that it had copied."""
    second = await retry_execution(database, failed)
    await drain(database)
    await answer(database, "c", error="boom again")
    third = await retry_execution(database, second)
    await drain(database)
    await answer(database, "c", {"v": 3})
    assert (await inputs(database, third))["j"] == {"a": 20_000, "b": 2, "c": 3}
    assert await differences(database, second) == []
    assert await differences(database, third) == []


async def test_a_fork_whose_transaction_is_rolled_back_leaves_nothing(database: Database, failed: int) -> None:
    """Its key is free again."""
    connection = await connect(database, name="test")
    history = await load_history(connection, failed, RULES)
    counts = (
        "select (select count(*) from noetl.event), (select count(*) from noetl.workflow), count(*) from noetl.inbox"
    )
    before = await rows(database, counts)
    transaction = connection.transaction()
    await transaction.start()
    lost = await recovery.fork_execution(connection, failed, plan_fork(history, "c"), key="k")
    connection.terminate()
    other = await connect(database, name="test")
    new = await recovery.fork_execution(other, failed, plan_fork(history, "c"), key="k")
    again = await recovery.fork_execution(other, failed, plan_fork(history, "c"), key="k")
    await other.close()
    assert new == again != lost
    after = await rows(database, counts)
    assert [one - other for one, other in zip(after[0], before[0], strict=True)] == [2, 1, 1]


async def test_a_fork_and_a_cancel_in_one_batch_are_decided_in_order(database: Database, failed: int) -> None:
    """Both turns know the results before anything is written."""
    new = await fork(database, failed, "c")
    await execute(database, "select noetl.cancel_execution($1)", new)
    await drain(database)
    assert await value(database, "select status from noetl.execution where execution_id = $1", new) == "CANCELLED"
    assert await differences(database, new) == []


async def test_a_result_given_by_hand_is_one_of_the_new_execution(database: Database, failed: int) -> None:
    """It is marked as given; the step gets what the transition makes of it."""
    new = await fork(database, failed, "c", a={"v": 9, "big": "y"})
    await drain(database)
    assert await inputs(database, new) == {"c": {"v": 9, "handed": 9}}
    query = "select result, meta from noetl.event where execution_id = $1 and event_type = 'step_result'"
    assert (await rows(database, query, new))[0] == ({"v": 9, "big": "y"}, {"set": True})
    assert await differences(database, new) == []


async def test_a_retried_parent_starts_a_new_child(database: Database) -> None:
    """The failed child stays; the new parent waits for a new child. A retried child alone has no parent."""
    await register(database, "workflow:\n- {step: start, next: k}\n- {step: k, type: python, code: x}", path="child")
    await register(
        database,
        "workflow:\n- {step: start, next: p}\n- {step: p, type: playbook, path: child, next: end}\n- {step: end}",
    )
    [parent] = await start(database)
    await drain(database)
    await answer(database, "k", error="boom")
    child = await value(database, "select execution_id from noetl.execution where path = 'child'")
    new = await retry_execution(database, parent)
    alone = await retry_execution(database, child)
    await drain(database)
    family = """
        select parent_execution_id, forked_from from noetl.execution
        where status = 'RUNNING' and path = 'child' order by 1"""
    assert await rows(database, family) == [(new, None), (None, child)]
    while await value(database, "select count(*) from noetl.queue where status = 'queued'"):
        await execute(database, "select noetl.complete_job(queue_id, 'w', attempts, '7') from noetl.lease_jobs('w', 9)")
        await drain(database)
    query = "select status, result from noetl.execution where execution_id = any($1)"
    assert await rows(database, query, [new, alone]) == [("COMPLETED", 7), ("COMPLETED", 7)]
    assert await broken_invariants(database) == {}


async def test_an_execution_without_a_playbook_is_retried_after_its_registration(database: Database) -> None:
    """It failed at its start; the payload is the original one."""
    await execute(
        database,
        "insert into noetl.event (execution_id, event_type, context) values (5, 'execution_start', $1)",
        {"path": "story", "workload": {"n": 3}},
    )
    await drain(database)
    assert await value(database, "select status from noetl.execution") == "FAILED"
    with pytest.raises(asyncpg.PostgresError, match="the catalog has no playbook for a fork of 5"):
        await retry_execution(database, 5)
    await register(database, DIAMOND)
    new = await retry_execution(database, 5)
    await drain(database)
    assert await value(database, "select workload -> 'n' from noetl.execution where execution_id = $1", new) == 3
    assert await differences(database, new) == []


async def test_a_completed_execution_cannot_be_retried(database: Database) -> None:
    """It did not fail, so the call is refused."""
    await register(database, "workflow:\n- {step: start, next: end}\n- {step: end}")
    [execution_id] = await start(database)
    await drain(database)
    with pytest.raises(BrokerError, match="has not failed"):
        await retry_execution(database, execution_id)


@pytest.mark.parametrize("plan", ["null", "[]", "{}", '{"results": 1}'])
async def test_an_invalid_fork_plan_is_refused(database: Database, failed: int, plan: str) -> None:
    """NB400."""
    with pytest.raises(asyncpg.PostgresError, match="must be an object with a list of results") as caught:
        await execute(database, f"select noetl.fork_execution({failed}, '{plan}')")
    assert caught.value.sqlstate == "NB400"


async def test_a_fork_of_a_missing_execution_is_refused(database: Database) -> None:
    """NB404: no execution, no catalog row."""
    await register(database, DIAMOND)
    [execution_id] = await start(database)
    for arguments, complaint in (
        ("5, $1", "no execution 5"),
        (f"{execution_id}, $1, 404", "the catalog has no playbook"),
    ):
        with pytest.raises(asyncpg.PostgresError, match=complaint) as caught:
            await execute(database, f"select noetl.fork_execution({arguments})", {"results": []})
        assert caught.value.sqlstate == "NB404"

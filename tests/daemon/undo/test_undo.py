"""Executions that undo what they did, with the tables and the functions of workers."""

from __future__ import annotations

import asyncpg
import pytest

from noetl_broker.history.replay import replay_history, sentences
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.service.recoveries import ForkFrom, fork_execution
from noetl_broker.store.admin.history import load_history
from tests.brokers import broken_invariants, drain, execute, register, rows, start, value
from tests.postgres import Database
from tests.sessions import session
from tests.undos import EVENTS, ORDER, STANDS, STATUS, UNDO, UNDOS, complete, fail, lease, work


async def begin_undo(database: Database) -> int:
    """Start an order, complete it, and begin to undo it on request: the job of `charge!undo` is queued."""
    await register(database, ORDER)
    [execution] = await start(database)
    await work(database)
    await value(database, UNDO, execution)
    await drain(database)
    return execution


async def test_a_failed_execution_undoes_the_last_success_first(database: Database) -> None:
    """Then it fails. The undo sees the result of the visit and why the execution failed."""
    await register(database, ORDER)
    [execution] = await start(database)
    assert await work(database, failing=("ship",)) == ["reserve", "charge", "ship", "charge!undo", "reserve!undo"]
    assert await value(database, STATUS, execution) == "FAILED"
    assert await rows(database, UNDOS, execution) == [("reserve", "done"), ("charge", "done")]
    assert await rows(database, EVENTS, execution) == [
        ("compensation_started", "charge"),
        ("compensation_completed", "charge"),
        ("compensation_started", "reserve"),
        ("compensation_completed", "reserve"),
    ]
    inputs = await rows(
        database, "select node_id, action::jsonb -> 'args' from noetl.queue where node_id like '%!undo'"
    )
    assert sorted(inputs) == [
        (f"{execution}:charge#1!undo", {"id": "charge"}),
        (f"{execution}:reserve#1!undo", {"id": "reserve", "why": "no"}),
    ]
    assert await broken_invariants(database) == {}


async def test_a_cancelled_execution_undoes_and_is_cancelled(database: Database) -> None:
    """The job that no worker has is cancelled."""
    await register(database, ORDER)
    [execution] = await start(database)
    await drain(database)
    await complete(database, (await lease(database))["reserve"], {"id": 1})
    await drain(database)
    assert await value(database, "select noetl.cancel_execution($1)", execution)
    assert await work(database) == ["reserve!undo"]
    assert await value(database, STATUS, execution) == "CANCELLED"
    assert await rows(database, UNDOS, execution) == [("reserve", "done")]
    assert await rows(database, "select status from noetl.queue where node_name = 'charge'") == [("cancelled",)]
    assert await broken_invariants(database) == {}


async def test_a_late_success_of_a_leased_job_is_undone(database: Database) -> None:
    """Its worker is not told to stop, and the execution awaits it."""
    await register(database, ORDER)
    [execution] = await start(database)
    await drain(database)
    await complete(database, (await lease(database))["reserve"], {"id": 1})
    await drain(database)
    charge = (await lease(database))["charge"]
    await value(database, "select noetl.cancel_execution($1)", execution)
    await drain(database)
    assert await value(database, STATUS, execution) == "COMPENSATING"
    assert await value(database, "select noetl.heartbeat_job($1, 'w', $2)", *charge)
    assert await lease(database) == {}
    assert await complete(database, charge, {"id": 2})
    assert await work(database) == ["charge!undo", "reserve!undo"]
    assert await value(database, STATUS, execution) == "CANCELLED"
    assert await value(database, "select outcome from noetl.turn order by turn desc offset 2 limit 1") == "late"
    assert await broken_invariants(database) == {}


async def test_a_lost_lease_is_final_while_it_is_draining(database: Database) -> None:
    """No other worker gets the job, and its outcome is unknown."""
    await register(database, ORDER)
    [execution] = await start(database)
    await drain(database)
    await complete(database, (await lease(database))["reserve"], {"id": 1})
    await drain(database)
    await lease(database, seconds=1)
    await value(database, "select noetl.cancel_execution($1)", execution)
    await drain(database)
    await execute(database, "update noetl.queue set lease_until = clock_timestamp() where status = 'leased'")
    await execute(database, "select noetl.reap(100, 5)")
    assert await work(database) == ["reserve!undo"]
    assert await value(database, STATUS, execution) == "CANCELLED"
    assert await rows(database, UNDOS, execution) == [("reserve", "done"), ("charge", "unknown")]
    assert await broken_invariants(database) == {}


async def test_an_undo_that_lost_its_lease_is_queued_again(database: Database) -> None:
    """As any other job: it is not an attempt of the undo."""
    await register(database, ORDER)
    [execution] = await start(database)
    await drain(database)
    await complete(database, (await lease(database))["reserve"], {"id": 1})
    await value(database, "select noetl.cancel_execution($1)", execution)
    await drain(database)
    assert [*await lease(database)] == ["reserve!undo"]
    assert await broken_invariants(database, ignore=["every execution ended"]) == {}
    await execute(database, "update noetl.queue set lease_until = clock_timestamp() where status = 'leased'")
    await execute(database, "select noetl.reap(100, 5)")
    assert await work(database) == ["reserve!undo"]
    assert await rows(database, UNDOS, execution) == [("reserve", "done")]
    assert await broken_invariants(database) == {}


async def test_a_failed_undo_is_gone_on_with(database: Database) -> None:
    """In place: its status and error stay. The templates see what they saw before; the job is used again."""
    await register(database, ORDER)
    [execution] = await start(database)
    await work(database, failing=("ship", "charge!undo"))
    before = "select status, result, error, ended_at from noetl.execution"
    [ended] = await rows(database, before)
    assert await rows(database, STANDS, execution) == [("FAILED", "left")]
    assert await rows(database, UNDOS, execution) == [("reserve", "open"), ("charge", "failed")]
    assert await value(database, UNDO, execution)
    assert await work(database) == ["charge!undo", "reserve!undo"]
    assert await rows(database, before) == [ended]
    assert await rows(database, STANDS, execution) == [("FAILED", "undone")]
    assert await rows(database, UNDOS, execution) == [("reserve", "done"), ("charge", "done")]
    jobs = "select node_name, action::jsonb -> 'args', attempts, status from noetl.queue where node_id like '%!undo'"
    assert sorted(await rows(database, jobs)) == [
        ("charge!undo", {"id": "charge"}, 2, "done"),
        ("reserve!undo", {"id": "reserve", "why": "no"}, 1, "done"),
    ]
    ends = "select event_type, status from noetl.event where event_type like 'execution_undo%' order by created_at"
    assert await rows(database, ends) == [("execution_undo", "PENDING"), ("execution_undone", "FAILED")]
    assert not await value(database, UNDO, execution)
    assert await broken_invariants(database) == {}


async def test_two_operators_undo_once(database: Database) -> None:
    """The same request again is a duplicate, before and after the broker has read the first; another one is refused."""
    await register(database, ORDER)
    [execution] = await start(database)
    await work(database)
    assert await value(database, UNDO, execution)
    assert await value(database, UNDO, execution)
    with pytest.raises(asyncpg.PostgresError, match="is being undone with other options"):
        await value(database, "select noetl.undo_execution($1, true)", execution)
    await drain(database)
    assert await value(database, UNDO, execution)
    assert await work(database) == ["charge!undo", "reserve!undo"]
    outcomes = """
        select t.outcome from noetl.turn t join noetl.event e using (execution_id, event_id)
        where e.event_type = 'execution_undo' order by t.turn"""
    assert await rows(database, outcomes) == [("decided",), ("duplicate",), ("duplicate",)]
    assert await broken_invariants(database) == {}


async def test_an_undo_after_an_abandoned_one_waits_for_its_lease(database: Database) -> None:
    """The first worker is told to stop; when it fails, the job is queued again, and that is no failed attempt."""
    execution = await begin_undo(database)
    first = (await lease(database))["charge!undo"]
    assert await value(database, "select noetl.abandon_execution($1)", execution)
    await drain(database)
    assert await rows(database, STANDS, execution) == [("COMPLETED", "left")]
    assert await value(database, "select noetl.undo_execution($1, true)", execution)
    await drain(database)
    assert await lease(database) == {}
    assert not await value(database, "select noetl.heartbeat_job($1, 'w', $2)", *first)
    assert await fail(database, first)
    assert await work(database) == ["charge!undo", "reserve!undo"]
    assert await rows(database, STANDS, execution) == [("COMPLETED", "undone")]
    assert await broken_invariants(database) == {}


@pytest.mark.parametrize("again", [True, False])
async def test_a_late_success_of_an_abandoned_undo_counts(database: Database, *, again: bool) -> None:
    """Whether a further undo waits for it or not: nothing is undone twice."""
    execution = await begin_undo(database)
    first = (await lease(database))["charge!undo"]
    await value(database, "select noetl.abandon_execution($1)", execution)
    await drain(database)
    if again:
        await value(database, "select noetl.undo_execution($1, true)", execution)
        await drain(database)
    assert await complete(database, first)
    await drain(database)
    assert await value(database, "select status from noetl.undo where step = 'charge'") == "done"
    if not again:
        assert await value(database, UNDO, execution)
    assert await work(database) == ["reserve!undo"]
    assert await rows(database, STANDS, execution) == [("COMPLETED", "undone")]
    assert await broken_invariants(database) == {}


async def test_a_lost_lease_of_an_abandoned_undo_is_queued_again(database: Database) -> None:
    """A further undo has waited for it."""
    execution = await begin_undo(database)
    await lease(database, seconds=1)
    await value(database, "select noetl.abandon_execution($1)", execution)
    await drain(database)
    await value(database, "select noetl.undo_execution($1, true)", execution)
    await drain(database)
    await execute(database, "update noetl.queue set lease_until = clock_timestamp() where status = 'leased'")
    await execute(database, "select noetl.reap(100, 5)")
    assert await work(database) == ["charge!undo", "reserve!undo"]
    assert await broken_invariants(database) == {}


async def test_a_lease_that_outlives_two_abandoned_undos_queues_nothing(database: Database) -> None:
    """The second undo waited for it. After its end nobody does."""
    execution = await begin_undo(database)
    first = (await lease(database))["charge!undo"]
    for _ in range(2):
        await value(database, "select noetl.abandon_execution($1)", execution)
        await drain(database)
        await value(database, "select noetl.undo_execution($1, true)", execution)
        await drain(database)
    await value(database, "select noetl.abandon_execution($1)", execution)
    await drain(database)
    assert await fail(database, first)
    assert await value(database, "select status from noetl.queue where queue_id = $1", first[0]) == "cancelled"
    await drain(database)
    assert await broken_invariants(database) == {}


async def test_an_undo_after_an_abandoned_one_keeps_a_job_that_was_locked(database: Database) -> None:
    """The reaper was to cancel it for the first undo."""
    execution = await begin_undo(database)
    async with session(database) as other, other.transaction():
        await other.fetch("select from noetl.queue where status = 'queued' for update")
        await value(database, "select noetl.abandon_execution($1)", execution)
        await drain(database)
    await value(database, "select noetl.undo_execution($1, true)", execution)
    await drain(database)
    await execute(database, "select noetl.reap(100, 5)")
    assert await work(database) == ["charge!undo", "reserve!undo"]
    assert await broken_invariants(database) == {}


async def test_what_was_undone_by_hand_is_settled(database: Database) -> None:
    """With a reason; then nothing is left."""
    await register(database, ORDER)
    [execution] = await start(database)
    await work(database, failing=("ship", "charge!undo"))
    settle = "select noetl.settle_undo($1, $2, $3)"
    with pytest.raises(asyncpg.PostgresError, match="needs a step and a reason"):
        await value(database, settle, execution, "charge", " ")
    with pytest.raises(asyncpg.PostgresError, match="nothing of step ship of execution"):
        await value(database, settle, execution, "ship", "by the bank")
    assert await value(database, settle, execution, "charge", "by the bank") == 1
    assert await value(database, UNDO, execution)
    assert await work(database) == ["reserve!undo"]
    assert await rows(database, UNDOS, execution) == [("reserve", "done"), ("charge", "settled")]
    assert await rows(database, STANDS, execution) == [("FAILED", "undone")]
    assert await broken_invariants(database) == {}


async def test_an_undo_is_refused_beside_a_fork_that_runs(database: Database) -> None:
    """It has results of the execution; and no fork begins beside an undo."""
    await register(database, ORDER)
    [execution] = await start(database)
    await work(database)
    async with session(database) as connection:
        start_at = ForkFrom("charge", {})
        fork = (await fork_execution(connection, execution, start_at, PlaybookRules())).execution_id
        with pytest.raises(asyncpg.PostgresError, match=f"execution {fork} is a fork or a retry of") as found:
            await value(database, UNDO, execution)
        assert found.value.hint == f"noetl-broker cancel {fork} ends it, and undoes what it did"
        await drain(database)
        await complete(database, (await lease(database))["charge"], {"id": 1})
        await drain(database)
        await value(database, "select noetl.cancel_execution($1)", fork)
        await drain(database)
        with pytest.raises(asyncpg.PostgresError, match=f"execution {fork} is a fork or a retry of") as found:
            await value(database, UNDO, execution)
        assert str(found.value.hint).endswith(f"noetl-broker abandon {fork} ends it")
        await work(database)
        assert await value(database, UNDO, execution)
        with pytest.raises(asyncpg.PostgresError, match="is undoing what it did"):
            await fork_execution(connection, execution, start_at, PlaybookRules())
    assert await work(database) == ["charge!undo", "reserve!undo"]
    assert await broken_invariants(database) == {}


async def test_an_archived_execution_is_not_undone(database: Database) -> None:
    """Its history is elsewhere; what is left to undo is not archived."""
    await register(database, ORDER)
    [execution] = await start(database)
    await work(database)
    await execute(database, "insert into noetl.archived (execution_id) values ($1)", execution)
    with pytest.raises(asyncpg.PostgresError, match="is archived"):
        await value(database, UNDO, execution)


WITH_OUTPUT = """
workflow:
  - {step: start, next: charge}
  - step: charge
    type: python
    code: "def main(): ..."
    output: "{{ {'charged': result.id} }}"
    compensate: {type: python, code: "def main(id): ...", args: {why: "{{ result.charged }}"}}
    next: [{when: "{{ 1 / 0 }}", step: end}]
  - {step: end}
"""
WHY = "select action::jsonb #>> '{args,why}' from noetl.queue where execution_id = $1 and node_name like '%!undo'"


async def test_each_attempt_at_an_undo_is_told_the_same_error(database: Database) -> None:
    """A bank may refuse the same refund with another reason."""
    await register(database, ORDER.replace("error.message", "error.type ~ ': ' ~ error.message"))
    [first] = await start(database)
    await drain(database)
    await complete(database, (await lease(database))["reserve"], {"id": 1})
    await drain(database)
    await value(database, "select noetl.cancel_execution($1, 'out of stock')", first)
    await work(database, failing=("reserve!undo",))
    for failing in (("reserve!undo",), ()):
        assert await value(database, WHY, first) == "cancelled: out of stock"
        await value(database, UNDO, first)
        await work(database, failing=failing)
    assert await value(database, WHY, first) == "cancelled: out of stock"
    assert await broken_invariants(database) == {}


async def test_each_attempt_at_an_undo_sees_the_output(database: Database) -> None:
    """Also of a visit whose `next` failed."""
    await register(database, WITH_OUTPUT)
    [first] = await start(database)
    await work(database, failing=("charge!undo",))
    assert await value(database, WHY, first) == "charge"
    await value(database, UNDO, first)
    assert await work(database) == ["charge!undo"]
    assert await value(database, WHY, first) == "charge"
    assert await broken_invariants(database) == {}


async def test_what_completed_is_undone_on_request(database: Database) -> None:
    """It has no error, so its undos are told of the request."""
    await register(database, ORDER)
    [execution] = await start(database)
    await work(database)
    assert await value(database, UNDO, execution)
    assert await work(database) == ["charge!undo", "reserve!undo"]
    why = [one for [one] in await rows(database, WHY, execution) if one is not None]
    assert why == ["it is undone after it completed"]
    assert await rows(database, STANDS, execution) == [("COMPLETED", "undone")]
    assert await broken_invariants(database) == {}


async def test_what_may_have_happened_is_undone_on_request(database: Database) -> None:
    """A plain undo leaves it out."""
    await register(database, ORDER.replace("result.id", "result.id | default(0)"))
    [execution] = await start(database)
    await drain(database)
    await complete(database, (await lease(database))["reserve"], {"id": 1})
    await drain(database)
    await lease(database, seconds=1)
    await value(database, "select noetl.cancel_execution($1)", execution)
    await drain(database)
    await execute(database, "update noetl.queue set lease_until = clock_timestamp() where status = 'leased'")
    await execute(database, "select noetl.reap(100, 5)")
    await work(database)
    assert not await value(database, UNDO, execution)
    assert await value(database, "select noetl.undo_execution($1, true)", execution)
    assert await work(database) == ["charge!undo"]
    assert await rows(database, STANDS, execution) == [("CANCELLED", "undone")]
    assert await rows(database, UNDOS, execution) == [("reserve", "done"), ("charge", "done")]
    assert await broken_invariants(database) == {}


async def test_an_abandoned_undo_ends_and_its_worker_is_told_to_stop(database: Database) -> None:
    """What runs is of unknown outcome; what was not tried is left."""
    await register(database, ORDER)
    [execution] = await start(database)
    for name in ("reserve", "charge"):
        await drain(database)
        await complete(database, (await lease(database))[name], {"id": 1})
    await drain(database)
    assert await value(database, "select noetl.cancel_execution($1)", execution)
    await drain(database)
    undo = (await lease(database))["charge!undo"]
    assert await value(database, "select noetl.abandon_execution($1, 'by hand')", execution)
    await drain(database)
    assert not await value(database, "select noetl.heartbeat_job($1, 'w', $2)", *undo)
    assert await rows(database, "select status, error ->> 'message' from noetl.execution") == [
        ("FAILED", "the undo was abandoned: by hand")
    ]
    assert await rows(database, UNDOS, execution) == [("reserve", "open"), ("charge", "unknown")]
    assert not await value(database, "select noetl.abandon_execution($1)", execution)
    assert await broken_invariants(database) == {}


async def test_an_execution_that_undoes_is_neither_paused_nor_cancelled(database: Database) -> None:
    """Pause and resume are refused with the remedy; a cancel is false."""
    await register(database, ORDER)
    [execution] = await start(database)
    await drain(database)
    await complete(database, (await lease(database))["reserve"], {"id": 1})
    await drain(database)
    with pytest.raises(asyncpg.PostgresError, match="only an undo can be abandoned"):
        await value(database, "select noetl.abandon_execution($1)", execution)
    await value(database, "select noetl.cancel_execution($1)", execution)
    await drain(database)
    assert not await value(database, "select noetl.cancel_execution($1)", execution)
    for call in ("pause_execution", "resume_execution"):
        with pytest.raises(asyncpg.PostgresError, match="neither paused nor resumed") as fault:
            await value(database, f"select noetl.{call}($1)", execution)
        assert f"noetl-broker abandon {execution} ends it" in str(fault.value.hint)
    with pytest.raises(asyncpg.PostgresError, match="is undoing what it did"):
        await value(database, "select noetl.undo_execution($1)", execution)
    await work(database)
    assert await broken_invariants(database) == {}


async def test_an_undo_runs_on_the_version_that_is_asked_for(database: Database) -> None:
    """A version that is not registered is refused."""
    for version in (1, 2, 3):
        await register(database, ORDER, version=version)
    [execution] = await start(database)
    await work(database, failing=("ship", "charge!undo"))
    with pytest.raises(asyncpg.PostgresError, match="no playbook story version 9 is registered"):
        await value(database, "select noetl.undo_execution($1, false, 9)", execution)
    assert await value(database, "select noetl.undo_execution($1, false, 2)", execution)
    assert await work(database) == ["charge!undo", "reserve!undo"]
    ended = "select status, version, undo_status from noetl.execution where execution_id = $1"
    assert await rows(database, ended, execution) == [("FAILED", 3, "undone")]
    assert await value(database, "select context ->> 'version' from noetl.queue where node_name = 'charge!undo'") == "2"
    assert await replayed(database, execution) == []


async def replayed(database: Database, execution: int) -> list[str]:
    """Return how a replay of an execution differs from its record."""
    async with session(database) as connection:
        history = await load_history(connection, execution, PlaybookRules())
    _, differences = replay_history(history)
    return sentences(differences)

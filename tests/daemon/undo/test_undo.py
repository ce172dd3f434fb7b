"""Executions that undo what they did, with the tables and the functions of workers."""

from __future__ import annotations

import asyncpg
import pytest

from tests.brokers import broken_invariants, drain, execute, register, rows, start, value
from tests.postgres import Database
from tests.undos import EVENTS, ORDER, STATUS, UNDOS, complete, lease, work


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


async def test_a_failed_undo_is_gone_on_with_in_a_new_execution(database: Database) -> None:
    """It takes over what is left, in the same order; its templates see what those of the first one would see."""
    await register(database, ORDER)
    [execution] = await start(database)
    await work(database, failing=("ship", "charge!undo"))
    assert await value(database, STATUS, execution) == "FAILED"
    assert await rows(database, UNDOS, execution) == [("reserve", "open"), ("charge", "failed")]
    new = await value(database, "select noetl.undo_execution($1)", execution)
    assert await rows(database, UNDOS, execution) == [("reserve", "taken"), ("charge", "taken")]
    with pytest.raises(asyncpg.PostgresError, match=f"is being undone by {new}"):
        await value(database, "select noetl.undo_execution($1)", execution)
    assert await work(database) == ["charge!undo", "reserve!undo"]
    assert await rows(database, "select status, result from noetl.execution where execution_id = $1", new) == [
        ("COMPLETED", {"done": 2, "unknown": 0})
    ]
    assert await rows(database, UNDOS, new) == [("reserve", "done"), ("charge", "done")]
    args = "select action::jsonb -> 'args' from noetl.queue where execution_id = $1 order by node_id"
    assert await rows(database, args, new) == [({"id": "charge"},), ({"id": "reserve", "why": "no"},)]
    with pytest.raises(asyncpg.PostgresError, match=r"nothing of execution \d+ is left to undo"):
        await value(database, "select noetl.undo_execution($1)", execution)
    assert await broken_invariants(database) == {}


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
    second = await value(database, "select noetl.undo_execution($1)", first)
    await work(database, failing=("reserve!undo",))
    third = await value(database, "select noetl.undo_execution($1)", second)
    await work(database)
    assert [await value(database, WHY, one) for one in (first, second, third)] == ["cancelled: out of stock"] * 3
    assert await broken_invariants(database) == {}


async def test_each_attempt_at_an_undo_sees_the_output(database: Database) -> None:
    """Also of a visit whose `next` failed."""
    await register(database, WITH_OUTPUT)
    [first] = await start(database)
    await work(database, failing=("charge!undo",))
    second = await value(database, "select noetl.undo_execution($1)", first)
    assert await work(database) == ["charge!undo"]
    assert [await value(database, WHY, one) for one in (first, second)] == ["charge"] * 2
    assert await broken_invariants(database) == {}


async def test_what_completed_is_undone_on_request(database: Database) -> None:
    """It has no error, so its undos are told of the request."""
    await register(database, ORDER)
    [execution] = await start(database)
    await work(database)
    new = await value(database, "select noetl.undo_execution($1)", execution)
    assert await work(database) == ["charge!undo", "reserve!undo"]
    why = [one for [one] in await rows(database, WHY, new) if one is not None]
    assert why == ["it is undone after it completed"]
    assert await value(database, STATUS, execution) == "COMPLETED"
    assert await broken_invariants(database) == {}


async def test_an_undo_goes_on_after_any_number_of_failures(database: Database) -> None:
    """Each takes over what the one before has left, whichever of them is named."""
    await register(database, ORDER)
    [execution] = await start(database)
    await work(database, failing=("ship", "charge!undo"))
    second = await value(database, "select noetl.undo_execution($1)", execution)
    assert await work(database, failing=("reserve!undo",)) == ["charge!undo", "reserve!undo"]
    assert await value(database, STATUS, second) == "FAILED"
    third = await value(database, "select noetl.undo_execution($1)", execution)
    assert await work(database) == ["reserve!undo"]
    assert await value(database, STATUS, third) == "COMPLETED"
    assert await rows(database, UNDOS, second) == [("reserve", "taken"), ("charge", "done")]
    assert await broken_invariants(database) == {}


async def test_what_may_have_happened_is_undone_on_request(database: Database) -> None:
    """A plain undo refuses it, and names the option."""
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
    with pytest.raises(asyncpg.PostgresError, match="is left to undo but 1 of unknown outcome"):
        await value(database, "select noetl.undo_execution($1)", execution)
    new = await value(database, "select noetl.undo_execution($1, true)", execution)
    assert await work(database) == ["charge!undo"]
    assert await rows(database, "select status, result from noetl.execution where execution_id = $1", new) == [
        ("COMPLETED", {"done": 1, "unknown": 0})
    ]
    assert await rows(database, UNDOS, execution) == [("reserve", "done"), ("charge", "taken")]
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
    assert await complete(database, undo)
    await drain(database)
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
    new = await value(database, "select noetl.undo_execution($1, false, 2)", execution)
    assert await work(database) == ["charge!undo", "reserve!undo"]
    ended = "select status, version from noetl.execution where execution_id = $1"
    assert await rows(database, ended, new) == [("COMPLETED", 2)]

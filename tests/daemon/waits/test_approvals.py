"""Approvals are decided once: by a person, or by their timeout."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from tests.brokers import broken_invariants, drain, execute, register, rows, start, value
from tests.postgres import Database
from tests.sessions import blocked, refused, session

ORDER = """
workload: {order_id: 7, timeout: 1d}
workflow:
- {step: start, next: approve}
- step: approve
  type: approval
  title: "Order {{ order_id }}"
  details: {order_id: "{{ order_id }}"}
  form: {discount: {type: number, maximum: 30, default: 0}, reason: {enum: [gift, error], required: true}}
  approvers: [finance]
  timeout: "{{ workload.timeout }}"
  next: end
- {step: end, result: "{{ approve }}"}
"""
ENDLESS = """
workflow:
- {step: start, next: approve}
- {step: approve, type: approval, next: end}
- {step: end, result: "{{ approve }}"}
"""
TWO = "workflow: [{step: start, next: [a, b]}, {step: a, type: approval}, {step: b, type: approval}]"
DECIDED_BY = "select context ->> 'decided_by' from noetl.event where event_type = 'approval_decided'"
REJECT = "select noetl.decide_approval($1, $2, false, $3)"
DECIDE = "select noetl.decide_approval($1, $2, $3, $4, $5)"
FIRE = "select fired from noetl.fire_timers(100)"
DUE = "update noetl.timer set due_at = clock_timestamp() - interval '1 second'"


async def begun(database: Database, body: str = ORDER, payload: Any = None) -> tuple[int, str]:
    """Start an execution that waits for a decision; return its id and the node of its approval."""
    await register(database, body)
    [execution_id] = await start(database, payload=payload)
    await drain(database)
    return execution_id, f"{execution_id}:approve"


async def decide(
    database: Database, node: tuple[int, str], *, approved: bool = True, by: str = "ann", form: Any = None
) -> bool:
    """Decide; return whether this decision counts."""
    return bool(await value(database, DECIDE, *node, approved, by, form))


async def result(database: Database) -> tuple[str, Any]:
    """Return the status and the result of the only execution."""
    [found] = await rows(database, "select status, coalesce(result, error) from noetl.execution")
    return found


async def test_a_pending_approval_shows_what_is_asked(database: Database) -> None:
    """Title, details, form and approvers rendered; since when, and until when."""
    execution_id, node_id = await begun(database)
    [shown] = await rows(
        database,
        """
        select execution_id, node_id, step, path, title, details, form, approvers, times_out_at - since
        from noetl.pending_approvals""",
    )
    assert shown[:5] == (execution_id, node_id, "approve", "story", "Order 7")
    assert shown[5] == {"order_id": 7}
    assert shown[6] == {
        "discount": {"type": "number", "maximum": 30, "default": 0},
        "reason": {"enum": ["gift", "error"], "required": True},
    }
    assert shown[7] == ["finance"]
    assert abs(shown[8].total_seconds() - 86_400) < 5


async def test_a_decision_completes_the_step(database: Database) -> None:
    """The result has the decision and the form, with defaults; the event has a name beside the login."""
    node = await begun(database)
    assert await decide(database, node, form={"reason": "gift", "comment": "fine"})
    assert await rows(database, "select * from noetl.pending_approvals") == []
    await drain(database)
    status, data = await result(database)
    assert (status, data.pop("at")[:2]) == ("COMPLETED", "20")
    login = await value(database, "select 'login:' || session_user")
    assert data == {"approved": True, "by": login, "comment": "fine", "discount": 0, "reason": "gift"}
    assert await value(database, DECIDED_BY) == "ann"
    assert await rows(database, "select status from noetl.wait") == [("done",)]
    assert await rows(database, "select * from noetl.timer") == []
    assert await broken_invariants(database) == {}


async def test_a_second_decision_is_false(database: Database) -> None:
    """Before and after the broker has read the first one."""
    node = await begun(database)
    assert await decide(database, node, approved=False)
    assert not await decide(database, node, form={"reason": "gift"})
    await drain(database)
    assert not await decide(database, node, form={"reason": "gift"})
    assert (await result(database))[1]["approved"] is False
    assert await value(database, "select count(*) from noetl.event where event_type = 'approval_decided'") == 1


@pytest.mark.parametrize("body", [ORDER, ENDLESS])
async def test_of_many_decisions_at_once_one_counts(database: Database, body: str) -> None:
    """The others wait for it, and are false; also where no timer has a timeout."""
    node = await begun(database, body)
    async with session(database) as first, session(database) as second:
        await first.execute("begin")
        assert await first.fetchval(REJECT, *node, "ann")
        waiting = asyncio.create_task(second.fetchval(REJECT, *node, "bob"))
        await blocked(first)
        await first.execute("commit")
        assert await waiting is False
    await drain(database)
    assert await value(database, DECIDED_BY) == "ann"


async def test_two_approvals_of_an_execution_are_decided_side_by_side(database: Database) -> None:
    """A decision locks its own approval only."""
    await register(database, TWO)
    [execution_id] = await start(database)
    await drain(database)
    async with session(database) as first, session(database) as second:
        await first.execute("begin")
        assert await first.fetchval(REJECT, execution_id, f"{execution_id}:a", "ann")
        await second.execute("set lock_timeout = '5s'")
        assert await second.fetchval(REJECT, execution_id, f"{execution_id}:b", "bob")
        await first.execute("commit")


async def test_a_form_that_breaks_its_schema_is_refused(database: Database) -> None:
    """The error names each place. A rejection needs no field, but what it gives must fit."""
    node = await begun(database)
    for approved, form, faults in (
        (True, {"discount": 40}, "reason: is missing; discount: is 40, the most is 30"),
        (False, {"discount": "much"}, "discount: is 'much', it must be number"),
        (False, {"discuont": 1}, "discuont: is not allowed"),
        (False, {"comment": 1}, "comment: is 1, it must be string or null"),
    ):
        async with refused("NB400", re.escape(f"the form of {node[1]} does not fit: {faults}\n")):
            await decide(database, node, approved=approved, form=form)
    assert await value(database, "select count(*) from noetl.pending_approvals") == 1


BAD_ARGUMENTS: list[tuple[bool | None, str, Any, str]] = [
    (None, "ann", None, "decide_approval needs true or false for `approved`, not null"),
    (True, "a" * 1025, None, "decided_by has 1025 characters; the limit is 1024"),
    (True, "ann", [1], "the form is a JSON array; it must be an object"),
    (True, "ann", {"comment": "x" * 65_536}, "the form takes 65551 bytes; the limit is 65536"),
]


async def test_a_bad_argument_is_named(database: Database) -> None:
    """Before any table is read."""
    for approved, by, form, message in BAD_ARGUMENTS:
        async with refused("NB400", re.escape(message)):
            await value(database, DECIDE, 1, "1:approve", approved, by, form)


async def test_an_unknown_approval_is_named(database: Database) -> None:
    """An unknown execution, another step, a wait that is no approval."""
    execution_id, _ = await begun(database, "workflow: [{step: start, next: cool}, {step: cool, type: wait, for: 1d}]")
    for node in ((1, "1:approve"), (execution_id, f"{execution_id}:cool")):
        async with refused("NB404", f"execution {node[0]} has no approval {node[1]}"):
            await decide(database, node)


async def test_a_decision_after_the_timeout_is_false(database: Database) -> None:
    """From the moment at which the timer fires, and no approval is shown as open."""
    node = await begun(database)
    await execute(database, DUE)
    assert await value(database, "select count(*) from noetl.pending_approvals") == 1
    await rows(database, FIRE)
    assert await value(database, "select node_type from noetl.event where event_type = 'timer_due'") == "approval"
    assert await rows(database, "select * from noetl.pending_approvals") == []
    assert not await decide(database, node, approved=False)
    await drain(database)
    assert not await decide(database, node, approved=False)
    status, error = await result(database)
    assert (status, error["type"], error["message"]) == ("FAILED", "timeout", "nobody decided in time")
    assert await rows(database, "select status from noetl.wait") == [("timed_out",)]


async def test_a_decision_that_is_not_committed_does_not_hold_up_timers(database: Database) -> None:
    """The timer of its timeout stays. If the decision is rolled back, it fires later."""
    node = await begun(database)
    await execute(database, DUE)
    async with session(database) as person:
        await person.execute("begin")
        assert await person.fetchval(REJECT, *node, "ann")
        assert await rows(database, FIRE) == [(0,)]
        await person.execute("rollback")
    assert await rows(database, FIRE) == [(1,)]


async def test_a_timer_that_is_firing_wins(database: Database) -> None:
    """The decision waits for its commit, and is false."""
    node = await begun(database)
    await execute(database, DUE)
    async with session(database) as broker, session(database) as person:
        await broker.execute("begin")
        assert await broker.fetchval(FIRE) == 1
        decision = asyncio.create_task(person.fetchval(REJECT, *node, "ann"))
        await blocked(broker)
        await broker.execute("commit")
        assert await decision is False


async def test_a_decision_after_the_cancel_of_its_execution_is_false(database: Database) -> None:
    """The approval is no longer shown."""
    node = await begun(database)
    await execute(database, "select noetl.cancel_execution($1)", node[0])
    await drain(database)
    assert await rows(database, "select * from noetl.pending_approvals") == []
    assert not await decide(database, node, approved=False)
    assert await rows(database, "select status from noetl.wait") == [("cancelled",)]
    assert await rows(database, "select * from noetl.timer") == []


async def test_a_second_visit_is_an_approval_of_its_own(database: Database) -> None:
    """A loop until somebody approves."""
    execution_id, _ = await begun(
        database,
        """
        workflow:
        - {step: start, next: approve}
        - {step: approve, type: approval, next: [{when: "{{ approve.approved }}", step: end}, {else: [{step: change}]}]}
        - {step: change, type: python, code: x, next: approve}
        - {step: end, result: "{{ approve.by }}"}
        """,
    )
    assert await decide(database, (execution_id, f"{execution_id}:approve"), approved=False)
    await drain(database)
    await execute(
        database,
        "select noetl.complete_job(queue_id, 'test', attempts, '1') from noetl.lease_jobs('test', 10)",
    )
    await drain(database)
    assert not await decide(database, (execution_id, f"{execution_id}:approve"))
    assert await decide(database, (execution_id, f"{execution_id}:approve#2"), by="bob")
    await drain(database)
    assert (await result(database))[0] == "COMPLETED"
    assert await rows(database, DECIDED_BY + " order by event_id") == [("ann",), ("bob",)]
    assert await broken_invariants(database) == {}

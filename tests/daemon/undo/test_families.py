"""Executions that undo, with children: what a child did long ago, children that run, undos that are playbooks."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from noetl_broker.errors import BrokerError
from noetl_broker.playbook import PlaybookRules, compile_playbook
from noetl_broker.service.recoveries import recover
from noetl_broker.store.admin import catalog
from tests.brokers import broken_invariants, drain, execute, register, rows, start, value
from tests.postgres import Database
from tests.sessions import blocked, refused, session
from tests.stories import document
from tests.undos import STANDS, STATUS, UNDO, UNDOS, complete, fail, lease, work

CHILD = """
workflow:
  - {step: start, next: book}
  - step: book
    type: python
    code: "def main(): ..."
    compensate: {type: python, code: "def main(): ...", args: {id: "{{ result.id }}", nights: "{{ workload.nights }}"}}
    next: tell
  - step: tell
    type: python
    code: "def main(): ..."
    compensate: {type: python, code: "def main(): ..."}
    next: end
  - {step: end}
"""
PARENT = """
workflow:
  - {step: start, next: pay}
  - {step: pay, type: python, code: "def main(): ...", compensate: {type: python, code: "def main(): ..."}, next: trip}
  - {step: trip, type: playbook, path: child, args: {nights: 3}, next: ship}
  - {step: ship, type: python, code: "def main(): ...", next: end}
  - {step: end}
"""
MANUAL = """
workflow:
  - {step: start, next: pay}
  - step: pay
    type: python
    code: "def main(): ..."
    args: {order: 7}
    compensate: {type: playbook, path: refund, args: {charge: "{{ result.id }}", order: "{{ order }}"}}
    next: ship
  - {step: ship, type: python, code: "def main(): ...", next: end}
  - {step: end}
"""
REFUND = """
workflow:
  - {step: start, next: ask}
  - step: ask
    type: approval
    title: "Refund {{ workload.charge }} of {{ workload.order }}?"
    next: refund
  - {step: refund, type: python, code: "def main(): ...", args: {id: "{{ workload.charge }}"}, next: end}
  - {step: end}
"""
ITEMS = """
workflow:
  - {step: start, next: each}
  - step: each
    type: iterator
    collection: [1, 2, 3]
    element: n
    mode: async
    task: {type: playbook, path: child, args: {nights: "{{ n }}"}}
    next: ship
  - {step: ship, type: python, code: "def main(): ...", next: end}
  - {step: end}
"""
ONE_EACH = """
workflow:
  - {step: start, next: each}
  - step: each
    type: iterator
    collection: [a, b, c]
    element: name
    mode: async
    task:
      type: python
      code: "def main(): ..."
      args: {name: "{{ name }}"}
      compensate: {type: python, code: "def main(): ...", args: {id: "{{ result.id | default(0) }}", was: "{{ name }}"}}
    next: ship
  - {step: ship, type: python, code: "def main(): ...", next: end}
  - {step: end}
"""
BESIDE = """
workflow:
  - {step: start, next: [trip, ship]}
  - {step: trip, type: playbook, path: child, args: {nights: 3}, next: end}
  - {step: ship, type: python, code: "def main(): ...", next: end}
  - {step: end}
"""
FAMILY = "select path, status, undo_status from noetl.execution order by execution_id"


async def test_a_child_that_completed_long_ago_is_undone_in_its_turn(database: Database) -> None:
    """By itself: the parent asks it, and waits for its answer."""
    await register(database, CHILD, path="child")
    await register(database, PARENT)
    [execution] = await start(database)
    jobs = await work(database, failing=("ship",))
    assert jobs == ["pay", "book", "tell", "ship", "tell!undo", "book!undo", "pay!undo"]
    assert await rows(database, FAMILY) == [("story", "FAILED", "undone"), ("child", "COMPLETED", "undone")]
    assert await rows(database, UNDOS, execution) == [("pay", "done"), ("trip", "done")]
    undo = await value(database, "select max(execution_id) from noetl.execution")
    assert await rows(database, UNDOS, undo) == [("book", "done"), ("tell", "done")]
    args = "select action::jsonb -> 'args' from noetl.queue where execution_id = $1 and node_name = 'book!undo'"
    assert await rows(database, args, undo) == [({"id": "book", "nights": 3},)]
    assert await broken_invariants(database) == {}


async def test_a_running_child_ends_and_undoes_before_its_parent(database: Database) -> None:
    """It is cancelled by an event."""
    await register(database, CHILD, path="child")
    await register(database, PARENT)
    [execution] = await start(database)
    for name in ("pay", "book"):
        await drain(database)
        await complete(database, (await lease(database))[name], {"id": name})
    await drain(database)
    assert await value(database, "select noetl.cancel_execution($1)", execution)
    assert await work(database) == ["book!undo", "pay!undo"]
    assert await rows(database, FAMILY) == [("story", "CANCELLED", "undone"), ("child", "CANCELLED", "undone")]
    assert await rows(database, UNDOS, execution) == [("pay", "done")]
    assert await broken_invariants(database) == {}


async def test_a_failed_undo_of_a_child_is_gone_on_with_by_an_undo_of_the_parent(database: Database) -> None:
    """The parent asks the child again."""
    await register(database, CHILD, path="child")
    await register(database, PARENT)
    [execution] = await start(database)
    await work(database, failing=("ship", "book!undo"))
    assert await rows(database, FAMILY) == [("story", "FAILED", "left"), ("child", "COMPLETED", "left")]
    assert await rows(database, UNDOS, execution) == [("pay", "open"), ("trip", "failed")]
    assert await value(database, UNDO, execution)
    assert await work(database) == ["book!undo", "pay!undo"]
    assert await rows(database, FAMILY) == [("story", "FAILED", "undone"), ("child", "COMPLETED", "undone")]
    assert await rows(database, "select count(*) from noetl.undo where status in ('open', 'failed')") == [(0,)]
    assert await broken_invariants(database) == {}


async def test_a_child_is_not_undone_while_its_parent_lives(database: Database) -> None:
    """Also while the parent undoes before its end."""
    await register(database, CHILD, path="child")
    await register(database, PARENT)
    [execution] = await start(database)
    for name in ("pay", "book", "tell"):
        await drain(database)
        await complete(database, (await lease(database))[name], {"id": name})
    await drain(database)
    child = await value(database, "select max(execution_id) from noetl.execution")
    living = f"{child} belongs to execution {execution}, which has not"
    with pytest.raises(asyncpg.PostgresError, match=living):
        await value(database, UNDO, child)
    await fail(database, (await lease(database))["ship"])
    await drain(database)
    assert await value(database, STATUS, execution) == "COMPENSATING"
    with pytest.raises(asyncpg.PostgresError, match=living):
        await value(database, UNDO, child)
    assert await work(database) == ["tell!undo", "book!undo", "pay!undo"]
    assert await broken_invariants(database) == {}


async def test_a_parent_waits_for_an_undo_that_somebody_else_began(database: Database) -> None:
    """The child undoes once, and answers at its end. With nothing left, it answers at once."""
    await register(database, CHILD, path="child")
    await register(database, PARENT)
    [execution] = await start(database)
    await work(database)
    child = await value(database, "select max(execution_id) from noetl.execution")
    assert await value(database, UNDO, child)
    assert await value(database, UNDO, execution)
    assert await work(database) == ["tell!undo", "book!undo", "pay!undo"]
    assert await rows(database, FAMILY) == [("story", "COMPLETED", "undone"), ("child", "COMPLETED", "undone")]
    [second] = await start(database)
    await work(database)
    child = await value(database, "select max(execution_id) from noetl.execution")
    await value(database, UNDO, child)
    assert await work(database) == ["tell!undo", "book!undo"]
    await value(database, UNDO, second)
    assert await work(database) == ["pay!undo"]
    assert await broken_invariants(database) == {}


async def test_a_caught_child_with_a_failed_refund_is_asked_again(database: Database) -> None:
    """The parent went on; when it undoes, the child does the rest."""
    await register(database, CHILD, path="child")
    await register(database, PARENT.replace("path: child,", "path: child, catch: [{step: ship}],"))
    [execution] = await start(database)
    assert await work(database, failing=("tell", "book!undo", "ship")) == [
        "pay",
        "book",
        "tell",
        "book!undo",
        "ship",
        "book!undo",
    ]
    assert await rows(database, FAMILY) == [("story", "FAILED", "left"), ("child", "FAILED", "left")]
    assert await value(database, UNDO, execution)
    assert await work(database) == ["book!undo", "pay!undo"]
    assert await rows(database, FAMILY) == [("story", "FAILED", "undone"), ("child", "FAILED", "undone")]
    assert await broken_invariants(database) == {}


async def test_a_child_is_undone_with_its_parent_whose_step_has_a_compensate(database: Database) -> None:
    """By that alone: it is refused for the child."""
    await register(database, CHILD, path="child")
    own = "path: child, compensate: {type: python, code: 'def main(): ...'},"
    await register(database, PARENT.replace("path: child,", own))
    [execution] = await start(database)
    await work(database)
    child = await value(database, "select max(execution_id) from noetl.execution")
    with pytest.raises(
        asyncpg.PostgresError, match=f"step trip of execution {execution} has a `compensate` of its own"
    ):
        await value(database, UNDO, child)
    assert await value(database, UNDO, execution)
    assert await work(database) == ["trip!undo", "pay!undo"]
    with pytest.raises(asyncpg.PostgresError) as found:
        await value(database, UNDO, child)
    assert found.value.hint == f"noetl-broker status {execution} shows its undo"
    assert await broken_invariants(database) == {}


async def test_an_archived_child_fails_the_undo_of_its_parent(database: Database) -> None:
    """The parent is answered nevertheless."""
    await register(database, CHILD, path="child")
    await register(database, PARENT)
    [execution] = await start(database)
    await work(database)
    child = await value(database, "select max(execution_id) from noetl.execution")
    await execute(database, "delete from noetl.execution where execution_id = $1", child)
    await value(database, UNDO, execution)
    await work(database)
    assert await rows(database, STANDS, execution) == [("COMPLETED", "left")]
    error = await value(database, "select error ->> 'message' from noetl.undo where step = 'trip'")
    assert error == f"execution {child}, which would undo what it did, was dropped"


async def test_an_undo_of_a_block_takes_the_version_of_its_playbook(database: Database) -> None:
    """A block is a part of that version."""
    body = """
        workflow:
        - {step: start, next: pay}
        - step: pay
          type: playbook
          workflow:
          - {step: start, next: charge}
          - step: charge
            type: python
            code: "def main(): ..."
            compensate: {type: python, code: "def main(): ...", args: {of: "{{ result.nothing }}"}}
          next: end
        - {step: end}
        """

    async def registered(text: str) -> None:
        text = document(text, path="story", metadata="")
        async with session(database) as connection:
            await catalog.register(connection, [(compile_playbook(text, rules=PlaybookRules()), text)])

    await registered(body)
    [execution] = await start(database)
    await work(database)
    await value(database, UNDO, execution)
    assert await work(database) == []
    assert await rows(database, STANDS, execution) == [("COMPLETED", "left")]
    await registered(body.replace("result.nothing", "result.id"))
    assert await value(database, "select noetl.undo_execution($1, false, 2)", execution)
    assert await work(database) == ["charge!undo"]
    assert await rows(database, STANDS, execution) == [("COMPLETED", "undone")]
    assert await broken_invariants(database) == {}


async def test_a_child_that_completes_as_its_parent_ends_is_undone(database: Database) -> None:
    """The parent has nothing of its own to undo, so it waits for nothing; the answer of the child comes too late."""
    await register(database, CHILD, path="child")
    await register(database, BESIDE)
    [execution] = await start(database)
    await drain(database)
    jobs = await lease(database)
    await complete(database, jobs["book"], {"id": "book"})
    await drain(database)
    await complete(database, (await lease(database))["tell"], {"id": "tell"})
    await fail(database, jobs["ship"])
    await drain(database)
    undo = await value(database, "select max(execution_id) from noetl.execution")
    await drain(database)
    async with session(database) as connection:
        with pytest.raises(BrokerError, match=f"{undo} is undoing what it did;.* abandon {undo} ends"):
            await recover(connection, execution, PlaybookRules())
    assert await work(database) == ["tell!undo", "book!undo"]
    assert await rows(database, FAMILY) == [("story", "FAILED", None), ("child", "COMPLETED", "undone")]
    assert await rows(database, UNDOS, execution) == []
    assert await broken_invariants(database) == {}


async def test_a_retry_does_not_wait_for_the_undo_of_another_family(database: Database) -> None:
    """Both have a child."""
    await register(database, CHILD, path="child")
    await register(database, BESIDE, path="beside")
    await register(database, "workflow: [{step: start, next: trip}, {step: trip, type: playbook, path: child}]")
    [failed] = await start(database)
    await work(database, failing=("book",))
    await start(database, path="beside")
    await drain(database)
    jobs = await lease(database)
    await fail(database, jobs["ship"])
    await drain(database)
    await complete(database, jobs["book"], {"id": "book"})
    await drain(database)
    undoing = """
        select count(*) from noetl.execution
        where status = 'COMPENSATING' or undo_status = 'undoing' or noetl.is_undo_asked(execution_id)"""
    assert await value(database, undoing) == 1
    async with session(database) as connection:
        assert (await recover(connection, failed, PlaybookRules()))["steps"] == ["trip"]


async def test_what_a_failed_child_left_is_undone_before_a_retry_of_its_parent(database: Database) -> None:
    """The retry would do it again."""
    await register(database, CHILD, path="child")
    await register(database, PARENT)
    [execution] = await start(database)
    await work(database, failing=("tell", "book!undo"))
    assert await rows(database, FAMILY) == [("story", "FAILED", "left"), ("child", "FAILED", "left")]
    child = await value(database, "select max(execution_id) from noetl.execution")
    async with session(database) as connection:
        with pytest.raises(BrokerError, match=f"execution {child} has something left to undo"):
            await recover(connection, execution, PlaybookRules())
        await value(database, UNDO, execution)
        assert await work(database) == ["book!undo", "pay!undo"]
        retried = await recover(connection, execution, PlaybookRules())
    assert retried["anew"] == "what it did was undone"
    await work(database)
    assert await broken_invariants(database) == {}


async def test_an_undo_may_be_a_playbook_with_a_person_in_it(database: Database) -> None:
    """The execution waits for the child. A pause of their paths does not hold it."""
    await register(database, REFUND, path="refund")
    await register(database, MANUAL)
    [execution] = await start(database)
    await drain(database)
    await execute(database, "select noetl.pause_path(path) from noetl.catalog")
    assert await work(database, failing=("ship",)) == ["pay", "ship"]
    [(child, title)] = await rows(database, "select execution_id, title from noetl.pending_approvals")
    assert title == "Refund pay of 7?"
    assert await value(database, STATUS, execution) == "COMPENSATING"
    await value(database, "select noetl.decide_approval($1, $2, true, 'ann')", child, f"{child}:ask")
    assert await work(database) == ["refund"]
    assert await value(database, STATUS, execution) == "FAILED"
    assert await rows(database, UNDOS, execution) == [("pay", "done")]
    assert await broken_invariants(database) == {}


async def test_an_abandoned_undo_cancels_its_playbook(database: Database) -> None:
    """Nobody is asked any more."""
    await register(database, REFUND, path="refund")
    await register(database, MANUAL)
    [execution] = await start(database)
    await work(database, failing=("ship",))
    assert await value(database, "select noetl.abandon_execution($1)", execution)
    await drain(database)
    assert await rows(database, FAMILY) == [("story", "FAILED", "left"), ("refund", "CANCELLED", None)]
    assert await rows(database, UNDOS, execution) == [("pay", "unknown")]
    assert await broken_invariants(database) == {}


async def test_an_undo_that_runs_after_the_end_breaks_no_invariant(database: Database) -> None:
    """Its job waits for a playbook, which runs although its parent has ended."""
    await register(database, REFUND, path="refund")
    await register(database, MANUAL)
    [execution] = await start(database)
    await work(database, failing=("ship",))
    await value(database, "select noetl.abandon_execution($1)", execution)
    await drain(database)
    await value(database, "select noetl.undo_execution($1, true)", execution)
    await drain(database)
    assert await rows(database, FAMILY) == [
        ("story", "FAILED", "undoing"), ("refund", "CANCELLED", None), ("refund", "RUNNING", None),
    ]  # fmt: skip
    assert await broken_invariants(database, ignore={"every execution ended"}) == {}


async def test_a_playbook_that_undoes_is_cancelled_when_it_times_out(database: Database) -> None:
    """Each attempt: never do two of them undo the same thing, and none goes on after the end."""
    await register(database, REFUND, path="refund")
    limits = "timeout: 1h, retry: {max_attempts: 2, initial_delay: 0}"
    await register(database, MANUAL.replace('"{{ order }}"}}', f'"{{{{ order }}}}"}}, {limits}}}'))
    [execution] = await start(database)
    await work(database, failing=("ship",))
    for end, running in (("COMPENSATING", [True]), ("FAILED", [])):
        await execute(
            database, "update noetl.queue set first_leased_at = now() - interval '2 h' where status = 'delegated'"
        )
        await execute(database, "select noetl.reap(100, 5)")
        await drain(database)
        await execute(database, "select noetl.fire_timers(100)")
        await drain(database)
        assert await value(database, STATUS, execution) == end
        live = "select noetl.is_live(status) from noetl.execution where path = 'refund' and noetl.is_live(status)"
        assert [is_live for (is_live,) in await rows(database, live)] == running
    refunds = [("refund", "CANCELLED", None)] * 2
    assert await rows(database, FAMILY) == [("story", "FAILED", "left"), *refunds]
    assert await rows(database, UNDOS, execution) == [("pay", "failed")]
    assert await broken_invariants(database) == {}


async def test_children_of_an_iterator_are_undone_one_by_one(database: Database) -> None:
    """Each by itself."""
    await register(database, CHILD, path="child")
    await register(database, ITEMS)
    [execution] = await start(database)
    jobs = await work(database, failing=("ship",))
    assert sorted(jobs[7:]) == ["book!undo"] * 3 + ["tell!undo"] * 3
    assert jobs[7:] == ["tell!undo", "book!undo"] * 3
    assert sorted(await rows(database, UNDOS, execution)) == [(f"each[{index}]", "done") for index in range(3)]
    assert await broken_invariants(database) == {}


async def test_items_are_undone_each_with_its_own_values(database: Database) -> None:
    """Those that completed, the last success first; one that a worker holds is draining."""
    await register(database, ONE_EACH)
    [execution] = await start(database)
    await drain(database)
    jobs = await rows(database, "select node_id, queue_id, attempts from noetl.lease_jobs('w', 3)")
    by_slot = {node[-1]: (job, attempt) for node, job, attempt in jobs}
    await complete(database, by_slot["1"], {"id": "B"})
    await drain(database)
    await value(database, "select noetl.cancel_execution($1)", execution)
    await drain(database)
    await complete(database, by_slot["0"], {"id": "A"})
    assert await value(database, "select noetl.fail_job($1, 'w', $2, '{\"message\": \"no\"}')", *by_slot["2"])
    assert len(await work(database)) == 2
    assert await rows(database, UNDOS, execution) == [("each[1]", "done"), ("each[0]", "done")]
    args = "select action::jsonb -> 'args' from noetl.queue where node_id like '%!undo' order by node_id"
    assert await rows(database, args) == [({"id": "A", "was": "a"},), ({"id": "B", "was": "b"},)]
    assert await value(database, STATUS, execution) == "CANCELLED"
    assert await broken_invariants(database) == {}


async def test_an_abandoned_undo_lists_the_items_that_a_worker_has(database: Database) -> None:
    """Whoever asks for the unknown ones too undoes them."""
    await register(database, ONE_EACH)
    [execution] = await start(database)
    await drain(database)
    jobs = await rows(database, "select queue_id, attempts from noetl.lease_jobs('w', 3) order by node_id")
    await complete(database, jobs[1], {"id": "B"})
    await drain(database)
    await value(database, "select noetl.cancel_execution($1)", execution)
    await drain(database)
    await value(database, "select noetl.abandon_execution($1)", execution)
    await drain(database)
    assert await rows(database, UNDOS, execution) == [
        ("each[1]", "open"),
        ("each[0]", "unknown"),
        ("each[2]", "unknown"),
    ]
    assert await value(database, "select noetl.undo_execution($1, true)", execution)
    assert len(await work(database)) == 3
    assert await rows(database, STANDS, execution) == [("FAILED", "undone")]
    assert await broken_invariants(database) == {}


async def test_undos_of_one_family_wait_for_each_other(database: Database) -> None:
    """Of a child too: it locks the root of its family."""
    await register(database, CHILD, path="child")
    await register(database, PARENT)
    [parent] = await start(database)
    await drain(database)
    await complete(database, (await lease(database))["pay"])
    await drain(database)
    child = await value(database, "select execution_id from noetl.execution where parent_execution_id = $1", parent)
    async with session(database) as other, session(database) as own, refused("NB409"):
        await other.execute("begin")
        await other.execute("select pg_advisory_xact_lock($1)", parent)
        undoing = asyncio.create_task(own.execute("select noetl.undo_execution($1)", child))
        await blocked(other)
        await other.execute("rollback")
        await undoing

"""Executions that undo what they did are replayed without a difference, on a real database."""

from __future__ import annotations

from noetl_broker.history.replay import replay_history, sentences
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.store.admin.history import load_history
from noetl_broker.store.connect.connection import connect
from tests.brokers import drain, execute, register, rows, start, value
from tests.postgres import Database

BOOK = """
workload: {items: [1, 2]}
workflow:
- {step: start, next: charge}
- step: charge
  type: http
  args: {order: 7}
  compensate: {type: http, args: {order: "{{ order }}", id: "{{ result.id }}", why: "{{ error.message }}"}}
  next: call
- {step: call, type: playbook, path: child, next: each}
- step: each
  type: iterator
  collection: "{{ workload.items }}"
  element: item
  task:
    type: http
    args: {n: "{{ item * 10 }}"}
    compensate: {type: playbook, path: unsend, args: {n: "{{ n }}", place: "{{ _loop.index }}", got: "{{ result.id }}"}}
  next: ship
- {step: ship, type: http}
"""
CHILD = """
workflow:
- {step: start, next: reserve}
- {step: reserve, type: http, compensate: {type: http, args: {of: "{{ result.id }}", as: "{{ execution_id }}"}}}
"""
UNSEND = """
workflow:
- {step: start, next: drop}
- {step: drop, type: http, args: {n: "{{ workload.n }}"}}
"""
LEASE = "select queue_id, attempts, node_name, action::jsonb -> 'args' from noetl.lease_jobs('w', 1)"


async def work(database: Database, *failing: str) -> list[tuple[str, object]]:
    """Do the jobs one by one until there are none; give their names and inputs."""
    done = []
    await drain(database)
    while leased := await rows(database, LEASE):
        for queue_id, attempt, name, args in leased:
            done.append((name, args))
            if name in failing:
                await execute(
                    database, "select noetl.fail_job($1, 'w', $2, $3)", queue_id, attempt, {"message": f"no {name}"}
                )
            else:
                await execute(
                    database, "select noetl.complete_job($1, 'w', $2, $3)", queue_id, attempt, {"id": len(done)}
                )
        await drain(database)
    return done


async def test_undos_replay_without_a_difference(database: Database) -> None:
    """Of actions, items by playbooks, children, a failed undo, and the one that goes on with it."""
    await register(database, BOOK)
    await register(database, CHILD, path="child")
    await register(database, UNSEND, path="unsend")
    [first] = await start(database)
    done = await work(database, "ship", "charge!undo")
    child = await value(database, "select execution_id from noetl.execution where path = 'child'")
    assert done == [
        ("charge", {"order": 7}),
        ("reserve", None),
        ("each", {"n": 10}),
        ("each", {"n": 20}),
        ("ship", None),
        ("drop", {"n": 20}),
        ("drop", {"n": 10}),
        ("reserve!undo", {"as": child, "of": 2}),
        ("charge!undo", {"id": 1, "order": 7, "why": "no ship"}),
    ]
    assert await value(database, "select noetl.undo_execution($1)", first)
    assert await work(database) == [("charge!undo", {"id": 1, "order": 7, "why": "no ship"})]
    stands = "select status, undo_status from noetl.execution where execution_id = $1"
    assert await rows(database, stands, first) == [("FAILED", "undone")]
    connection = await connect(database, name="test")
    try:
        for (execution_id,) in await rows(database, "select execution_id from noetl.execution"):
            found = await load_history(connection, execution_id, PlaybookRules())
            assert sentences(replay_history(found)[1]) == []
    finally:
        await connection.close()

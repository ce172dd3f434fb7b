"""Random trees of playbooks under random faults: every execution ends and leaves nothing open."""

from __future__ import annotations

import asyncio
import random

import pytest

from noetl_broker.store.connection import Connection, connect
from tests.brokers import drain, execute, register, rows, running, start, until_ended
from tests.chaos.sampling import LONG
from tests.consistency import inconsistencies
from tests.postgres import Database
from tests.stories import playbook

FAMILIES = 5 if LONG else 2
TREES = 4  # in a test
DEPTH = 3
LEAF = """
workflow:
- {step: start, next: work}
- {step: work, type: python, code: x, next: end}
- {step: end, result: 1}
"""
BODY = """
workflow:
- {{step: start, next: [a, b]}}
- {{step: a, {a}, next: j}}
- {{step: b, {b}, next: j}}
- {{step: j, join: {join}, {j}, next: end}}
- {{step: end}}
"""
# A worker that completes or fails jobs; an operator who cancels; events that are sent twice.
WORK = """
    select case when random() < $1
      then noetl.fail_job(queue_id, 'w', attempts, '{"message": "no"}')
      else noetl.complete_job(queue_id, 'w', attempts, '1')
    end
    from noetl.lease_jobs('w', 5)"""
CANCEL = """
    select noetl.cancel_execution(execution_id)
    from (select execution_id from noetl.execution where status = 'RUNNING' order by random() limit 1) x"""
REPEAT = """
    insert into noetl.event (
      execution_id, event_type, node_id, node_name, node_type, status, result, error, meta, context
    )
    select execution_id, event_type, node_id, node_name, node_type, status, result, error, meta, context
    from noetl.event
    where event_type in ('action_completed', 'action_failed', 'execution_complete', 'execution_failed', 'child_due',
        'iteration_due', 'iterator_completed', 'execution_start')
      and (meta is null or not meta ? 'turn')
    order by random()
    limit 2"""


def _step(rng: random.Random, seed: int, level: int) -> str:
    """A random step of a playbook at this level; steps of the last level call the leaf."""
    child = f"level{level + 1}-{seed}" if level + 1 < DEPTH else "leaf"
    on_error, mode = rng.choice(["fail", "continue"]), rng.choice(["sequential", "async"])
    retry = rng.choice(["", ", retry: {max_attempts: 2, initial_delay: 0.01, jitter: false}"])
    items = rng.choice(["[]", "[7]", "[1, 2, 3]"])
    loop = f"loop: {{collection: {items}, element: n, mode: {mode}, on_error: {rng.choice(['fail', 'continue'])}"
    return f"on_error: {on_error}, " + rng.choice([
        f"type: playbook, path: {child}{rng.choice(['', ', return_step: start', ', timeout: 0.2'])}{retry}",
        f"type: playbook, path: {child}, {loop}}}, args: {{n: '{{{{ n }}}}'}}",
        f"type: python, code: x, {loop}, distribute: true}}",
        f"type: python, code: x{retry}",
    ])  # fmt: skip


async def _inject_faults(rng: random.Random, connection: Connection, ended: asyncio.Task[None]) -> None:
    """Work and inject faults until all have ended."""
    failing = rng.choice([0.02, 0.1])
    while not ended.done():
        await connection.execute(WORK, failing)
        if rng.random() < 0.02:
            await connection.execute(CANCEL)
        if rng.random() < 0.2:
            await connection.execute(REPEAT)
    await ended


async def _register_tree(database: Database, seed: int) -> None:
    """Register the playbooks of one tree."""
    rng = random.Random(seed)
    for level in range(DEPTH):
        steps = {name: _step(rng, seed, level) for name in ("a", "b", "j")}
        body = BODY.format(join=rng.choice(["all", "any", "each"]), **steps)
        playbook(body)  # raises for an invalid playbook, whose family would end too soon
        await register(database, body, path=f"level{level}-{seed}")


@pytest.mark.chaos  # for the long form
@pytest.mark.parametrize("first", range(0, 8 if LONG else TREES, TREES))
async def test_every_random_tree_ends(database: Database, first: int) -> None:
    """Two brokers. Nothing stays open, rows agree with events, and a replay finds no difference."""
    await register(database, LEAF, path="leaf")
    for seed in range(first, first + TREES):
        await _register_tree(database, seed)
    rng = random.Random(first)
    connection = await connect(database, name="test")
    try:
        async with running(database, reap_seconds=0.05, lanes=1), running(database, reap_seconds=0.05, lanes=1):
            for seed in range(first, first + TREES):
                await start(database, f"level0-{seed}", count=FAMILIES)
            await _inject_faults(rng, connection, asyncio.create_task(until_ended(database)))
    finally:
        await connection.close()
    await drain(database)
    await execute(database, "select noetl.reap(100, 5)")  # jobs that the reaper had locked when they were withdrawn
    assert await rows(database, "select from noetl.withdrawn_job") == []
    assert await inconsistencies(database) == {}

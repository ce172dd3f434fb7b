"""Results that are too large together fail the step by name, whoever started the items or children."""

from __future__ import annotations

import pytest

from noetl_broker.broker.model.rules import Rules
from tests.brokers import broken_invariants, complete_jobs, drain, register, rows, start
from tests.daemon.children.test_worker_children import PARENT
from tests.daemon.iterators.test_iterators import CHILDREN, EACH, JOBS, prepare
from tests.postgres import Database

TEXT = "x" * 90
GIVER = f"""
workflow:
- {{step: start, next: end}}
- {{step: end, result: {{text: {TEXT}}}}}
"""
END = "select status, error ->> 'type' from noetl.execution where path = 'story'"
FAILED = [("FAILED", "max_gathered_bytes")]


@pytest.mark.parametrize("items, retry_owner", [(JOBS, "broker"), (CHILDREN, "worker")])
async def test_items_with_too_large_results_together_fail_their_iterator(
    database: Database, items: str, retry_owner: str
) -> None:
    """Whoever owns retries: no worker has this job."""
    await register(database, EACH.format(more=items, concurrency=8, on_error="fail"))
    await register(database, GIVER, path="child")
    await start(database, payload={"items": list(range(40))})
    for _ in range(10):
        await drain(database, max_gathered_bytes=2000, rules=Rules(retry_owner=retry_owner))
        await complete_jobs(database, {"text": TEXT})
    assert await rows(database, END) == FAILED
    assert await broken_invariants(database) == {}


async def test_children_with_too_large_results_together_fail_their_step(database: Database) -> None:
    """The step fails though its worker has answered."""
    await register(database, PARENT)
    await register(database, GIVER, path="child")
    await start(database)
    await drain(database)
    announce = """
        with leased as (select queue_id, attempts from noetl.lease_jobs('w'))
        select noetl.wait_for_child(queue_id, 'w', attempts, noetl.start_execution('child'), index),
          index = 29 and noetl.complete_job(queue_id, 'w', attempts)
        from leased, generate_series(0, 29) index"""
    assert len(await rows(database, announce)) == 30
    await drain(database, max_gathered_bytes=2000)
    assert await rows(database, END) == FAILED
    assert await broken_invariants(database) == {}


async def test_compressed_results_count_with_their_full_size(database: Database) -> None:
    """The limit counts uncompressed sizes."""
    await prepare(database, JOBS)
    await start(database, payload={"items": [1, 2, 3]})
    await drain(database)
    await complete_jobs(database, {"text": "some line of a log " * 2000})
    await drain(database, max_gathered_bytes=100_000)
    assert await rows(database, END) == FAILED
    assert await broken_invariants(database) == {}

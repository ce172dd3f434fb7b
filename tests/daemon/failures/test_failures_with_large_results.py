"""Failures with large results: what `retry_when` reads of them, and errors that only the result has."""

from __future__ import annotations

import json
import secrets
from typing import Any

import pytest

from noetl_broker.broker.model.values import JSON
from tests.brokers import broken_invariants, drain, execute, register, rows, start, value
from tests.daemon.history.test_forks import differences
from tests.daemon.limits.test_large_payloads import megabytes
from tests.postgres import Database
from tests.sessions import session

STORY = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, MORE, next: end}
- {step: end}
"""
BUSY = "retry: {max_attempts: 2, initial_delay: 0, jitter: false, retry_when: \"{{ result.code == 'busy' }}\"}"
MANY = ["z"] * 50_000
NONE = BUSY.replace("result.code == 'busy'", "result is none")
ITEMS = 'loop: {collection: [1], element: n, distribute: true}, args: {n: "{{ n }}"}'
INSERT = """
insert into noetl.event (execution_id, event_type, node_id, node_name, result, error)
select q.execution_id, $1, q.node_id, q.node_name, $2, $3 from noetl.queue q where q.status = 'queued'"""
ERRORS = (
    "select event_type, error from noetl.event where meta ? 'turn' and error is not null order by created_at limit 1"
)
SMALL, LARGE, VAST = "x", megabytes(0.02)["blob"], "x" * 2_097_152
TOO_LARGE = {
    "step": "a",
    "message": "the result takes 2097216 bytes; the limit max_result_bytes is 2097152",
    "type": "max_result_bytes",
}


async def _failed(database: Database, more: str, event_type: str, result: JSON, error: JSON = None) -> int:
    await register(database, STORY.replace("MORE, ", f"{more}, " if more else ""))
    [execution_id] = await start(database)
    await drain(database)
    await execute(database, INSERT, event_type, result, error)
    return execution_id


@pytest.mark.parametrize("blob", [SMALL, LARGE])
async def test_a_condition_on_a_retry_reads_a_result_of_any_size(database: Database, blob: str) -> None:
    """And a replay reads the same."""
    error = {"message": "no"}
    execution_id = await _failed(database, BUSY, "action_failed", {"code": "busy", "blob": blob}, error)
    await drain(database)
    assert await rows(database, ERRORS) == [("action_retry", {"step": "a", **error})]
    assert await differences(database, execution_id) == []


@pytest.mark.parametrize("more, error", [("", {}), (ITEMS, {"index": 0})])
@pytest.mark.parametrize("blob", [SMALL, LARGE])
async def test_an_error_in_an_envelope_of_any_size_is_the_error(
    database: Database, blob: str, more: str, error: dict[str, Any]
) -> None:
    """A NoETL worker puts it only there, for an action and for an item."""
    envelope = {"id": "1", "status": "error", "data": blob, "error": "disk full"}
    execution_id = await _failed(database, more, "ACTION_ERROR", envelope)
    await drain(database)
    error_of_execution = {"step": "a", "message": "disk full", **error}
    assert await value(database, "select error from noetl.execution") == error_of_execution
    assert await broken_invariants(database) == {}
    assert await differences(database, execution_id) == []


async def test_a_result_of_a_failure_above_the_limit_is_none(database: Database) -> None:
    """A broker must not read it. Without another error, the error names its size."""
    envelope = {"id": "1", "status": "error", "data": VAST, "error": "disk full"}
    execution_id = await _failed(database, NONE, "action_error", envelope)
    await drain(database)
    assert await rows(database, ERRORS) == [("action_retry", TOO_LARGE)]
    assert await differences(database, execution_id) == []
    await execute(database, INSERT.replace("'queued'", "'retry'"), "action_failed", envelope, {"message": "no"})
    await drain(database)
    assert await value(database, "select error from noetl.execution") == {"step": "a", "message": "no"}
    assert await differences(database, execution_id) == []


@pytest.mark.parametrize(
    "result, error",
    [
        ({"code": 7, "rows": MANY}, {"code": 7, "rows": json.dumps(MANY)[:500], "message": "the action failed"}),
        ({"data": 1, "error": "y" * 100_000}, {"message": "y" * 4_000}),
    ],
)
async def test_a_long_error_in_a_result_is_shortened(database: Database, result: JSON, error: dict[str, Any]) -> None:
    """Like any other error, because later events repeat it."""
    execution_id = await _failed(database, "", "action_error", result)
    await drain(database)
    error_of_execution = await value(database, "select error from noetl.execution")
    of_result = result.get("error", result) if isinstance(result, dict) else result
    assert error_of_execution.pop("original_bytes") == len(json.dumps(of_result))
    assert error_of_execution == {"step": "a", **error}
    assert await differences(database, execution_id) == []


async def test_a_claim_ends_before_the_failure_that_exceeds_its_size(database: Database) -> None:
    """Results of failures count in the size of a claim. Other values stay in the table."""
    await register(database, STORY.replace("MORE, ", f"{BUSY}, "))
    await start(database, count=4)
    await drain(database)
    await execute(database, INSERT, "action_failed", megabytes(1.5), None)
    async with session(database) as own, own.transaction():
        claim = "select locked, result is not null, result_left from noetl.take_mail(200, false, 0) order by mail_id"
        found = [tuple(row) for row in await own.fetch(claim)]
    assert found == [(True, True, False), (True, True, False), (False, False, False), (False, False, False)]
    assert (await drain(database)).metrics.largest_batch == 2
    assert await value(database, "select count(*) from noetl.execution where status = 'FAILED'") == 4


async def test_large_results_of_failures_of_one_execution_come_a_few_at_a_time(database: Database) -> None:
    """Otherwise all mail of an execution comes together. The rest keeps its order."""
    items = "loop: {collection: [1, 2, 3, 4, 5, 6], element: n, mode: async, distribute: true, on_error: continue}"
    await register(database, STORY.replace("MORE", items))
    await start(database)
    await drain(database)
    noise = [secrets.token_hex(750_000) for _ in range(6)]  # does not compress
    async with session(database) as own:
        jobs = await own.fetch(
            "select execution_id, node_id from noetl.queue where status = 'queued' order by queue_id"
        )
        for job, text in zip(jobs, noise, strict=True):
            await own.execute(
                """insert into noetl.event (execution_id, event_type, node_id, node_name, result, error)
                values ($1, 'action_failed', $2, 'a', $3, '{"message": "no"}')""",
                *job,
                {"blob": text},
            )
    metrics = (await drain(database)).metrics
    assert metrics.largest_batch == 2
    assert await value(database, "select error ->> 'type' from noetl.execution") == "all_items_failed"
    assert await broken_invariants(database) == {}
    nodes = "select e.node_id from noetl.turn t join noetl.event e using (execution_id, event_id)"
    order = await rows(database, f"{nodes} where e.event_type = 'action_failed' order by t.turn")
    assert [node for (node,) in order] == [job["node_id"] for job in jobs]

"""The failure of a step that went on, in the tables: for later transactions, replays and forks."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_broker.broker.model.values import JSON
from tests.brokers import broken_invariants, drain, execute, register, rows, start, value
from tests.daemon.history.test_forks import answer, differences, fork, inputs
from tests.noetl import http_error
from tests.postgres import Database

READ = 'args: {s: "{{ a.status }}", e: "{{ a.error }}", d: "{{ a }}", keys: "{{ a.error | list }}"}'
CHAIN = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, on_error: continue, MORE, next: [{step: b, READ}]}
- {step: b, type: python, code: x, next: [{step: c, READ}]}
- {step: c, type: python, code: x, next: end}
- {step: end, result: "{{ a.error }}"}
"""
ITEMS = 'loop: {collection: [1], element: n, distribute: true}, args: {n: "{{ n }}"}'
INSERT = """
insert into noetl.event (execution_id, event_type, node_id, node_name, result, error)
select q.execution_id, $1, q.node_id, q.node_name, $2, $3 from noetl.queue q
where q.node_name = 'a' and q.status = 'queued'"""
MIB3 = "x" * 3_000_000
TOO_LARGE = {
    "step": "a",
    "message": "the result takes 3000002 bytes; the limit max_result_bytes is 2097152",
    "type": "max_result_bytes",
}
# The result of a NoETL worker's http tool after an error response: the event has no error.
ANSWERED = http_error(503, {"wait": 9})
UNAVAILABLE = {
    "message": "the server answered with status 503",
    "type": "http",
    "status_code": 503,
    "response": '{"wait": 9}',
}
FAILURES: dict[str, tuple[str, tuple[str, JSON, JSON], dict[str, Any]]] = {
    "text": ("", ("action_failed", None, "boom"), {"step": "a", "message": "boom"}),
    "too large": ("", ("action_completed", MIB3, None), TOO_LARGE),
    "an item too large": (ITEMS, ("action_completed", MIB3, None), {**TOO_LARGE, "index": 0}),
    "an answer": ("", ("action_error", ANSWERED, None), {"step": "a", **UNAVAILABLE}),
    "an envelope": ("", ("action_error", {"data": 1, "error": "full"}, None), {"step": "a", "message": "full"}),
    "nearly too long": ("", ("action_failed", None, {"message": "y" * 65_510}), {"step": "a", "message": "y" * 65_510}),
}  # fmt: skip


async def _begun(database: Database, body: str, failure: tuple[str, JSON, JSON]) -> int:
    await register(database, body)
    [execution_id] = await start(database)
    await drain(database)
    await execute(database, INSERT, *failure)
    return execution_id


@pytest.mark.parametrize(
    "kind, together", [*((kind, False) for kind in FAILURES), ("an item too large", True), ("an envelope", True)]
)
async def test_a_failure_is_the_same_in_later_transactions(database: Database, kind: str, together: bool) -> None:
    """Also in the same transaction, in which only memory has it."""
    more, failure, error = FAILURES[kind]
    body = CHAIN.replace("READ", READ).replace("MORE, ", f"{more}, " if more else "")
    execution_id = await _begun(database, body, failure)
    if together:
        completion = "insert into noetl.event (execution_id, event_type, node_id) values ($1, 'action_completed', $2)"
        await execute(database, completion, execution_id, f"{execution_id}:b")
    await drain(database)
    for step in ("b", "c")[together:]:
        await answer(database, step, 1)
    found = await inputs(database, execution_id)
    keys = sorted(error, key=lambda key: (len(key), key))  # in the order of jsonb
    assert found["c"] == found["b"] == {"s": "FAILED", "e": error, "d": None, "keys": keys}
    assert await value(database, "select result from noetl.execution") == error
    assert await broken_invariants(database) == {}
    assert await differences(database, execution_id) == []


async def test_a_fork_has_the_failure_of_a_step(database: Database) -> None:
    """A result that is too large is no data there. A fork of the fork has the failure, too."""
    _, failure, error = FAILURES["too large"]
    execution_id = await _begun(database, CHAIN.replace("READ", READ).replace("MORE, ", ""), failure)
    await drain(database)
    await answer(database, "b", 1)
    for _ in range(2):
        execution_id = await fork(database, execution_id, "c", b=2)
        await drain(database)
        assert await inputs(database, execution_id) == {
            "c": {"s": "FAILED", "e": error, "d": None, "keys": ["step", "type", "message"]}
        }
        copied = "select status, result, error from noetl.event where execution_id = $1 and node_name = 'a'"
        assert await rows(database, copied, execution_id) == [("FAILED", None, error)]
        assert await differences(database, execution_id) == []


async def test_the_rows_name_the_event_of_a_failure(database: Database) -> None:
    """Its step_failed."""
    body = CHAIN.replace("READ", READ).replace("MORE, ", "")
    await _begun(database, body, ("action_failed", None, "boom"))
    await drain(database)
    named = """
        select w.status, e.event_type, t.result_event_id = e.event_id
        from noetl.workflow w
        join noetl.event e on e.execution_id = w.execution_id and e.event_id = w.result_event_id
        join noetl.turn t on t.execution_id = w.execution_id and t.turn = 2"""
    assert await rows(database, named) == [("FAILED", "step_failed", True)]


async def test_an_item_that_is_too_large_fails_its_step_beside_other_mail(database: Database) -> None:
    """The rest of the iterator in the tables is not needed."""
    body = CHAIN.replace("READ", READ).replace("on_error: continue, MORE", ITEMS)
    execution_id = await _begun(database, body, ("action_completed", MIB3, None))
    await execute(database, "select noetl.cancel_execution($1)", execution_id)
    await drain(database)
    assert await value(database, "select error from noetl.execution") == {**TOO_LARGE, "index": 0}
    assert await value(database, "select count(*) from noetl.dead_letter") == 0
    assert await differences(database, execution_id) == []

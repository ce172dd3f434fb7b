"""Inserted events of many megabytes: their executions fail by name, and no others wait."""

from __future__ import annotations

import json
from typing import Any

import pytest

from noetl_broker.broker.model.rules import Rules
from tests.bad_events import insert
from tests.brokers import complete_jobs, drain, execute, register, rows, start, value
from tests.consistency import inconsistencies
from tests.postgres import Database

BIG = "x" * 20_000_000
BYSTANDER = "workflow:\n- {step: start, next: end}\n- {step: end, result: 1}\n"
STORY = "workflow:\n- {step: start, next: a}\n- {step: a, type: python, code: x, next: end}\n- {step: end}\n"
START = """
insert into noetl.event (execution_id, event_type, node_name, context, meta)
values (77, $1, $2, $3::text::jsonb, $4::text::jsonb)"""
ERROR = "select status, error ->> 'type', error ->> 'message' from noetl.execution where execution_id = 77"


async def send(
    database: Database,
    *,
    event_type: str = "execution_start",
    name: str | None = None,
    meta: Any = None,
    **context: Any,
) -> None:
    """Insert the start of execution 77."""
    start_context = json.dumps({"path": "story", **context})
    await execute(database, START, event_type, name, start_context, json.dumps(meta))


@pytest.mark.parametrize(
    "event, error",
    [
        ({"path": BIG}, ("max_payload_bytes", "the context of execution_start takes 20000012 bytes; the limit")),
        ({"workload": {"x": BIG}}, ("max_payload_bytes", "the context of execution_start takes 20000040 bytes; the")),
        ({"meta": {"parent": BIG}}, ("max_payload_bytes", "the meta of execution_start takes 20000014 bytes; the")),
        (
            {"path": "p" * 1025},
            ("max_path_chars", "the path in the context of execution_start has 1025 characters; it"),
        ),
    ],
    ids=["path", "payload", "meta", "long path"],
)
async def test_a_start_that_is_too_large_fails_by_name(
    database: Database, event: dict[str, Any], error: tuple[str, str]
) -> None:
    """Others start and end. A replay does not read the refused payload either."""
    await register(database, STORY)
    await register(database, BYSTANDER, path="bystander")
    await send(database, **event)
    await start(database, "bystander")
    await drain(database)
    [(status, kind, message)] = await rows(database, ERROR)
    assert (status, kind, message[: len(error[1])]) == ("FAILED", *error)
    assert await inconsistencies(database) == {}


@pytest.mark.parametrize("event", [{"event_type": BIG}, {"name": BIG}], ids=["event_type", "node_name"])
async def test_a_very_long_event_type_or_name_is_cut(database: Database, event: dict[str, Any]) -> None:
    """A type of twenty million characters is unknown, and the node name of a start is ignored."""
    await register(database, STORY)
    await send(database, **event)
    await drain(database)
    await complete_jobs(database)
    await drain(database)
    outcomes = await rows(database, "select outcome from noetl.turn where execution_id = 77 order by turn")
    assert outcomes == ([("unknown_execution",)] if "event_type" in event else [("decided",), ("decided",)])


@pytest.mark.parametrize("workload", [{"k": 1}, None], ids=["below", "at the top"])
async def test_a_payload_with_too_many_keys_fails_by_name(database: Database, workload: dict[str, int] | None) -> None:
    """The keys of all mappings count. Others do not wait."""
    wide = {f"k{number}": number for number in range(100_001)}
    await register(database, STORY)
    await register(database, BYSTANDER, path="bystander")
    await send(database, workload=wide if workload is None else {**workload, "list": [wide]})
    await start(database, "bystander")
    await drain(database, rules=Rules(max_payload_keys=100_000))
    message = "the payload has more than 100000 keys; the limit max_payload_keys is 100000"
    assert await rows(database, ERROR) == [("FAILED", "max_payload_keys", message)]
    assert await inconsistencies(database) == {}


async def test_an_oversize_event_is_decided_without_its_large_parts(database: Database) -> None:
    """A cancel with a reason of 20 MB cancels; a completion with `meta` of that size completes."""
    await register(database, STORY)
    cancelled, completed = await start(database, count=2)
    await drain(database)
    cancel = (
        "insert into noetl.event (execution_id, event_type, context) values ($1, 'execution_cancel', $2::text::jsonb)"
    )
    await execute(database, cancel, cancelled, json.dumps({"reason": BIG}))
    await insert(database, completed, {"meta": json.dumps({"x": BIG}), "result": "1"})
    await drain(database)
    statuses = "select status, error ->> 'message' from noetl.execution order by execution_id"
    assert await rows(database, statuses) == [("CANCELLED", "cancelled"), ("COMPLETED", None)]
    assert await value(database, "select count(*) from noetl.turn where facts ? 'oversize'") == 2
    assert await inconsistencies(database) == {}

"""The broker inside a NoETL server: that server starts executions and keeps the queue, its worker runs the jobs."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import pytest

from noetl_broker.broker.model import JSON, Rules
from noetl_broker.playbook import Rules as PlaybookRules
from noetl_broker.playbook import compile_playbook
from noetl_broker.resources import playbooks_folder
from noetl_broker.store.catalog import register
from tests.brokers import drain, rows, running, until_ended, value
from tests.noetl import (
    OWNERS,
    STEP,
    NoETL,
    boom,
    ended,
    faults,
    log,
    overlook,
    run,
)
from tests.postgres import Database

# Examples without a worker that iterates, with a payload and what the execution must come to.
EXAMPLES: list[tuple[str, JSON, JSON]] = [
    ("conditional", {}, {"message": "Paris is 6 degrees too hot", "temperature": 31}),
    ("conditional", {"city": "Oslo"}, {"message": "nothing to report from Oslo", "temperature": 12}),
    (
        "fan_out_join",
        {"words": ["ab", "c"]},
        [{"upper": "AB", "length": 2, "reverse": "ba"}, {"upper": "C", "length": 1, "reverse": "c"}],
    ),
    ("diamond", {}, {"booked": 123, "handled": "automatically"}),
    ("diamond", {"amount": -1}, {"booked": 0, "handled": "not at all"}),
    ("loop", {"rounds": 4}, {"rounds": 4}),
    ("workbook", {}, ["Hello, Ada!", "Good morning, Grace!"]),
    ("start_and_end", {"text": "x y"}, {"count": 2}),
    ("error_handling", {}, {"reported": "division by zero"}),
    ("error_handling", {"divisor": 4}, {"quotient": 2.5}),
    (
        "iterator_playbook",
        {},
        {
            "invoice": [
                {"line": "1 satchel", "amount": 50},
                {"line": "2 pencil", "amount": 27},
                {"line": "3 ruler", "amount": 20},
            ],
            "total": 97,
        },
    ),
    ("distributed_iterator", {}, {"fahrenheit": [53.6, 63.5, None, 48.2], "failed": 1}),
    ("nested_child", {}, {"received": "a book", "rings": 2}),
]


@pytest.mark.parametrize(
    "lost", [(), ("action_completed",), ("action_started", "step_result", "action_retry")], ids=str
)
@pytest.mark.parametrize("owner", OWNERS)
async def test_whole_examples_run_through_that_server_and_worker(
    noetl: NoETL, empty_database: Database, owner: str, lost: Container[str]
) -> None:
    """With the results that they have with our own worker, whoever decides about retries and whatever is lost."""
    files = sorted(playbooks_folder().glob("*.yaml"))
    texts = [file.read_text(encoding="utf-8") for file in files]
    await register(noetl.connection, [(compile_playbook(text, rules=PlaybookRules()), text) for text in texts])
    noetl.lost = lost
    noetl.tasks["ring"] = rings_twice()
    started = {
        await noetl.start(number, path=f"examples/{name}", payload=payload): result
        for number, (name, payload, result) in enumerate(EXAMPLES, 1)
    }
    await run(noetl, empty_database, turns=200, rules=Rules(retry_owner=owner))
    found = await noetl.connection.fetch(
        "select execution_id, result from noetl.execution where parent_execution_id is null order by execution_id"
    )
    assert [row[1] for row in found] == list(started.values())
    assert await faults(noetl) == {}
    assert await value(empty_database, "select count(*) from noetl.ended_job") == 0


async def test_the_log_of_a_step_is_the_seeds(noetl: NoETL, empty_database: Database) -> None:
    """By the times without a zone that both write; `step_result` comes right after the answer."""
    await noetl.register(STEP)
    await noetl.start(9)
    noetl.tasks["a"] = lambda _: {"n": 1}
    await run(noetl, empty_database)
    assert await log(noetl) == [
        "execution_start", "step_started", "action_started", "action_completed", "step_result", "step_completed",
        "execution_complete",
    ]  # fmt: skip
    assert await ended(noetl) == [("COMPLETED", {"n": 1}, None)]


async def test_the_daemon_serves_while_that_worker_works(noetl: NoETL, empty_database: Database) -> None:
    """Its reaper decides on the row, after a grace of a second, whose event was lost with its result."""
    await noetl.register(STEP)
    noetl.tasks["a"] = lambda _: {"n": 1}
    noetl.lost = {"action_completed", "step_result"}
    await noetl.start(9)
    await drain(empty_database)
    assert await noetl.work() is not None
    async with running(empty_database, missing_event_seconds=1.0, reap_seconds=0.05):
        await until_ended(empty_database)
    assert await ended(noetl) == [("COMPLETED", None, None)]
    assert await faults(noetl) == {}


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/Lima"])
async def test_a_server_in_another_time_zone_is_no_trouble(noetl: NoETL, empty_database: Database, zone: str) -> None:
    """Its times without a zone are hours away from ours: turns are in order all the same, and nothing comes late."""
    await noetl.connection.execute(f"set timezone = '{zone}'")
    await noetl.register(STEP)
    noetl.tasks["a"] = lambda _: 1
    await noetl.start(9)
    await drain(empty_database)
    await noetl.work()
    assert await overlook(noetl) == 0
    await drain(empty_database)
    assert await ended(noetl) == [("COMPLETED", 1, None)]
    assert await faults(noetl) == {}


async def test_jobs_of_executions_from_before_are_that_servers(noetl: NoETL, empty_database: Database) -> None:
    """Nothing that it does with them is changed or kept."""
    await noetl.register(STEP)
    await noetl.connection.execute(
        """insert into noetl.queue (execution_id, catalog_id, node_id, action, status)
        select 5, c.catalog_id, '5:a', '{}', 'dead' from noetl.catalog c"""
    )
    for status in ("queued", "leased", "retry", "leased", "dead", "retry", "done"):
        await noetl.connection.execute("update noetl.queue set status = $1", status)
        assert await value(empty_database, "select status from noetl.queue") == status
    assert await value(empty_database, "select count(*) from noetl.ended_job") == 0


async def test_the_start_event_is_the_truth(noetl: NoETL, empty_database: Database) -> None:
    """Not the server's workload row; the parent that it names in `meta` is the parent."""
    await noetl.register(STEP.replace("code: x", 'code: x, args: {n: "{{ workload.n }}"}'))
    await noetl.start(8)
    await noetl.start(9, payload={"n": 7}, meta={"parent_execution_id": "8", "parent_step": "a"})
    noetl.tasks["a"] = lambda job: job.action["args"]["n"] if job.execution_id == 9 else None
    await noetl.connection.execute("update noetl.event set context = replace(context, '{}', '{\"n\": 1}')")
    await run(noetl, empty_database)
    found = "select workload, parent_execution_id, result from noetl.execution order by execution_id"
    assert await rows(empty_database, found) == [({"n": 1}, None, None), ({"n": 7}, 8, 7)]


async def test_ids_of_both_generators_mix(noetl: NoETL, empty_database: Database) -> None:
    """The server's are larger than ours by years: the order of the history is the order of its turns."""
    await noetl.register(STEP)
    noetl.tasks["a"] = lambda _: 1
    await noetl.start(9)
    await run(noetl, empty_database)
    by_id = await rows(empty_database, "select event_type from noetl.event order by event_id")
    assert [kind for (kind,) in by_id] != await log(noetl)
    assert await rows(
        empty_database,
        "select e.event_type from noetl.turn t join noetl.event e using (execution_id, event_id) order by t.turn",
    ) == [("execution_start",), ("action_completed",)]
    assert await faults(noetl) == {}


@pytest.mark.parametrize("name,payload,_", EXAMPLES)
async def test_no_event_of_the_brokers_gives_a_step_another_result(
    noetl: NoETL, empty_database: Database, name: str, payload: JSON, _: JSON
) -> None:
    """That server takes every result under a step's name for the step's: only what the step gave may stand there."""
    files = sorted(playbooks_folder().glob("*.yaml"))
    texts = [file.read_text(encoding="utf-8") for file in files]
    await register(noetl.connection, [(compile_playbook(text, rules=PlaybookRules()), text) for text in texts])
    noetl.tasks["ring"] = rings_twice()
    await noetl.start(9, path=f"examples/{name}", payload=payload)
    await run(noetl, empty_database)
    # node_type 'task' is the worker's; an iterator's own result is what its turn read
    foreign = """
        select e.event_type, e.node_name, e.result
        from noetl.event e
        join noetl.workflow w on w.execution_id = e.execution_id and w.step_name = e.node_name
        where e.node_type <> 'task'
          and coalesce(e.result, 'null') not in ('null', '{}')
          and e.event_id is distinct from w.result_event_id"""
    assert await rows(empty_database, foreign) == []


def rings_twice() -> Any:
    """What the step `ring` of an example says, whose first attempt fails."""
    rung = iter((1, 2))
    return lambda _: {"rows": [{"rings": 2}]} if next(rung) > 1 else boom("division by zero")

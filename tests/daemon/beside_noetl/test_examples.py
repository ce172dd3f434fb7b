"""The broker beside a NoETL server: that server starts executions and keeps the queue, its worker runs the jobs."""

from __future__ import annotations

from collections.abc import Container
from itertools import product
from typing import Any

import pytest

from noetl_broker.broker.model.rules import Rules
from noetl_broker.broker.model.values import JSON
from noetl_broker.playbook import PlaybookRules, compile_playbook
from noetl_broker.resources import playbooks_folder
from noetl_broker.store.admin.catalog import register
from tests.brokers import drain, rows, running, until_ended, value
from tests.chaos.sampling import LONG
from tests.noetl import (
    OWNERS,
    STEP,
    NoETL,
    ended,
    fail_task,
    log,
    reap_ended_jobs,
    run,
    verify_faults,
)
from tests.postgres import Database

# Examples in which no worker iterates, with a payload and the expected outcome.
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

# node_type 'task' is the worker's; an iterator's own result is the one that its turn read
FOREIGN = """
    select e.event_type, e.node_name, e.result
    from noetl.event e
    join noetl.workflow w on w.execution_id = e.execution_id and w.step_name = e.node_name
    where e.node_type <> 'task'
      and coalesce(e.result, 'null') not in ('null', '{}')
      and e.event_id is distinct from w.result_event_id"""


OTHERS = ("action_started", "step_result", "action_retry")
LOST: list[tuple[str, ...]] = [(), ("action_completed",), OTHERS]
SAMPLE = [("broker", LOST[1]), ("worker", OTHERS)]


@pytest.mark.parametrize("owner, lost", [*product(OWNERS, LOST)] if LONG else SAMPLE, ids=str)
async def test_examples_run_with_the_noetl_server_and_its_worker(
    noetl: NoETL, noetl_database: Database, owner: str, lost: Container[str]
) -> None:
    """Results equal those of our own worker, whoever owns retries and whichever answers are lost.

    That server uses every result under a step's name as the step's result: no event of the broker has such a result.
    """
    files = sorted(playbooks_folder().glob("*.yaml"))
    texts = [file.read_text(encoding="utf-8") for file in files]
    await register(noetl.connection, [(compile_playbook(text, rules=PlaybookRules()), text) for text in texts])
    noetl.lost = lost
    noetl.tasks["ring"] = answer_after_a_retry()
    started = {
        await noetl.start(number, path=f"examples/{name}", payload=payload): result
        for number, (name, payload, result) in enumerate(EXAMPLES, 1)
    }
    await run(noetl, noetl_database, turns=200, rules=Rules(retry_owner=owner))
    found = await noetl.connection.fetch(
        "select execution_id, result from noetl.execution where parent_execution_id is null order by execution_id"
    )
    assert [row[1] for row in found] == list(started.values())
    if "action_completed" not in lost:  # otherwise the broker writes that event in place of the worker
        assert await rows(noetl_database, FOREIGN) == []
    assert await verify_faults(noetl) == {}
    assert await value(noetl_database, "select count(*) from noetl.ended_job") == 0


async def test_the_events_of_a_step_are_those_of_the_seed(noetl: NoETL, noetl_database: Database) -> None:
    """In the order of the times without a zone; `step_result` comes right after the answer."""
    await noetl.register(STEP)
    await noetl.start(9)
    noetl.tasks["a"] = lambda _: {"n": 1}
    await run(noetl, noetl_database)
    assert await log(noetl) == [
        "execution_start", "step_started", "action_started", "action_completed", "step_result", "step_completed",
        "execution_complete",
    ]  # fmt: skip
    assert await ended(noetl) == [("COMPLETED", {"n": 1}, None)]


async def test_the_daemon_works_while_the_noetl_worker_works(noetl: NoETL, noetl_database: Database) -> None:
    """After a grace of a second its reaper decides a job whose event was lost, from its row."""
    await noetl.register(STEP)
    noetl.tasks["a"] = lambda _: {"n": 1}
    noetl.lost = {"action_completed", "step_result"}
    await noetl.start(9)
    await drain(noetl_database)
    assert await noetl.work() is not None
    async with running(noetl_database, missing_event_seconds=1.0, reap_seconds=0.05):
        await until_ended(noetl_database)
    assert await ended(noetl) == [("COMPLETED", None, None)]
    assert await verify_faults(noetl) == {}


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/Lima"])
async def test_a_noetl_server_in_another_time_zone_is_supported(
    noetl: NoETL, noetl_database: Database, zone: str
) -> None:
    """Its times without a zone differ by hours: turns stay in order, and no event counts as late."""
    await noetl.connection.execute(f"set timezone = '{zone}'")
    await noetl.register(STEP)
    noetl.tasks["a"] = lambda _: 1
    await noetl.start(9)
    await drain(noetl_database)
    await noetl.work()
    assert await reap_ended_jobs(noetl) == 0
    await drain(noetl_database)
    assert await ended(noetl) == [("COMPLETED", 1, None)]
    assert await verify_faults(noetl) == {}


async def test_jobs_of_earlier_executions_belong_to_the_noetl_server(noetl: NoETL, noetl_database: Database) -> None:
    """The broker neither changes nor records what happens to them."""
    await noetl.register(STEP)
    await noetl.connection.execute(
        """insert into noetl.queue (execution_id, catalog_id, node_id, action, status)
        select 5, c.catalog_id, '5:a', '{}', 'dead' from noetl.catalog c"""
    )
    for status in ("queued", "leased", "retry", "leased", "dead", "retry", "done"):
        await noetl.connection.execute("update noetl.queue set status = $1", status)
        assert await value(noetl_database, "select status from noetl.queue") == status
    assert await value(noetl_database, "select count(*) from noetl.ended_job") == 0


async def test_the_start_event_decides_the_payload_and_the_parent(noetl: NoETL, noetl_database: Database) -> None:
    """The workload row of the server does not."""
    await noetl.register(STEP.replace("code: x", 'code: x, args: {n: "{{ workload.n }}"}'))
    await noetl.start(8)
    await noetl.start(9, payload={"n": 7}, meta={"parent_execution_id": "8", "parent_step": "a"})
    noetl.tasks["a"] = lambda job: job.action["args"]["n"] if job.execution_id == 9 else None
    await noetl.connection.execute("update noetl.event set context = replace(context, '{}', '{\"n\": 1}')")
    await run(noetl, noetl_database)
    found = "select workload, parent_execution_id, result from noetl.execution order by execution_id"
    assert await rows(noetl_database, found) == [({"n": 1}, None, None), ({"n": 7}, 8, 7)]


async def test_ids_of_both_generators_are_ordered_by_turns(noetl: NoETL, noetl_database: Database) -> None:
    """The ids of the server are larger than ours by years."""
    await noetl.register(STEP)
    noetl.tasks["a"] = lambda _: 1
    await noetl.start(9)
    await run(noetl, noetl_database)
    by_id = await rows(noetl_database, "select event_type from noetl.event order by event_id")
    assert [kind for (kind,) in by_id] != await log(noetl)
    assert await rows(
        noetl_database,
        "select e.event_type from noetl.turn t join noetl.event e using (execution_id, event_id) order by t.turn",
    ) == [("execution_start",), ("action_completed",)]
    assert await verify_faults(noetl) == {}


def answer_after_a_retry() -> Any:
    """Answer the step `ring` of an example; its first attempt fails."""
    rung = iter((1, 2))
    return lambda _: {"rows": [{"rings": 2}]} if next(rung) > 1 else fail_task("division by zero")

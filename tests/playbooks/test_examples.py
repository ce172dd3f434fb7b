"""Every playbook in playbooks/ runs for real: through the daemon, the worker, and the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from noetl_broker.broker.model import JSON
from noetl_broker.playbook import Rules, check, compile_playbook
from noetl_broker.resources import playbooks_folder
from noetl_broker.store.catalog import register
from noetl_broker.store.pool import connect
from noetl_broker.worker import WorkerOptions, run_worker
from tests.brokers import execute, rows, running, start, until_ended, value
from tests.postgres import Database
from tests.settled import unsettled

FILES = sorted(playbooks_folder().glob("*.yaml"))

# Path, payload, and the result that the execution must have.
RUNS: list[tuple[str, JSON, JSON]] = [
    ("conditional", {}, {"message": "Paris is 6 degrees too hot", "temperature": 31}),
    ("conditional", {"city": "Oslo"}, {"message": "nothing to report from Oslo", "temperature": 12}),
    (
        "fan_out_join",
        {"words": ["ab", "c"]},
        [{"upper": "AB", "length": 2, "reverse": "ba"}, {"upper": "C", "length": 1, "reverse": "c"}],
    ),
    ("diamond", {}, {"booked": 123, "handled": "automatically"}),
    ("diamond", {"amount": 5000}, {"booked": 5000, "handled": "by hand"}),
    ("diamond", {"amount": -1}, {"booked": 0, "handled": "not at all"}),
    ("loop", {"rounds": 4}, {"rounds": 4}),
    ("workbook", {}, ["Hello, Ada!", "Good morning, Grace!"]),
    ("start_and_end", {"text": "x y"}, {"count": 2}),
    ("error_handling", {}, {"reported": "division by zero"}),
    ("error_handling", {"divisor": 4}, {"quotient": 2.5}),
    (
        "iterator",
        {},
        {
            "shouted": [{"word": "APPLE", "label": "1 of 2"}, {"word": "BANANA", "label": "2 of 2"}],
            "bought": ["apple for 2", None],
        },
    ),
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
    ("iterator_playbook", {"lines": []}, {"invoice": [], "total": 0}),
    ("distributed_iterator", {}, {"fahrenheit": [53.6, 63.5, None, 48.2], "failed": 1}),
    ("nested_child", {}, {"received": "a book", "rings": 2}),
    ("nested_iterator", {}, [[1, 2, 3, 4], [2, 4, 6, 8], [3, 6, 9, 12]]),
]
MORE = {"create_tables", "retry"}  # each has a test of its own


@asynccontextmanager
async def everything_running(database: Database) -> AsyncIterator[None]:
    """All playbooks registered, a daemon and a worker at work."""
    connection = await connect(database.dsn, name="test")
    try:
        texts = [file.read_text(encoding="utf-8") for file in FILES]
        await register(connection, [(compile_playbook(text, rules=Rules()), text) for text in texts])
    finally:
        await connection.close()
    stop = asyncio.Event()
    async with running(database):
        worker = asyncio.create_task(run_worker(WorkerOptions(dsn=database.dsn), stop))
        try:
            yield
        finally:
            stop.set()
            await worker


def test_every_example_is_without_a_finding() -> None:
    """Examples are what people copy: no error, and no warning either."""
    found = {file.name: check(file.read_bytes(), file=file.name, rules=Rules()) for file in FILES}
    assert {name: findings for name, findings in found.items() if findings} == {}


@pytest.mark.parametrize("name,payload,result", RUNS)
async def test_the_example_gives_its_result(database: Database, name: str, payload: JSON, result: JSON) -> None:
    """From its start to its end, with what its author meant it to answer."""
    async with everything_running(database):
        [started] = await start(database, f"examples/{name}", payload)
        await until_ended(database)
    ended = await rows(database, "select status, result, error from noetl.execution where execution_id = $1", started)
    assert ended == [("COMPLETED", result, None)]
    assert await unsettled(database) == {}


def test_every_example_runs_here() -> None:
    """By itself, or as the child of one that does."""
    playbooks = [compile_playbook(file.read_bytes(), rules=Rules()) for file in FILES]
    steps = [step for playbook in playbooks for step in playbook.steps.values()]
    tasks = [step if step.iteration is None else step.iteration.task for step in steps]
    children = {task.raw["path"] for task in tasks if task.call is not None}
    paths = {f"examples/{name}" for name in MORE.union(name for name, _, _ in RUNS)}
    assert {playbook.path for playbook in playbooks} == paths | children


async def test_create_tables_creates_them_and_leaves_the_log_of_the_seed(database: Database) -> None:
    """The contract: this sequence, read with the seed's own statement, and tables that are really there."""
    async with everything_running(database):
        await start(database, "examples/create_tables")
        await until_ended(database)
    steps = ["create_flat_table", "create_nested_table", "create_summary_table"]
    kinds = ["step_started", "action_started", "action_completed", "step_completed"]
    expected = [("execution_start", "create_tables")]
    expected += [(kind, step) for step in steps for kind in kinds]
    expected += [("execution_complete", "create_tables")]
    seed = """
        SELECT event_type, node_name
        FROM noetl.event
        WHERE execution_id = (
          SELECT execution_id FROM noetl.event
          ORDER BY created_at DESC LIMIT 1
        )
        ORDER BY created_at;"""
    assert await rows(database, seed) == expected
    assert await rows(database, "select name, rows from demo.summary order by name") == [("flat", 3), ("nested", 3)]
    assert await unsettled(database) == {}


async def test_retry_tries_until_it_succeeds(database: Database) -> None:
    """Two failures, two retries, then the third attempt completes."""
    async with everything_running(database):
        await start(database, "examples/retry")
        await until_ended(database)
    assert await value(database, "select status from noetl.execution") == "COMPLETED"
    counted = "select count(*) from noetl.event where event_type = $1 and node_name = 'unreliable'"
    assert [await value(database, counted, kind) for kind in ("action_failed", "action_retry", "step_completed")] == [
        2,
        2,
        1,
    ]
    assert await unsettled(database) == {}


async def test_two_versions_run_beside_each_other(database: Database) -> None:
    """An execution stays on the version that it started with, whatever is registered meanwhile."""
    head = "apiVersion: noetl.io/v1\nkind: Playbook\nmetadata: {name: v, path: v}\nworkflow:\n"
    steps = "- {step: start, next: a}\n- {step: a, type: python, code: x, next: end}\n- {step: end, result: VERSION}\n"
    for version in (1, 2):
        text = head + steps.replace("VERSION", str(version))
        await execute(
            database, "insert into noetl.catalog (path, version, content) values ('v', $1, $2)", version, text
        )
    await execute(database, "select noetl.start_execution('v', version => 1), noetl.start_execution('v')")
    async with running(database):
        done = 0
        while done < 2:
            done += await value(
                database,
                "select count(noetl.complete_job(queue_id, 'w', attempts)) from noetl.lease_jobs('w', 9)",
            )
        await until_ended(database)
    assert await rows(database, "select version, result from noetl.execution order by version") == [(1, 1), (2, 2)]

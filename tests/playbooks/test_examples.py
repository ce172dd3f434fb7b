"""Each playbook in playbooks/ runs with daemon, worker and database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from noetl_broker.broker.model.values import JSON
from noetl_broker.playbook import PlaybookRules, check, compile_playbook
from noetl_broker.resources import playbooks_folder
from noetl_broker.store.admin.catalog import register
from noetl_broker.store.connect.connection import connect
from noetl_broker.worker import WorkerOptions, run_worker
from tests.brokers import execute, rows, running, start, until, until_ended, value
from tests.consistency import inconsistencies
from tests.playbooks.outside import ACTS, PREPARE, act, needs_act, prepare
from tests.postgres import Database

FILES = sorted(playbooks_folder().glob("*.yaml"))

# Path, payload, and the result that the execution must have.
RUNS: list[tuple[str, JSON, JSON]] = [
    ("conditional", {}, {"message": "Paris is 6 degrees too hot", "temperature": 31}),
    (
        "fan_out_join",
        {"words": ["ab", "c"]},
        [{"upper": "AB", "length": 2, "reverse": "ba"}, {"upper": "C", "length": 1, "reverse": "c"}],
    ),
    ("diamond", {}, {"booked": 123, "handled": "automatically"}),
    ("loop", {"rounds": 4}, {"rounds": 4}),
    ("workbook", {}, ["Hello, Ada!", "Good morning, Grace!"]),
    ("start_and_end", {"text": "x y"}, {"count": 2}),
    ("error_handling", {}, {"reported": "division by zero"}),
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
    ("distributed_iterator", {}, {"fahrenheit": [53.6, 63.5, None, 48.2], "failed": 1}),
    (
        "nightly_report",
        {"schedule": {"name": "examples/nightly_report#nightly", "at": "2026-11-28T02:00:00+01:00"}},
        {"schedule": "examples/nightly_report#nightly", "message": "2026-11-27: 42 EUR"},
    ),
    (
        "nightly_import",
        {"schedule": {"name": "examples/nightly_import#nightly", "at": "2026-11-28T01:30:00+01:00"}},
        {"at": "2026-11-28T01:30:00+01:00", "loaded": 7},
    ),
    ("customer_jobs", {"amount": 5}, {"booked": 5}),
    ("rebuild_index", {}, {"documents": 3}),
    ("gpu_pool", {"epochs": 20}, 0.05),
    ("gpu_pool", {"epochs": 4}, 0.25),
    (
        "place_order",
        {"order": {"order_id": "", "total": -1}},
        {
            "booked": None,
            "refused": [
                {"path": "order_id", "message": "has 0 characters, the least is 1"},
                {"path": "total", "message": "is -1, the least is 0"},
            ],
        },
    ),
    ("ship_items", {}, [{"shipped": "2 x mug", "label": 7}, {"ordered": "1 x pen"}]),
    (
        "ten_calls_a_second",
        {"orders": [1, 2]},
        [{"order": 1, "paid": True}, {"order": 2, "paid": False}],
    ),
    ("watched_import", {}, {"imported": 3}),
    (
        "flaky_api",
        {},
        {
            "answers": [
                {"city": "Rome", "letters": 4},
                {"city": "Oslo", "letters": 4},
                {"city": "Bonn", "letters": 4},
                {"city": "Lima", "letters": 4},
            ],
            "lost": [2],
        },
    ),
    ("quarantine", {}, {"loaded": 42, "set_aside": [2]}),
    ("two_offers", {}, {"seller": "south", "price": 17}),
    ("order_approval", {}, {"shipped": True, "invoice": 114.0}),
    ("order_refund", {}, {"charge": "c-o-7", "shipped_to": "Main Street 1"}),
    ("order_by_hand", {}, "Main Street 1"),
    ("payment", {}, {"shipped": True, "paid": 30}),
    ("payment_or_three_days", {}, {"status": "shipped"}),
    ("reminder", {}, {"comes": True, "reminders": 1}),
    ("poll_until_ready", {"pause": 0.1}, {"asked": 3}),
    ("fan_out_deadline", {}, {"best": "south", "came": ["north", "south"]}),
    ("record_sale", {}, {"order_id": 42, "amount": 30}),
    ("import_orders", {}, {"day": "2026-11-27", "amount": 42}),
    ("nested_child", {}, {"received": "a book", "rings": 2}),
    ("nested_iterator", {}, [[1, 2, 3, 4], [2, 4, 6, 8], [3, 6, 9, 12]]),
]
MORE = {"create_tables", "retry"}  # these have their own tests
ON_FAILURE = {"alarm", "refund_by_hand"}  # these run when others fail, in tests of their own


@asynccontextmanager
async def everything_running(database: Database) -> AsyncIterator[None]:
    """Register all playbooks, but pause their schedules: it may be that time; run a daemon and a worker."""
    connection = await connect(database, name="test")
    try:
        texts = [file.read_text(encoding="utf-8") for file in FILES]
        await register(connection, [(compile_playbook(text, rules=PlaybookRules()), text) for text in texts])
    finally:
        await connection.close()
    await execute(database, "select noetl.pause_schedule(name) from noetl.start_schedule")
    stop, pools = asyncio.Event(), ("gpu", "default")
    options = WorkerOptions(dsn=database.dsn, schema=database.schema, pools=pools)
    async with running(database, sweep_seconds=0.2):  # it sees timers that a test moves
        worker = asyncio.create_task(run_worker(options, stop))
        try:
            yield
        finally:
            stop.set()
            await worker


def test_every_example_is_without_a_finding() -> None:
    """People copy examples: they have no errors and no warnings."""
    found = {file.name: check(file.read_bytes(), file=file.name, rules=PlaybookRules()) for file in FILES}
    assert {name: findings for name, findings in found.items() if findings} == {}


ENDED = "select status, result, error from noetl.execution where execution_id = $1"
ALONE = [run for run in RUNS if run[0] in ACTS or run[0] in PREPARE]  # the world outside knows one of them
TOGETHER = [run for run in RUNS if run not in ALONE]


async def test_each_example_gives_its_result(database: Database) -> None:
    """From start to end: one by one those that wait for the world outside, then the others beside each other."""
    started: dict[str, int] = {}
    async with everything_running(database):
        for name, payload, _ in ALONE:
            await prepare(database, name)
            [started[name]] = await start(database, f"examples/{name}", payload)
            if needs_act(name, payload):
                await act(database, name)
            await until_ended(database)
        for name, payload, _ in TOGETHER:
            [started[name]] = await start(database, f"examples/{name}", payload)
        await until_ended(database)
    ended = {name: (await rows(database, ENDED, execution_id))[0] for name, execution_id in started.items()}
    assert ended == {name: ("COMPLETED", result, None) for name, _, result in RUNS}
    assert await inconsistencies(database) == {}


def test_every_example_runs_here() -> None:
    """As itself, or as the child of another one."""
    playbooks = [compile_playbook(file.read_bytes(), rules=PlaybookRules()) for file in FILES]
    steps = [step for playbook in playbooks for step in playbook.steps.values()]
    tasks = [step if step.iteration is None else step.iteration.task for step in steps]
    children = {task.raw["path"] for task in tasks if task.call is not None and task.call.block is None}
    paths = {f"examples/{name}" for name in MORE.union(ON_FAILURE, (name for name, _, _ in RUNS))}
    assert {playbook.path for playbook in playbooks} == paths | children


async def test_a_failed_example_raises_its_alarm(database: Database) -> None:
    """With its args and what failed."""
    async with everything_running(database):
        await start(database, "examples/watched_import", {"rows": 0})
        await until_ended(database)
    ended = await rows(database, "select path, status, result ->> 'text' from noetl.execution order by execution_id")
    text = "examples/watched_import failed in load: 2026-11-27 is missing: the file has no rows"
    assert ended == [("examples/watched_import", "FAILED", None), ("examples/alarm", "COMPLETED", text)]
    assert await inconsistencies(database) == {}


async def test_a_failed_order_is_refunded_and_its_stock_released(database: Database) -> None:
    """The last success first, with what the actions returned and why the order failed."""
    async with everything_running(database):
        [order] = await start(database, "examples/order_refund", {"address": ""})
        [shipped] = await start(database, "examples/order_refund")
        await until_ended(database)
        assert await value(database, "select noetl.undo_execution($1)", shipped)
        await until(database, "select undo_status = 'undone' from noetl.execution where execution_id = $1", shipped)
    undone = """
        select event_type, node_name, result
        from noetl.event
        where execution_id = $1 and (event_type = 'compensation_completed' or node_name like '%!undo')
          and event_type not in ('action_started')
        order by created_at"""
    assert await rows(database, undone, order) == [
        ("action_completed", "charge!undo", {"refunded": 30, "charge": "c-o-7", "why": "the order has no address"}),
        ("compensation_completed", "charge", None),
        ("action_completed", "reserve!undo", {"released": "r-o-7"}),
        ("compensation_completed", "reserve", None),
    ]
    [(_, _, refund), _] = [one for one in await rows(database, undone, shipped) if one[2]]
    assert refund["why"] == "it is undone after it completed"
    ended = await rows(database, "select status from noetl.execution order by execution_id")
    assert ended == [("FAILED",), ("COMPLETED",)]
    assert await inconsistencies(database) == {}


async def test_a_person_decides_about_the_refund_of_a_failed_order(database: Database) -> None:
    """The order has failed once the refund is made."""
    async with everything_running(database):
        await start(database, "examples/order_by_hand", {"address": ""})
        await act(database, "order_by_hand")
        await until_ended(database)
    ended = await rows(database, "select path, status, result -> 'by' from noetl.execution order by execution_id")
    login = await value(database, "select 'login:' || session_user")
    assert ended == [("examples/order_by_hand", "FAILED", None), ("examples/refund_by_hand", "COMPLETED", login)]
    assert await rows(database, "select step, status from noetl.undo") == [("charge", "done")]
    assert await inconsistencies(database) == {}


async def test_create_tables_creates_them(database: Database) -> None:
    """tests/daemon/service/test_seed_check.py has the log of its events."""
    async with everything_running(database):
        await start(database, "examples/create_tables")
        await until_ended(database)
    assert await rows(database, "select name, rows from demo.summary order by name") == [("flat", 3), ("nested", 3)]
    assert await inconsistencies(database) == {}


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
    assert await inconsistencies(database) == {}


async def test_two_versions_run_beside_each_other(database: Database) -> None:
    """An execution keeps the version that it started with; later registered versions do not change it."""
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

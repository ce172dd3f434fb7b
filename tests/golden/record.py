"""`make golden`: runs examples on a database, one job after the other, and records their histories."""

from __future__ import annotations

import asyncio

import pytest

from noetl_broker.broker.model.values import JSON
from noetl_broker.history.replay import replay_history
from noetl_broker.playbook import PlaybookRules, compile_playbook
from noetl_broker.store.admin.catalog import register
from noetl_broker.store.admin.history import load_history
from noetl_broker.store.connect.connection import connect
from noetl_broker.worker import WorkerOptions, run_worker
from tests.brokers import drain, execute, rows, running, start, until_ended
from tests.golden_histories import PAUSED, RECORDED, as_document, examples, write
from tests.playbooks.outside import act, needs_act, prepare
from tests.postgres import Database


@pytest.mark.parametrize("name,payload", RECORDED.items())
async def test_the_history_is_written_down(database: Database, name: str, payload: JSON) -> None:
    """Run an example on a database and record it; a replay must find no difference."""
    connection = await connect(database, name="test")
    try:
        texts = examples()
        await register(connection, [(compile_playbook(text, rules=PlaybookRules()), text) for text in texts.values()])
        await prepare(database, name)
        await _run(database, name, payload)
        ids = await rows(database, "select execution_id from noetl.execution order by execution_id")
        histories = [await load_history(connection, execution_id, PlaybookRules()) for (execution_id,) in ids]
    finally:
        await connection.close()
    for history in histories:
        assert replay_history(history)[1] == []
    write(name, as_document(histories, texts))


async def _run(database: Database, name: str, payload: JSON) -> None:
    """Run with one lane and one job at a time, so that the order of events is always the same.

    The example `PAUSED` is paused after its first turn, and resumed after one job has ended.
    """
    path = f"examples/{name}"
    stop = asyncio.Event()
    if name == PAUSED:
        (execution_id,) = await start(database, path, payload)
        await drain(database)
        leased = await rows(database, "select queue_id, attempts from noetl.lease_jobs('w', 1)")
        await execute(database, "select noetl.pause_execution($1, 'a fix')", execution_id)
        await drain(database)
        await execute(database, 'select noetl.complete_job($1, \'w\', $2, \'["ALPHA", "BETA", "GAMMA"]\')', *leased[0])
        await drain(database)
        await execute(database, "select noetl.resume_execution($1)", execution_id)
    async with running(database, lanes=1):
        worker = asyncio.create_task(
            run_worker(WorkerOptions(dsn=database.dsn, schema=database.schema, concurrency=1), stop)
        )
        try:
            if name != PAUSED:
                await start(database, path, payload)
            if needs_act(name, payload):
                await act(database, name)
            await until_ended(database)
        finally:
            stop.set()
            await worker

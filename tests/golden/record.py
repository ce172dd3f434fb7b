"""Records the golden histories: every example runs for real, one job after the other; `make golden` asks for it."""

from __future__ import annotations

import asyncio

import pytest

from noetl_broker.broker.model import JSON
from noetl_broker.broker.replay import compare_end, retake
from noetl_broker.playbook import Rules, compile_playbook
from noetl_broker.store.catalog import register
from noetl_broker.store.history import load_history
from noetl_broker.store.pool import connect
from noetl_broker.worker import WorkerOptions, run_worker
from tests.brokers import rows, running, start, until_ended
from tests.postgres import Database
from tests.recording import as_document, examples, runs, write


@pytest.mark.parametrize("file,path,payload", runs())
async def test_the_history_is_written_down(database: Database, file: str, path: str, payload: JSON) -> None:
    """As it was on a database; a replay of that finds no difference."""
    connection = await connect(database.dsn, name="test")
    try:
        texts = examples()
        await register(connection, [(compile_playbook(text, rules=Rules()), text) for text in texts.values()])
        await _run(database, path, payload)
        ids = await rows(database, "select execution_id from noetl.execution order by execution_id")
        histories = [await load_history(connection, execution_id, Rules()) for (execution_id,) in ids]
    finally:
        await connection.close()
    for history in histories:
        taken = [*retake(history)]
        assert [text for turn in taken for text in turn.differences] + compare_end(history, taken) == []
    write(file, as_document(histories, texts))


async def _run(database: Database, path: str, payload: JSON) -> None:
    """One lane, one job at a time: so that the order of the events is the same another time."""
    stop = asyncio.Event()
    async with running(database, lanes=1):
        worker = asyncio.create_task(run_worker(WorkerOptions(dsn=database.dsn, concurrency=1), stop))
        try:
            await start(database, path, payload)
            await until_ended(database)
        finally:
            stop.set()
            await worker

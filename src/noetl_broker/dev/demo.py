"""What `demo` shows: two playbooks run, with a broker and a worker in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from noetl_broker.broker.state.state import is_live
from noetl_broker.daemon.service import Service, ServiceOptions
from noetl_broker.errors import BrokerError
from noetl_broker.explain.error_text import failure_text
from noetl_broker.playbook import PlaybookRules, compile_playbook
from noetl_broker.resources import playbooks_folder
from noetl_broker.store.admin import catalog, executions
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.connect.dsn import Database
from noetl_broker.store.connect.migrations import migrate
from noetl_broker.store.connect.session import session
from noetl_broker.text import short_json
from noetl_broker.worker import WorkerOptions, run_worker

FIRST, SECOND = "examples/create_tables", "examples/conditional"
LONGEST_SECONDS: Final = 25.0
POLL_SECONDS: Final = 0.05
TYPE_WIDTH: Final = 18  # of the column of event types

Say = Callable[[str], None]


async def run_demo(broker: ServiceOptions, worker: WorkerOptions, rules: PlaybookRules, say: Say) -> dict[str, Any]:
    """Run broker, worker and show together; if one ends, all end. `say` prints a text; the document has the rest."""
    applied = await migrate(broker.database)
    say(f"migrated: {len(applied)} files applied" if applied else "migrated: nothing to do")
    stopping = asyncio.Event()
    show = asyncio.create_task(_show(broker.database, rules, say), name="the show")
    servers = {
        asyncio.create_task(Service(broker, stopping).run(), name="the broker"),
        asyncio.create_task(run_worker(worker, stopping), name="the worker"),
    }
    try:
        done, _ = await asyncio.wait(
            {show, *servers}, timeout=LONGEST_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )  # fmt: skip
        for task in done - {show}:
            task.result()  # raises its own fault
            raise BrokerError(f"{task.get_name()} ended before the show did")
        if not done:
            raise BrokerError(f"the demo did not finish within {LONGEST_SECONDS:.0f} s; --debug shows what happened")
        return show.result()
    finally:
        show.cancel()
        stopping.set()
        await asyncio.gather(show, *servers, return_exceptions=True)


async def _show(database: Database, rules: PlaybookRules, say: Say) -> dict[str, Any]:
    """The two executions, the log of the first, and the tables that it made."""
    async with session(database, name="demo") as connection:
        registered = await catalog.register(connection, _examples(rules))
        say(f"registered {len(registered)} playbooks: {', '.join(entry.path for entry in registered)}")

        say(f"\n{FIRST}: each step is a job for the worker, each event a row that the broker decides on\n")
        first = await _execute(connection, FIRST)
        log = await executions.log_of_latest_execution(connection)
        for event_type, node_name in log:
            say(f"{event_type:<{TYPE_WIDTH}} | {node_name}")
        tables = await executions.list_user_tables(connection)
        say("\nIts tables:\n")
        for table in tables:
            say(f"  {table['schema']}.{table['name']}: {table['rows']} rows")

        say(f"\n{SECOND}: a condition on a result chooses the next step\n")
        second = await _execute(connection, SECOND)
        for line in _path_taken(await executions.list_events(connection, second["execution_id"]), second):
            say(f"  {line}")
        say(f"  result: {short_json(second['result'])}")
    return {"log": log, "tables": tables, "first": first, "second": second}


def _examples(rules: PlaybookRules) -> list[tuple[Any, str]]:
    files = sorted(playbooks_folder().glob("*.yaml"))
    texts = [(file, file.read_text(encoding="utf-8")) for file in files]
    return [(compile_playbook(text, file=file.name, rules=rules), text) for file, text in texts]


async def _execute(connection: Connection, path: str) -> dict[str, Any]:
    """Run a playbook to its end; raises BrokerError if it does not complete."""
    started = await executions.start_execution(connection, path, "{}", version=None, idempotency_key=None)
    while is_live((found := await executions.load_execution_details(connection, started))["status"]):  # noqa: ASYNC110 - rows
        await asyncio.sleep(POLL_SECONDS)
    if found["status"] != "COMPLETED":
        raise BrokerError(f"the demo's execution of {path} {failure_text(found['status'], found['error'])}")
    return found


def _path_taken(events: list[dict[str, Any]], found: dict[str, Any]) -> list[str]:
    """Give the steps that ran, in order, with the conditions that chose them, then the steps that did not run."""
    lines = []
    for event in events:
        if event["event_type"] == "step_started":
            lines.append(f"{event['node_name']} runs")
        elif event["event_type"] == "step_completed":
            lines += [f"  {_outcome(condition)}" for condition in event["meta"].get("next", ())]
    idle = [step["step"] for step in found["steps"] if step["status"] == "PENDING"]
    return [*lines, f"not taken: {', '.join(idle)}"] if idle else lines


def _outcome(condition: dict[str, Any]) -> str:
    leads = f", on to {', '.join(condition['to'])}" if condition["to"] else ""
    return f"{condition['when']} is {short_json(condition['outcome'])}{leads}"

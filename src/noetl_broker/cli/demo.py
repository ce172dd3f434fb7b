"""The command `demo`: a Postgres of its own, a broker and a worker in this process, two playbooks."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from noetl_broker import embedded_postgres
from noetl_broker.cli import output
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.run import service_options
from noetl_broker.cli.start import no_output
from noetl_broker.cli.tail import follow_to_end
from noetl_broker.daemon.process_signals import exit_at_signal
from noetl_broker.daemon.service import Service
from noetl_broker.dev.places import is_on_path, own_script, shown_path
from noetl_broker.errors import BrokerError, OperatorFault
from noetl_broker.explain.error_text import failure_text
from noetl_broker.playbook import compile_playbook
from noetl_broker.resources import playbooks_folder
from noetl_broker.store.admin import catalog, executions
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.connect.lasting_session import LastingSession
from noetl_broker.store.connect.migrations import migrate
from noetl_broker.store.connect.session import session
from noetl_broker.worker import WorkerOptions, run_worker

FOLDER = Path(".demo")
FIRST, SECOND = "examples/create_tables", "examples/conditional"
# The data need not survive a crash of the machine.
POSTGRES = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
LONGEST_SECONDS = 25.0
TYPE_WIDTH = 18  # of the column of event types

NEXT_STEPS = """\
What to try next, with a Postgres of yours (a database that you may write to):

{activate}  export NOETL_BROKER_DSN=postgresql://user:password@localhost/database
  noetl-broker migrate
  noetl-broker register {playbooks}/*.yaml
  noetl-broker run &
  noetl-broker worker &
  noetl-broker start examples/conditional --payload '{{"city": "Oslo"}}' --wait
  noetl-broker executions

  noetl-broker --help   all commands
  noetl-broker validate FILE   what is wrong with a playbook, without a database"""


@command("demo", example="noetl-broker demo", own_database=True)
def demo(call: Call) -> None:
    """Run a demo: a Postgres of its own, a broker, a worker, two playbooks.

    All data is in the folder .demo of the current folder. At the end, everything is stopped.
    """
    if call.given_dsns:
        raise OperatorFault("the demo starts a Postgres of its own: leave --dsn out")
    began = time.monotonic()
    try:
        postgres = embedded_postgres.start(FOLDER, settings=POSTGRES)
    except OSError as error:
        raise OperatorFault(
            f"the demo cannot write to {FOLDER.absolute()}: {error}; run it in another folder"
        ) from error
    with postgres, exit_at_signal():
        if postgres.notice:
            output.note(postgres.notice)
        call.say(f"Postgres started in {shown_path(postgres.folder)} ({output.span(time.monotonic() - began)})")
        # No TLS on our own machine: the driver would read certificates in a home folder of another user.
        shown = asyncio.run(_show_all(call.at(f"{postgres.dsn()}?sslmode=disable")))
    if not call.printed(shown):
        call.say(f"\nStopped everything; it took {output.span(time.monotonic() - began)}.\n")
        call.say(NEXT_STEPS.format(playbooks=shown_path(playbooks_folder()), activate=_activation()))


def _activation() -> str:
    """Give the line that puts the program on the PATH, if a shell would not find it."""
    script = own_script("activate")
    return "" if is_on_path() or script is None else f"  . {shown_path(script)}\n"


async def _show_all(call: Call) -> dict[str, Any]:
    """Run broker, worker and show together; if one ends, all end."""
    applied = await migrate(call.database)
    call.say(f"migrated: {len(applied)} files applied" if applied else "migrated: nothing to do")
    service, stop_worker = Service(replace(service_options(call), warn_of_superuser=False)), asyncio.Event()
    options = WorkerOptions(
        dsn=call.database.dsn, schema=call.database.schema, concurrency=4, drain_seconds=2.0, poll_min_seconds=0.02
    )
    show = asyncio.create_task(_show(call), name="the show")
    servers = {
        asyncio.create_task(service.run(), name="the broker"),
        asyncio.create_task(run_worker(options, stop_worker), name="the worker"),
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
        service.stopping.set()
        stop_worker.set()
        await asyncio.gather(show, *servers, return_exceptions=True)


async def _show(call: Call) -> dict[str, Any]:
    """The two executions, the log of the first, and the tables that it made."""
    async with session(call.database, name="demo") as connection:
        registered = await catalog.register(connection, _examples(call))
        call.say(f"registered {len(registered)} playbooks: {', '.join(entry.path for entry in registered)}")

        call.say(f"\n{FIRST}: each step is a job for the worker, each event a row that the broker decides on\n")
        first = await _execute(call, connection, FIRST)
        log = await executions.log_of_latest_execution(connection)
        for event_type, node_name in log:
            call.say(f"{event_type:<{TYPE_WIDTH}} | {node_name}")
        tables = await executions.list_user_tables(connection)
        call.say("\nIts tables:\n")
        for table in tables:
            call.say(f"  {table['schema']}.{table['name']}: {table['rows']} rows")

        call.say(f"\n{SECOND}: a condition on a result chooses the next step\n")
        second = await _execute(call, connection, SECOND)
        for line in _path_taken(await executions.list_events(connection, second["execution_id"]), second):
            call.say(f"  {line}")
        call.say(f"  result: {output.compact_json(second['result'])}")
    return {"log": log, "tables": tables, "first": first, "second": second}


def _examples(call: Call) -> list[tuple[Any, str]]:
    files = sorted(playbooks_folder().glob("*.yaml"))
    texts = [(file, file.read_text(encoding="utf-8")) for file in files]
    return [(compile_playbook(text, file=file.name, rules=call.playbook_rules), text) for file, text in texts]


async def _execute(call: Call, connection: Connection, path: str) -> dict[str, Any]:
    """Run a playbook to its end; raises BrokerError if it does not complete."""
    started = await executions.start_execution(connection, path, "{}", version=None, idempotency_key=None)
    async with LastingSession(call.database, name="demo", say=no_output) as source:
        ended = await follow_to_end(source, started, show_line=no_output)
    if ended["status"] != "COMPLETED":
        raise BrokerError(f"the demo's execution of {path} {failure_text(ended['status'], ended['error'])}")
    return await executions.load_execution_details(connection, started)


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
    return f"{condition['when']} is {output.compact_json(condition['outcome'])}{leads}"

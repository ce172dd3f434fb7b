"""The command `demo`: a Postgres of its own, broker and worker in this process, two playbooks, nothing left over."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from noetl_broker.cli import output
from noetl_broker.cli.follow import follow_to_end
from noetl_broker.cli.frame import Call, command
from noetl_broker.cli.requests import what_went_wrong
from noetl_broker.cli.run import service_options
from noetl_broker.cli.serving import exit_at_signal
from noetl_broker.daemon.service import Service
from noetl_broker.errors import BrokerError, OperatorFault
from noetl_broker.playbook import compile_playbook
from noetl_broker.resources import playbooks_folder
from noetl_broker.store import catalog, embedded, executions
from noetl_broker.store.migrate import migrate
from noetl_broker.store.pool import Connection
from noetl_broker.store.session import session
from noetl_broker.worker import WorkerOptions, run_worker

FOLDER = Path(".demo")
FIRST, SECOND = "examples/create_tables", "examples/conditional"
# Nothing in it must survive a crash of the machine.
POSTGRES = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
LONGEST_SECONDS = 25.0
TYPE_WIDTH = 18  # of the event types in the log, as the broker's first description prints it

NEXT_STEPS = """\
What to try next, with a Postgres of yours (a database that you may write to):

  export NOETL_BROKER_DSN=postgresql://user:password@localhost/database
  noetl-broker migrate
  noetl-broker register {playbooks}/*.yaml
  noetl-broker run &
  noetl-broker worker &
  noetl-broker start examples/conditional --payload '{{"city": "Oslo"}}' --wait
  noetl-broker executions

  noetl-broker --help   all commands
  noetl-broker validate FILE   what is wrong with a playbook, without a database"""


class Shown(NamedTuple):
    """What the demo has to show: the two executions as `status` shows them, the first one's log, the tables it made."""

    log: list[tuple[str, str]]
    tables: list[dict[str, Any]]
    first: dict[str, Any]
    second: dict[str, Any]


@command("demo", example="noetl-broker demo")
def demo(call: Call) -> None:
    """Show it all at work: a Postgres of its own, a broker, a worker, two playbooks.

    Everything stands in the folder .demo below the current one, and nothing is left running.
    """
    if call.given_dsns:
        raise OperatorFault("the demo starts a Postgres of its own: leave --dsn out")
    tell: Callable[[str], None] = _stay_silent if call.as_json else output.show_text
    began = time.monotonic()
    try:
        postgres = embedded.start(FOLDER, settings=POSTGRES)
    except OSError as error:
        raise OperatorFault(
            f"the demo cannot write to {FOLDER.absolute()}: {error}; run it in another folder"
        ) from error
    with postgres, exit_at_signal():
        if postgres.notice:
            output.note(postgres.notice)
        tell(f"Postgres started in {_shown_path(postgres.folder)} ({output.span(time.monotonic() - began)})")
        # On our own machine without TLS: the driver would look for certificates in a home that may be somebody else's.
        shown = asyncio.run(_show_all(replace(call, dsn=f"{postgres.dsn()}?sslmode=disable"), tell))
    if call.as_json:
        output.show_json(shown._asdict())
    else:
        tell(f"\nStopped everything; it took {output.span(time.monotonic() - began)}.\n")
        tell(NEXT_STEPS.format(playbooks=_shown_path(playbooks_folder())))


def _stay_silent(_line: str) -> None:
    """Programs get one document at the end."""


def _shown_path(folder: Path) -> str:
    """Give a path as short as it can be said from here."""
    with contextlib.suppress(ValueError):
        return str(folder.absolute().relative_to(Path.cwd()))
    return str(folder)


async def _show_all(call: Call, tell: Callable[[str], None]) -> Shown:
    """Run broker and worker beside the show; the first that ends, ends all three."""
    applied = await migrate(call.dsn)
    tell(f"migrated: {len(applied)} files applied" if applied else "migrated: nothing to do")
    service, stop_worker = Service(replace(service_options(call), warn_of_superuser=False)), asyncio.Event()
    options = WorkerOptions(dsn=call.dsn, concurrency=4, drain_seconds=2.0, poll_min_seconds=0.02)
    show = asyncio.create_task(_show(call, tell), name="the show")
    servers = {
        asyncio.create_task(service.run(), name="the broker"),
        asyncio.create_task(run_worker(options, stop_worker), name="the worker"),
    }
    try:
        done, _ = await asyncio.wait(
            {show, *servers}, timeout=LONGEST_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )  # fmt: skip
        for task in done - {show}:
            task.result()  # its own fault says most
            raise BrokerError(f"{task.get_name()} ended before the show did")
        if not done:
            raise BrokerError(f"the demo did not finish within {LONGEST_SECONDS:.0f} s; --debug shows what happened")
        return show.result()
    finally:
        show.cancel()
        service.stopping.set()
        stop_worker.set()
        await asyncio.gather(show, *servers, return_exceptions=True)


async def _show(call: Call, tell: Callable[[str], None]) -> Shown:
    async with session(call.dsn, name="demo") as connection:
        registered = await catalog.register(connection, _examples(call))
        tell(f"registered {len(registered)} playbooks: {', '.join(entry.path for entry in registered)}")

        tell(f"\n{FIRST}: each step is a job for the worker, each event a row that the broker decides on\n")
        first = await _execute(connection, FIRST)
        log = await executions.log_of_latest_execution(connection)
        for event_type, node_name in log:
            tell(f"{event_type:<{TYPE_WIDTH}} | {node_name}")
        tables = await executions.list_user_tables(connection)
        tell("\nThe tables that it made:\n")
        for table in tables:
            tell(f"  {table['schema']}.{table['name']}: {table['rows']} rows")

        tell(f"\n{SECOND}: a condition on a result chooses the way\n")
        second = await _execute(connection, SECOND)
        for line in _path_taken(await executions.list_events(connection, second["execution_id"]), second):
            tell(f"  {line}")
        tell(f"  result: {output.compact_json(second['result'])}")
    return Shown(log, tables, first, second)


def _examples(call: Call) -> list[tuple[Any, str]]:
    files = sorted(playbooks_folder().glob("*.yaml"))
    texts = [(file, file.read_text(encoding="utf-8")) for file in files]
    return [(compile_playbook(text, file=file.name, rules=call.playbook_rules), text) for file, text in texts]


async def _execute(connection: Connection, path: str) -> dict[str, Any]:
    """Run a playbook to its end; raises BrokerError where it does not complete."""
    started = await executions.start_execution(connection, path, "{}", version=None, idempotency_key=None)
    ended = await follow_to_end(connection, started, tell=_stay_silent)
    if ended["status"] != "COMPLETED":
        raise BrokerError(f"the demo's execution of {path} {what_went_wrong(ended['status'], ended['error'])}")
    return await executions.look_into(connection, started)


def _path_taken(events: list[dict[str, Any]], found: dict[str, Any]) -> list[str]:
    """Say in order which steps ran and which conditions chose them, then which steps did not run."""
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

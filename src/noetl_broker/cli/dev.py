"""The command `dev`: a Postgres of the folder's own, its playbooks registered, broker, worker and console."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from noetl_broker import logs
from noetl_broker.cli import output
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.console import console_modules
from noetl_broker.cli.run import service_options
from noetl_broker.cli.worker import worker_options
from noetl_broker.daemon.process_signals import exit_at_signal, serve
from noetl_broker.daemon.service import Service
from noetl_broker.dev.console import console_token, open_console
from noetl_broker.dev.database import start_database
from noetl_broker.dev.next_steps import first_playbook, next_steps
from noetl_broker.dev.places import shown_path
from noetl_broker.dev.registrar import Registrar, Registrations
from noetl_broker.dev.watch import keep_watching
from noetl_broker.dev_folder import PLACES, DevFolder
from noetl_broker.embedded_postgres import EmbeddedPostgres
from noetl_broker.errors import BrokerError, OperatorFault, SchemaFault
from noetl_broker.settings import PREFIX
from noetl_broker.store.connect.migrations import migrate
from noetl_broker.tasks import wait_for
from noetl_broker.worker import run_worker

STOP_SECONDS = 8.0
JOB_SECONDS = 2.0  # of these, for the jobs that run
POLL_SECONDS = 0.5  # between two checks whether Postgres runs
MOST_LISTED = 5


@command(
    "dev",
    example="noetl-broker dev\nnoetl-broker dev playbooks --home .\nnoetl-broker dev --fresh",
    serves=True,
    own_database=True,
)
@click.argument("folder", required=False, default=".", type=click.Path(path_type=Path))
@click.option(
    "--home", type=click.Path(path_type=Path), metavar="DIR", help="The folder to keep .noetl/ in; default: FOLDER."
)
@click.option("--fresh", is_flag=True, help="Begin without the data of earlier runs: they are removed.")
def dev(call: Call, *, folder: Path, home: Path | None, fresh: bool) -> None:
    """Run all that a folder of playbooks needs: Postgres, broker, worker, console.

    Registers the playbooks of FOLDER (default: the current one) and its subfolders, and again when a file changes.
    Data are kept in .noetl/ between runs. Other commands find the database there, from their folder upward. Ctrl-C
    stops everything. --json prints the places as one document when everything runs.
    """
    if call.given_dsns:
        raise OperatorFault("dev starts a Postgres of its own: leave --dsn out")
    if not folder.is_dir():
        raise OperatorFault(f"there is no folder {folder}: name the folder of your playbooks")
    explicit = "log_level" in call.settings.model_fields_set
    level = "debug" if call.debug else call.settings.log_level if explicit else "warning"
    logs.configure(level=level, form=call.settings.log_format)
    place, began = DevFolder((home or folder).resolve()), time.monotonic()
    with place.locked(), exit_at_signal(), start_database(place, fresh=fresh) as postgres:
        if postgres.notice:
            output.note(postgres.notice)
        # No TLS on our own machine: the driver would read certificates in a home folder of another user.
        dsn = f"{postgres.dsn()}?sslmode=disable"
        place.write_dsn(dsn)
        call.say(
            f"Postgres runs, its data are in {shown_path(postgres.folder)} ({output.span(time.monotonic() - began)})"
        )
        asyncio.run(Dev(call.at(dsn), folder.resolve(), place, postgres).run())
        call.say("Stopping.")
    call.say("Stopped everything.")


@dataclass(slots=True)
class Dev:
    """Broker, worker, console and watcher of one folder; if one ends, all end."""

    call: Call
    folder: Path
    place: DevFolder
    postgres: EmbeddedPostgres
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    broker_ready: asyncio.Event = field(default_factory=asyncio.Event)
    console_ready: asyncio.Event = field(default_factory=asyncio.Event)
    url: str | None = None  # of the console, once it answers
    token: str | None = None  # that its address has: other accounts of this machine reach the port, too

    async def run(self) -> None:
        """Run until a signal. Raises the fault of a part that ended."""
        try:
            await migrate(self.call.database)
        except SchemaFault as fault:
            raise SchemaFault(f"{fault}; or begin without the data of earlier runs: dev --fresh") from fault
        options = replace(service_options(self.call), warn_of_superuser=False)
        parts: dict[str, Coroutine[Any, Any, Any]] = {
            "the broker": Service(options, self.stopping, on_ready=self.broker_ready.set).run(),
            "the worker": run_worker(worker_options(self.call, drain_seconds=JOB_SECONDS), self.stopping),
            "the console": self._serve_console(),
            "the watcher": self._keep_registering(),
            "Postgres": self._watch_postgres(),
        }
        tasks = {asyncio.create_task(part, name=name) for name, part in parts.items()}
        await serve(self._until_one_ends(tasks), self.stopping, drain_seconds=STOP_SECONDS)

    async def _until_one_ends(self, tasks: set[asyncio.Task[Any]]) -> None:
        done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        was_asked, faults = self.stopping.is_set(), [task.exception() for task in done]
        self.stopping.set()
        if others:
            await asyncio.wait(others)
        for fault in filter(None, faults):
            raise fault
        if not was_asked:
            raise BrokerError(f"{', '.join(sorted(task.get_name() for task in done))} ended: start dev again")

    async def _serve_console(self) -> None:
        """Serve the console; without its packages, say what to install."""
        try:
            app, server = await asyncio.to_thread(console_modules)
        except OperatorFault as fault:
            output.note(str(fault))
            self.console_ready.set()
            await self.stopping.wait()
            return
        settings = self.call.settings
        is_set = "console_port" in settings.model_fields_set
        opened = open_console(self.place, server.open_socket, settings.console_port, output.note, is_set=is_set)
        options = app.ConsoleOptions(
            database=self.call.database,
            playbook_rules=self.call.playbook_rules,
            tokens_demanded=True,
            signs_in_by_address=True,
        )
        self.token = await console_token(self.call.database, self.place)
        async with server.serving(app.create_app(options), opened):
            self.url = server.url_of(opened)
            self.console_ready.set()
            await self.stopping.wait()

    async def _watch_postgres(self) -> None:
        while self.postgres.running and not self.stopping.is_set():
            await wait_for(self.stopping, POLL_SECONDS)
        if not self.stopping.is_set():
            log = shown_path(self.postgres.folder / "postgres.log")
            raise BrokerError(f"Postgres ended; {log} says why; start dev again")

    async def _keep_registering(self) -> None:
        registrar, playbooks = Registrar(self.call.database, self.call.registration_rules()), 0
        first = True
        async for changes in keep_watching(self.folder, self.stopping, registrar.files_with_new_types):
            report = await registrar.register(changes)
            for line in report.lines:
                self._show_problem(line)
            if first:
                await self._show_start(report)
            else:
                self._show_changes(report, ask_to_try=not playbooks)
            first, playbooks = False, playbooks + len(report.registered)

    async def _show_start(self, report: Registrations) -> None:
        new = sum(entry.new for _, entry, _ in report.registered)
        named = ", ".join(entry.path for _, entry, _ in report.registered[:MOST_LISTED])
        more = ", …" if len(report.registered) > MOST_LISTED else ""
        if report.registered:
            count = len(report.registered)
            self.call.say(f"{count} playbook{'s' * (count != 1)} registered ({new} new): {named}{more}")
        if report.refused:
            self.call.say(f"not registered: {', '.join(map(shown_path, report.refused))}")
        await self.broker_ready.wait()
        await self.console_ready.wait()
        self._show_places()
        playbooks = [playbook for _, _, playbook in report.registered]
        if playbooks:
            self.call.say(next_steps(playbooks, self.place))
        elif not report.refused and not report.kept:
            self.call.say(first_playbook(self.folder))
        self.call.say("Edit a playbook, and it is registered when you save it.")
        self.call.say(f"Ctrl-C or kill -TERM {os.getpid()} stops everything.")

    def _show_places(self) -> None:
        dsn = self.call.database.dsn
        if self.call.as_json:
            places = {"console": self.url, "token": self.token, "dsn": dsn}
            output.show_json({**places, "folder": str(self.folder), "home": str(self.place.path)})
        console = "" if self.url is None else f"  console   {self.url}/?token={self.token}\n"
        self.call.say(f"\nBroker and worker run.\n{console}  database  {dsn}\n")
        for name in (f"{PREFIX}DSN", f"{PREFIX}DSN_FILE", *PLACES):
            if os.environ.get(name):
                output.note(f"{name} is set: other commands use the database that it names, until you unset it")

    def _show_changes(self, report: Registrations, *, ask_to_try: bool) -> None:
        for file, entry, _ in report.registered:
            same = "" if entry.new else " (unchanged)"
            self.call.say(f"{shown_path(file)}: registered {entry.path} version {entry.version}{same}")
            for note in entry.notes:
                self._show_problem(note)
        for file in report.refused:
            self.call.say(f"{shown_path(file)}: not registered")
        if ask_to_try and report.registered:
            self.call.say(next_steps([playbook for _, _, playbook in report.registered], self.place))

    def _show_problem(self, line: str) -> None:
        output.say(self.call.with_schema(line), to_stderr=self.call.as_json)

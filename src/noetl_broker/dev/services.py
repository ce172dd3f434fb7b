"""What `dev` runs beside Postgres: broker, worker, console, and the registration of what changes in a folder."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from noetl_broker.daemon.process_signals import serve
from noetl_broker.daemon.service import Service, ServiceOptions
from noetl_broker.dev.console import console_token, open_console
from noetl_broker.dev.next_steps import first_playbook, next_steps
from noetl_broker.dev.places import shown_path
from noetl_broker.dev.registrar import Registrar, Registrations
from noetl_broker.dev.watch import keep_watching
from noetl_broker.dev_folder import DevFolder
from noetl_broker.embedded_postgres import EmbeddedPostgres
from noetl_broker.errors import BrokerError, OperatorFault, SchemaFault
from noetl_broker.playbook import PlaybookRules
from noetl_broker.store.connect.migrations import migrate
from noetl_broker.tasks import wait_for
from noetl_broker.worker import WorkerOptions, run_worker

STOP_SECONDS: Final = 8.0
POLL_SECONDS: Final = 0.5  # between two checks whether Postgres runs
MOST_LISTED: Final = 5


@dataclass(slots=True, kw_only=True)
class DevServices:
    """Broker, worker, console and watcher of one folder; if one ends, all end.

    `rules` are the limits of a playbook that is to be registered. `load_console` gives the modules of the console, or
    raises OperatorFault. `show` prints a text for people, `show_problem` a line about a file, `note` a line on stderr.
    `on_ready` gets the address and the token of the console, once everything runs.
    """

    broker: ServiceOptions
    worker: WorkerOptions
    rules: PlaybookRules
    folder: Path
    place: DevFolder
    postgres: EmbeddedPostgres
    load_console: Callable[[], tuple[Any, Any]]
    console_port: int
    port_is_set: bool
    show: Callable[[str], None]
    show_problem: Callable[[str], None]
    note: Callable[[str], None]
    on_ready: Callable[[str | None, str | None], None]
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    broker_ready: asyncio.Event = field(default_factory=asyncio.Event)
    console_ready: asyncio.Event = field(default_factory=asyncio.Event)
    url: str | None = None  # of the console, once it answers
    token: str | None = None  # that its address has: other accounts of this machine reach the port, too

    async def run(self) -> None:
        """Run until a signal. Raises the fault of a part that ended."""
        try:
            await migrate(self.broker.database)
        except SchemaFault as fault:
            raise SchemaFault(f"{fault}; or begin without the data of earlier runs: dev --fresh") from fault
        parts: dict[str, Coroutine[Any, Any, Any]] = {
            "the broker": Service(self.broker, self.stopping, on_ready=self.broker_ready.set).run(),
            "the worker": run_worker(self.worker, self.stopping),
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
            app, server = await asyncio.to_thread(self.load_console)
        except OperatorFault as fault:
            self.note(str(fault))
            self.console_ready.set()
            await self.stopping.wait()
            return
        opened = open_console(self.place, server.open_socket, self.console_port, self.note, is_set=self.port_is_set)
        options = app.ConsoleOptions(
            database=self.broker.database,
            playbook_rules=self.rules.of_registered(),
            tokens_demanded=True,
            signs_in_by_address=True,
        )
        self.token = await console_token(self.broker.database, self.place)
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
        registrar, playbooks = Registrar(self.broker.database, self.rules), 0
        first = True
        async for changes in keep_watching(self.folder, self.stopping, registrar.files_with_new_types):
            report = await registrar.register(changes)
            for line in report.lines:
                self.show_problem(line)
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
            self.show(f"{count} playbook{'s' * (count != 1)} registered ({new} new): {named}{more}")
        if report.refused:
            self.show(f"not registered: {', '.join(map(shown_path, report.refused))}")
        await self.broker_ready.wait()
        await self.console_ready.wait()
        self.on_ready(self.url, self.token)
        playbooks = [playbook for _, _, playbook in report.registered]
        if playbooks:
            self.show(next_steps(playbooks, self.place))
        elif not report.refused and not report.kept:
            self.show(first_playbook(self.folder))
        self.show("Edit a playbook, and it is registered when you save it.")
        self.show(f"Ctrl-C or kill -TERM {os.getpid()} stops everything.")

    def _show_changes(self, report: Registrations, *, ask_to_try: bool) -> None:
        for file, entry, _ in report.registered:
            same = "" if entry.new else " (unchanged)"
            self.show(f"{shown_path(file)}: registered {entry.path} version {entry.version}{same}")
            for note in entry.notes:
                self.show_problem(note)
        for file in report.refused:
            self.show(f"{shown_path(file)}: not registered")
        if ask_to_try and report.registered:
            self.show(next_steps([playbook for _, _, playbook in report.registered], self.place))

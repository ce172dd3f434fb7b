"""The command `run`: the broker as a service, in this process or in several under one parent."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from dataclasses import asdict

import click

from noetl_broker.broker.model import Rules
from noetl_broker.broker.spans import Emit
from noetl_broker.cli import output
from noetl_broker.cli.frame import Call, command
from noetl_broker.cli.processes import PROGRESS, READY, Family, hear_parent
from noetl_broker.cli.serving import notify, serve
from noetl_broker.cli.traces import exporter
from noetl_broker.cli.watching import alone, watched
from noetl_broker.daemon.counters import Counters
from noetl_broker.daemon.report import account_of
from noetl_broker.daemon.service import Service, ServiceOptions
from noetl_broker.store.dsn import database_names

STATUS_SECONDS = 5.0


@command("run", example="noetl-broker run --processes 2")
@click.option("--drain", is_flag=True, help="Decide on what is waiting, then exit.")
@click.option(
    "--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="How many, under one parent."
)
@click.option("--fail-fast", is_flag=True, help="Do not wait for a database that is not there: exit 69.")
@click.option("--child", is_flag=True, hidden=True, help="Report to a parent, and end with it.")
def run(call: Call, *, drain: bool, processes: int, fail_fast: bool, child: bool) -> int:
    """Run the broker: decide on events until it is stopped.

    Any number of brokers run beside each other on one database. SIGTERM and SIGINT let the turns under way commit and
    exit 0; a second signal exits at once.
    """
    call.log_as_set()
    if processes > 1:
        return _run_family(call, processes, drain=drain, fail_fast=fail_fast)
    with exporter(call, "noetl-broker") as emit:
        service = Service(service_options(call, fail_fast=fail_fast, emit=emit))
        return asyncio.run(_run_one(call, service, drain=drain, child=child))


async def _run_one(call: Call, service: Service, *, drain: bool, child: bool) -> int:
    teller = Teller(service, to_parent=child)
    service.on_ready, service.on_progress = teller.ready, teller.progress
    watch = asyncio.create_task(hear_parent(service.stopping, teller.report)) if child else None
    try:
        if drain:
            counters = await serve(service.drain(), service.stopping, drain_seconds=call.settings.drain_seconds)
            if not child:
                _show_drained(call, counters or service.counters)
        elif child:
            await serve(service.run(), service.stopping, drain_seconds=call.settings.drain_seconds)
        else:
            [name] = database_names([call.dsn])
            async with watched(call, {name: call.dsn}, alone({name: service})):
                await serve(service.run(), service.stopping, drain_seconds=call.settings.drain_seconds)
    finally:
        if watch is not None:
            watch.cancel()
    return 0


class Teller:
    """Tells systemd, or the parent process, that the broker is ready and that its main loop goes on."""

    def __init__(self, service: Service, *, to_parent: bool) -> None:
        self._service = service
        self._to_parent = to_parent
        self._told_at = time.monotonic()

    def ready(self) -> None:
        """LISTEN stands, the schema is known."""
        self._tell(READY, "READY=1\nSTATUS=waiting for events")

    def progress(self) -> None:
        """The main loop has come round; it does at least every `sweep_seconds`."""
        if time.monotonic() - self._told_at >= STATUS_SECONDS / 2:
            self._told_at = time.monotonic()
            self._tell(PROGRESS, f"WATCHDOG=1\nSTATUS={self._service.counters.turns} turns taken")

    def report(self) -> None:
        """The parent has asked how this process stands."""
        [name] = database_names([self._service.options.dsn])
        _say(account_of({name: self._service}).as_line())

    def _tell(self, word: str, state: str) -> None:
        if self._to_parent:
            _say(word)
        else:
            notify(state)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _show_drained(call: Call, counters: Counters) -> None:
    if call.as_json:
        output.show_json({name: count for name, count in asdict(counters).items() if isinstance(count, int)})
    else:
        click.echo(f"took {counters.turns} turns in {counters.batches} transactions")


def _run_family(call: Call, processes: int, *, drain: bool, fail_fast: bool) -> int:
    flags = {"--drain": drain, "--fail-fast": fail_fast, "--debug": call.debug}
    arguments = ["run", "--child", *(flag for flag, given in flags.items() if given)]
    if call.config is not None:
        arguments += ["--config", str(call.config.absolute())]
    environment = dict(os.environ)
    environment.pop("NOTIFY_SOCKET", None)  # systemd hears the parent alone
    if call.given_dsn:
        environment["NOETL_BROKER_DSN"] = call.given_dsn  # arguments can be read by everybody on the machine
    family = Family(
        command=(sys.executable, "-m", "noetl_broker", *arguments),
        environment=environment,
        size=processes,
        restart=not drain,
        drain_seconds=call.settings.drain_seconds,
    )
    return asyncio.run(family.run() if drain else _run_watched(call, family))


async def _run_watched(call: Call, family: Family) -> int:
    [name] = database_names([call.dsn])
    async with watched(call, {name: call.dsn}, family.ask):
        return await family.run()


def service_options(call: Call, *, fail_fast: bool = False, emit: Emit | None = None) -> ServiceOptions:
    """Give the daemon what the settings say."""
    settings = call.settings
    return ServiceOptions(
        dsn=call.dsn,
        rules=Rules(
            max_visits=settings.max_visits,
            max_open_jobs=settings.max_open_jobs,
            max_nesting=settings.max_nesting,
            max_turns=settings.max_turns,
            max_fan_out=settings.max_fan_out,
            default_max_attempts=settings.default_max_attempts,
            undefined_when=settings.undefined_when,
            template_max_output_chars=settings.template_max_output_chars,
            template_max_steps=settings.template_max_steps,
        ),
        playbook_rules=call.playbook_rules,
        lanes=settings.lanes,
        batch_size=settings.batch_size,
        notify=settings.notify,
        sweep_seconds=settings.sweep_seconds,
        max_gathered_bytes=settings.max_gathered_bytes,
        reap_seconds=settings.reap_seconds,
        max_lost_leases=settings.max_lost_leases,
        fail_fast=fail_fast,
        emit=emit,
    )

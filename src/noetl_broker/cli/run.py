"""The command `run`: the broker as a service, in this process or in several under one parent."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from dataclasses import asdict

import click

from noetl_broker.broker.model import Rules
from noetl_broker.cli import output
from noetl_broker.cli.frame import Call, command
from noetl_broker.cli.processes import PROGRESS, READY, Family, parent_gone
from noetl_broker.cli.serving import notify, ping_seconds, serve
from noetl_broker.daemon.counters import Counters
from noetl_broker.daemon.service import Service, ServiceOptions

STATUS_SECONDS = 5.0


@command(
    "run",
    example=(
        "noetl-broker run\n"
        "noetl-broker run --processes 2 --config broker.toml\n"
        "noetl-broker run --drain --fail-fast       # decide on what waits, then end"
    ),
)
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
    service = Service(service_options(call, fail_fast=fail_fast))
    return asyncio.run(_run_one(call, service, drain=drain, child=child))


async def _run_one(call: Call, service: Service, *, drain: bool, child: bool) -> int:
    teller = Teller(service, to_parent=child)
    service.on_ready, service.on_progress = teller.ready, teller.progress
    watch = asyncio.create_task(parent_gone(service.stopping)) if child else None
    try:
        if drain:
            counters = await serve(service.drain(), service.stopping, drain_seconds=call.settings.drain_seconds)
            if not child:
                _show_drained(call, counters or service.counters)
        else:
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
        self._every_seconds = ping_seconds(STATUS_SECONDS / 2)

    def ready(self) -> None:
        """LISTEN stands, the schema is known."""
        self._tell(READY, "READY=1\nSTATUS=waiting for events")

    def progress(self) -> None:
        """The main loop has come round; it does at least every `sweep_seconds`."""
        if time.monotonic() - self._told_at >= self._every_seconds:
            self._told_at = time.monotonic()
            self._tell(PROGRESS, f"WATCHDOG=1\nSTATUS={self._service.counters.turns} turns taken")

    def _tell(self, word: str, state: str) -> None:
        if self._to_parent:
            sys.stdout.write(f"{word}\n")
            sys.stdout.flush()
        else:
            notify(state)


def _show_drained(call: Call, counters: Counters) -> None:
    if call.as_json:
        output.show_json(asdict(counters))
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
    return asyncio.run(family.run())


def service_options(call: Call, *, fail_fast: bool = False) -> ServiceOptions:
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
    )

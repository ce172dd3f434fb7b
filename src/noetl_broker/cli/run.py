"""The command `run`: the broker as a service, in this process or in several under one parent."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import asdict, replace

import click

from noetl_broker.broker.model import Rules
from noetl_broker.cli import output
from noetl_broker.cli.frame import Call, command
from noetl_broker.cli.processes import PROGRESS, READY, Family, parent_gone
from noetl_broker.cli.serving import notify, serve
from noetl_broker.daemon.fleet import Fleet
from noetl_broker.daemon.service import Service, ServiceOptions
from noetl_broker.errors import EXIT_FAILED, BrokerError
from noetl_broker.store.dsn import database_names

STATUS_SECONDS = 5.0


@command("run", example="noetl-broker run --processes 2", several_databases=True)
@click.option("--drain", is_flag=True, help="Decide on what is waiting, then exit.")
@click.option(
    "--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="How many, under one parent."
)
@click.option("--fail-fast", is_flag=True, help="Do not wait for a database that is not there: exit 69.")
@click.option("--child", is_flag=True, hidden=True, help="Report to a parent, and end with it.")
def run(call: Call, *, drain: bool, processes: int, fail_fast: bool, child: bool) -> int:
    """Run the broker: decide on events until it is stopped.

    Any number of brokers run beside each other on one database, and one serves any number of databases: --dsn again for
    each. One that fails does not stop the others. SIGTERM and SIGINT let the turns under way commit and
    exit 0; a second signal exits at once.
    """
    call.log_as_set()
    if processes > 1:
        return _run_family(call, processes, drain=drain, fail_fast=fail_fast)
    return asyncio.run(_run_one(call, _fleet(call, fail_fast=fail_fast), drain=drain, child=child))


def _fleet(call: Call, *, fail_fast: bool) -> Fleet:
    stopping = asyncio.Event()
    options = service_options(call, fail_fast=fail_fast)
    services = {
        name: Service(replace(options, dsn=dsn), stopping)
        for name, dsn in zip(database_names(call.dsns), call.dsns, strict=True)
    }
    return Fleet(services, stopping, fail_fast=fail_fast)


async def _run_one(call: Call, fleet: Fleet, *, drain: bool, child: bool) -> int:
    teller = Teller(fleet, to_parent=child)
    fleet.on_ready, fleet.on_progress = teller.ready, teller.progress
    watch = asyncio.create_task(parent_gone(fleet.stopping)) if child else None
    try:
        if drain:
            await serve(fleet.drain(), fleet.stopping, drain_seconds=call.settings.drain_seconds)
            if not child:
                _show_drained(call, fleet)
        else:
            await serve(fleet.run(), fleet.stopping, drain_seconds=call.settings.drain_seconds)
    finally:
        if watch is not None:
            watch.cancel()
    return max(map(_exit_code, fleet.failed.values()), default=0) if drain else 0


def _exit_code(fault: Exception) -> int:
    return fault.exit_code if isinstance(fault, BrokerError) else EXIT_FAILED


class Teller:
    """Tells systemd, or the parent process, that the broker is ready and that its main loop goes on."""

    def __init__(self, fleet: Fleet, *, to_parent: bool) -> None:
        self._fleet = fleet
        self._to_parent = to_parent
        self._told_at = time.monotonic()
        self._is_ready = False

    def ready(self) -> None:
        """LISTEN stands, the schema is known, in each database."""
        self._is_ready = True
        self._tell(READY, "READY=1\nSTATUS=waiting for events")

    def progress(self) -> None:
        """The main loop has come round; it does at least every `sweep_seconds`."""
        if time.monotonic() - self._told_at >= STATUS_SECONDS / 2:
            self._told_at = time.monotonic()
            # A start that waits for a database is no start that hangs.
            state = "WATCHDOG=1" if self._is_ready else "WATCHDOG=1\nEXTEND_TIMEOUT_USEC=60000000"
            self._tell(PROGRESS, f"{state}\nSTATUS={self._fleet.turns} turns taken")

    def _tell(self, word: str, state: str) -> None:
        if self._to_parent:
            sys.stdout.write(f"{word}\n")
            sys.stdout.flush()
        else:
            notify(state)


def _show_drained(call: Call, fleet: Fleet) -> None:
    found = {name: service.counters for name, service in fleet.services.items()}
    several = len(found) > 1
    if call.as_json:
        told = [{"database": name, **asdict(counters)} for name, counters in found.items()]
        output.show_json(told if several else asdict(next(iter(found.values()))))
        return
    for name, counters in found.items():
        place = f"{name}: " if several else ""
        click.echo(f"{place}took {counters.turns} turns in {counters.batches} transactions")


def _run_family(call: Call, processes: int, *, drain: bool, fail_fast: bool) -> int:
    flags = {"--drain": drain, "--fail-fast": fail_fast, "--debug": call.debug}
    arguments = ["run", "--child", *(flag for flag, given in flags.items() if given)]
    if call.config is not None:
        arguments += ["--config", str(call.config.absolute())]
    environment = dict(os.environ)
    environment.pop("NOTIFY_SOCKET", None)  # systemd hears the parent alone
    if call.given_dsns:
        # arguments can be read by everybody on the machine
        environment["NOETL_BROKER_DSNS"] = json.dumps(call.given_dsns)
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
        period_days=settings.period_days,
        fail_fast=fail_fast,
    )

"""The command `run`: the broker as a service, in this process or in several under one parent."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import replace

import click

from noetl_broker.broker.model import Rules
from noetl_broker.broker.spans import Emit
from noetl_broker.cli import output
from noetl_broker.cli.frame import Call, command
from noetl_broker.cli.processes import PROGRESS, READY, Family, hear_parent
from noetl_broker.cli.serving import notify, ping_seconds, serve
from noetl_broker.cli.traces import exporter
from noetl_broker.cli.watching import alone, watched
from noetl_broker.daemon.figures import NO_DATABASE, Ledger
from noetl_broker.daemon.fleet import Fleet
from noetl_broker.daemon.garbage import collected_between_batches
from noetl_broker.daemon.report import account_of
from noetl_broker.daemon.service import Service, ServiceOptions
from noetl_broker.errors import EXIT_FAILED, BrokerError
from noetl_broker.store.dsn import database_names

STATUS_SECONDS = 5.0
LANES = 3  # of one process: while one decides, another writes and a third commits
LANES_OF_SEVERAL = 2  # of each: there is somebody else to decide, and each claim steps over what the other lanes hold


@command(
    "run",
    example=(
        "noetl-broker run\n"
        "noetl-broker run --processes 2 --config broker.toml\n"
        "noetl-broker run --drain --fail-fast       # decide on what waits, then end"
    ),
    several_databases=True,
    serves=True,
)
@click.option("--drain", is_flag=True, help="Decide on what is waiting, then exit.")
@click.option(
    "--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="How many, under one parent."
)
@click.option("--fail-fast", is_flag=True, help="Do not wait for a database that is not there: exit 69.")
@click.option("--child", is_flag=True, hidden=True, help="Report to a parent, and end with it.")
def run(call: Call, *, drain: bool, processes: int, fail_fast: bool, child: bool) -> int:
    """Run the broker: decide on events until it is stopped.

    Any number of brokers run beside each other on one database, and one serves any number of databases: --dsn again for
    each. One that fails does not stop the others. SIGTERM, SIGINT and SIGHUP let the turns under way commit and
    exit 0; a second SIGTERM or SIGINT exits at once. --json tells at the end what was counted.
    """
    call.log_as_set()
    if processes > 1:
        return _run_family(call, processes, drain=drain, fail_fast=fail_fast)
    with collected_between_batches(), exporter(call, "noetl-broker") as emit:
        return asyncio.run(_run_one(call, _fleet(call, fail_fast=fail_fast, emit=emit), drain=drain, child=child))


def _fleet(call: Call, *, fail_fast: bool, emit: Emit | None) -> Fleet:
    stopping = asyncio.Event()
    options = service_options(call, fail_fast=fail_fast, emit=emit)
    services = {name: Service(replace(options, dsn=dsn), stopping) for name, dsn in _databases(call).items()}
    return Fleet(services, stopping, fail_fast=fail_fast)


def _databases(call: Call) -> dict[str, str | None]:
    return dict(zip(database_names(call.dsns), call.dsns, strict=True))


async def _run_one(call: Call, fleet: Fleet, *, drain: bool, child: bool) -> int:
    teller = Teller(fleet, to_parent=child)
    fleet.on_ready, fleet.on_progress = teller.ready, teller.progress
    watch = asyncio.create_task(hear_parent(fleet.stopping, teller.report)) if child else None
    try:
        if drain:
            await serve(fleet.drain(), fleet.stopping, drain_seconds=call.settings.drain_seconds)
        elif child:
            await serve(fleet.run(), fleet.stopping, drain_seconds=call.settings.drain_seconds)
        else:
            async with watched(call, _databases(call), alone(fleet.services)):
                await serve(fleet.run(), fleet.stopping, drain_seconds=call.settings.drain_seconds)
        if child:
            teller.report()
        else:
            _show_counted(call, account_of(fleet.services).ledger, drain=drain)
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
        self._every_seconds = ping_seconds(STATUS_SECONDS / 2)

    def ready(self) -> None:
        """LISTEN stands, the schema is known, in each database."""
        self._is_ready = True
        self._tell(READY, "READY=1\nSTATUS=waiting for events")

    def progress(self) -> None:
        """The main loop has come round; it does at least every `sweep_seconds`."""
        if time.monotonic() - self._told_at >= self._every_seconds:
            self._told_at = time.monotonic()
            # A start that waits for a database is no start that hangs.
            state = "WATCHDOG=1" if self._is_ready else "WATCHDOG=1\nEXTEND_TIMEOUT_USEC=60000000"
            self._tell(PROGRESS, f"{state}\nSTATUS={self._fleet.turns} turns taken")

    def report(self) -> None:
        """Tell the parent how this process stands, because it has asked, or at the end."""
        _say(account_of(self._fleet.services).as_line())

    def _tell(self, word: str, state: str) -> None:
        if self._to_parent:
            _say(word)
        else:
            notify(state)


def _say(line: str) -> None:
    output.say(line)


def _show_counted(call: Call, ledger: Ledger, *, drain: bool) -> None:
    """Tell of each database what was done: programs always, people where they asked for that work alone."""
    found = {name: figures.totals() for name, figures in ledger.items() if name != NO_DATABASE}
    several = len(found) > 1
    if call.as_json:
        told = [({"database": name} if several else {}) | totals for name, totals in found.items()]
        output.show_json(told if several else told[0])
    elif drain:
        for name, totals in found.items():
            place = f"{name}: " if several else ""
            output.say(f"{place}took {totals['turns']} turns in {totals['batches']} transactions")


def _run_family(call: Call, processes: int, *, drain: bool, fail_fast: bool) -> int:
    flags = {"--drain": drain, "--fail-fast": fail_fast, "--debug": call.debug}
    arguments = ["run", "--child", *(flag for flag, given in flags.items() if given)]
    if call.config is not None:
        arguments += ["--config", str(call.config.absolute())]
    environment = dict(os.environ)
    environment.pop("NOTIFY_SOCKET", None)  # systemd hears the parent alone
    environment["NOETL_BROKER_LANES"] = str(call.settings.lanes or LANES_OF_SEVERAL)
    dsns = [dsn for dsn in call.dsns if dsn is not None]
    if dsns:
        # What we have read, since a pipe can be read once; arguments can be read by everybody on the machine.
        environment["NOETL_BROKER_DSNS"] = json.dumps(dsns)
    family = Family(
        command=(sys.executable, "-m", "noetl_broker", *arguments),
        environment=environment,
        size=processes,
        restart=not drain,
        drain_seconds=call.settings.drain_seconds,
    )
    code = asyncio.run(family.run() if drain else _run_watched(call, family))
    if family.counted:
        _show_counted(call, family.counted, drain=drain)
    return code


async def _run_watched(call: Call, family: Family) -> int:
    async with watched(call, _databases(call), family.ask):
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
            max_payload_keys=settings.max_payload_keys,
            default_max_attempts=settings.default_max_attempts,
            undefined_when=settings.undefined_when,
            retry_owner=settings.retry_owner,
            template_max_output_chars=settings.template_max_output_chars,
            template_max_steps=settings.template_max_steps,
        ),
        playbook_rules=call.playbook_rules,
        lanes=settings.lanes or LANES,
        batch_size=settings.batch_size,
        notify=settings.notify,
        sweep_seconds=settings.sweep_seconds,
        max_gathered_bytes=settings.max_gathered_bytes,
        reap_seconds=settings.reap_seconds,
        max_lost_leases=settings.max_lost_leases,
        period_days=settings.period_days,
        missing_event_seconds=settings.missing_event_seconds,
        foreign_lease_grace_seconds=settings.foreign_lease_grace_seconds,
        fail_fast=fail_fast,
        emit=emit,
    )

"""The command `run`: the broker in this process, or in several processes under one parent."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import replace

import click

from noetl_broker.broker.model.rules import Rules
from noetl_broker.cli import output
from noetl_broker.cli.command import Call, command, span_exporter
from noetl_broker.cli.rights import BROKER
from noetl_broker.daemon.databases import Databases
from noetl_broker.daemon.garbage_collection import collected_between_batches
from noetl_broker.daemon.metrics.process_status import status_of
from noetl_broker.daemon.metrics.values import PROCESS, MetricsByDatabase
from noetl_broker.daemon.monitoring import Monitoring, monitored
from noetl_broker.daemon.process import run_process
from noetl_broker.daemon.service import Service, ServiceOptions
from noetl_broker.daemon.supervisor import Supervisor
from noetl_broker.errors import EXIT_FAILED, BrokerError
from noetl_broker.store.connect.dsn import Database, database_names
from noetl_broker.tracing.spans import Emit

LANES = 3  # in one process: one decides, one writes, one commits
LANES_OF_BUCKET = 1
LANES_OF_SEVERAL = 2  # in each of several processes: each claim skips rows that other lanes hold


@command(
    "run",
    role=BROKER,
    example=(
        "noetl-broker run\n"
        "noetl-broker run --processes 2 --config broker.toml\n"
        "noetl-broker run --drain --fail-fast       # decide on what waits, then end"
    ),
    several_databases=True,
    serves=True,
)
@click.option("--drain", is_flag=True, help="Decide on the events that wait, then exit.")
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="How many processes, under one parent.",
)
@click.option("--fail-fast", is_flag=True, help="Do not wait for an unreachable database: exit 69.")
@click.option("--child", is_flag=True, hidden=True, help="Report to a parent, and end with it.")
def run(call: Call, *, drain: bool, processes: int, fail_fast: bool, child: bool) -> int:
    """Run the broker until it is stopped.

    It decides on events as they come. Any number of brokers can serve one database. One broker can serve any number of
    databases and schemas: repeat --dsn and --schema. It serves all buckets of an installation. A database or bucket
    that fails does not stop the others. SIGTERM, SIGINT and SIGHUP let turns commit and exit 0; a second SIGTERM or
    SIGINT exits at once. --json prints counts at the end.
    """
    call.configure_logs()
    if processes > 1:
        return _run_family(call, processes, drain=drain, fail_fast=fail_fast)
    with collected_between_batches(), span_exporter(call, "noetl-broker") as emit:
        return asyncio.run(_run_one(call, emit, drain=drain, fail_fast=fail_fast, child=child))


async def _run_one(call: Call, emit: Emit | None, *, drain: bool, fail_fast: bool, child: bool) -> int:
    stopping, options = asyncio.Event(), service_options(call, fail_fast=fail_fast, emit=emit)
    if child:
        options = replace(options, lanes=call.settings.lanes or LANES_OF_SEVERAL)
    named = {name: replace(options, database=database) for name, database in _named_databases(call).items()}
    services = {name: Service(own, stopping) for name, own in named.items()}
    databases = Databases(services, stopping, fail_fast=fail_fast)
    await run_process(
        databases,
        drain=drain,
        drain_seconds=call.settings.drain_seconds,
        tell_parent=output.say if child else None,
        monitoring=None if drain or child else Monitoring(**call.set_for(Monitoring)),
    )
    if not child:
        _show_counted(call, status_of(databases.services).all_metrics, drain=drain)
    faults = databases.failed.values() if drain else ()
    return max((fault.exit_code if isinstance(fault, BrokerError) else EXIT_FAILED for fault in faults), default=0)


def _named_databases(call: Call) -> dict[str, Database]:
    return dict(zip(database_names(call.databases), call.databases, strict=True))


def _show_counted(call: Call, metrics: MetricsByDatabase, *, drain: bool) -> None:
    """Print the counts of each database: with --json always, else only after --drain."""
    found = {name: values.totals() for name, values in metrics.items() if name != PROCESS}
    several = len(found) > 1
    if call.as_json:
        counts = [({"database": name} if several else {}) | totals for name, totals in found.items()]
        output.show_json(counts if several else counts[0])
    elif drain:
        for name, totals in found.items():
            prefix = f"{name}: " if several else ""
            output.say(f"{prefix}took {totals['turns']} turns in {totals['batches']} transactions")


def _run_family(call: Call, processes: int, *, drain: bool, fail_fast: bool) -> int:
    flags = {"--drain": drain, "--fail-fast": fail_fast, "--debug": call.debug}
    arguments = ["run", "--child", *(flag for flag, given in flags.items() if given)]
    if call.config is not None:
        arguments += ["--config", str(call.config.absolute())]
    environment = dict(os.environ)
    environment.pop("NOTIFY_SOCKET", None)  # only the parent reports to systemd
    environment["NOETL_BROKER_SCHEMAS"] = json.dumps([database.schema for database in call.databases])
    dsns = [database.dsn for database in call.databases if database.dsn is not None]
    if dsns:
        # Pass what we have read: a pipe can be read once. Arguments are visible to every user of the machine.
        environment["NOETL_BROKER_DSNS"] = json.dumps(dsns)
    family = Supervisor(
        command=(sys.executable, "-m", "noetl_broker", *arguments),
        environment=environment,
        size=processes,
        restart=not drain,
        drain_seconds=call.settings.drain_seconds,
    )
    code = asyncio.run(family.run() if drain else _run_monitored(call, family))
    if family.ended:
        _show_counted(call, family.ended, drain=drain)
    return code


async def _run_monitored(call: Call, family: Supervisor) -> int:
    async with monitored(_named_databases(call), family.status, Monitoring(**call.set_for(Monitoring))):
        return await family.run()


def service_options(call: Call, *, fail_fast: bool = False, emit: Emit | None = None) -> ServiceOptions:
    """Give the settings as the options of the daemon."""
    own = {
        "database": call.database,
        "rules": Rules(**call.set_for(Rules)),
        "playbook_rules": call.playbook_rules,
        "lanes": call.settings.lanes or LANES,
        "lanes_of_bucket": call.settings.lanes or LANES_OF_BUCKET,
    }
    return ServiceOptions(**call.set_for(ServiceOptions) | own, fail_fast=fail_fast, emit=emit)

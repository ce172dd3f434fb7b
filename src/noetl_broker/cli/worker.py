"""The command `worker`: the reference worker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import click

from noetl_broker.cli.command import Call, command, span_exporter
from noetl_broker.cli.rights import WORKER
from noetl_broker.daemon.process_signals import notify, serve
from noetl_broker.errors import OperatorFault
from noetl_broker.worker import WorkerOptions, run_worker
from noetl_broker.worker.stats import Stats

# The part of the time for a stop that running jobs get; the rest is for reporting their results.
SHARE_OF_JOBS = 0.8


@command(
    "worker",
    role=WORKER,
    example=(
        "noetl-broker worker --types python,http --concurrency 8\n"
        "noetl-broker worker --worker-id nightly --lease-seconds 300\n"
        "noetl-broker worker --preload pandas,numpy\n"
        "noetl-broker worker --pool gpu --pool default\n"
        "noetl-broker worker --buckets 0-7"
    ),
    serves=True,
)
@click.option(
    "--types", multiple=True, metavar="TYPE,...", help="The job types to lease; default: all that it can run."
)
@click.option(
    "--pool", "pools", multiple=True, metavar="NAME,...", help="The pools whose jobs it leases; default: default."
)
@click.option(
    "--buckets", metavar="NUMBERS", help="Of an installation with buckets those to serve, as 0-7,12; default: all."
)
@click.option("--concurrency", type=click.IntRange(1, 1000), default=4, show_default=True, help="Jobs at a time.")
@click.option("--worker-id", metavar="NAME", help="Its name in the log; default: host, process and a random part.")
@click.option(
    "--lease-seconds", type=click.IntRange(1, 86_400), default=60, show_default=True,
    help="How long a lease lasts without a heartbeat.",
)  # fmt: skip
@click.option(
    "--preload", multiple=True, metavar="MODULE,...",
    help="Modules to import once, for all python steps (or NOETL_BROKER_PRELOAD).",
)  # fmt: skip
@click.option(
    "--pass-env", multiple=True, metavar="NAME,...",
    help="Variables that jobs may read, beside PATH, HOME, LANG, TZ and the like (or NOETL_BROKER_PASS_ENV).",
)  # fmt: skip
@click.option("--null", is_flag=True, help="Complete every job at once with {}, to measure the broker.")
def worker(
    call: Call,
    *,
    types: Sequence[str],
    pools: Sequence[str],
    preload: Sequence[str],
    pass_env: Sequence[str],
    **own: Any,
) -> None:
    """Run the reference worker: lease jobs, run them, report results.

    SIGTERM, SIGINT and SIGHUP let running jobs finish and exit 0; a second SIGTERM or SIGINT exits at once. --json
    prints the number of jobs at the end.
    """
    call.configure_logs()
    names = _names(types)
    if types and not names:
        raise OperatorFault("--types is empty: name the types to lease, or leave the option out for all")
    own |= {
        "pools": tuple(dict.fromkeys(_names(pools))),
        "preload": _names(preload),
        "pass_env": _names(pass_env),
        "types": names,
    }
    drain_seconds = call.settings.drain_seconds
    options = worker_options(
        call,
        drain_seconds=drain_seconds * SHARE_OF_JOBS,
        **{name: given for name, given in own.items() if given not in {None, ()}},
    )
    with span_exporter(call, "noetl-worker") as emit:
        options = replace(options, emit=emit)
        tally = asyncio.run(_run(options, drain_seconds=drain_seconds))
    call.printed({"worker_id": options.worker_id} | asdict(tally))


def worker_options(call: Call, **own: Any) -> WorkerOptions:
    """Give the settings as the options of a worker."""
    location = {"dsn": call.database.dsn, "schema": call.database.schema}
    return WorkerOptions(**call.set_for(WorkerOptions) | location | own)


def _names(words: Sequence[str]) -> tuple[str, ...]:
    """The names in options that may be repeated, and may hold several names with commas."""
    return tuple(name.strip() for word in words for name in word.split(",") if name.strip())


async def _run(options: WorkerOptions, *, drain_seconds: float) -> Stats:
    stopping = asyncio.Event()
    notify("READY=1")
    return await serve(run_worker(options, stopping), stopping, drain_seconds=drain_seconds) or Stats()

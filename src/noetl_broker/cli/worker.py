"""The command `worker`: the reference worker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, replace

import click

from noetl_broker.cli import output
from noetl_broker.cli.frame import Call, command
from noetl_broker.cli.serving import notify, serve
from noetl_broker.cli.traces import exporter
from noetl_broker.errors import OperatorFault
from noetl_broker.worker import WorkerOptions, run_worker
from noetl_broker.worker.tally import Tally

# Of the time that a stop may take, this part is for the running jobs, the rest for saying what became of them.
SHARE_OF_JOBS = 0.8


@command(
    "worker",
    example=(
        "noetl-broker worker --types python,http --concurrency 8\n"
        "noetl-broker worker --worker-id nightly --lease-seconds 300"
    ),
    serves=True,
)
@click.option("--types", multiple=True, metavar="TYPE,...", help="The job types to lease; default: all that it can do.")
@click.option("--concurrency", type=click.IntRange(1, 1000), default=4, show_default=True, help="Jobs at a time.")
@click.option("--worker-id", metavar="NAME", help="Its name in the log; default: host, process and a random part.")
@click.option(
    "--lease-seconds", type=click.IntRange(1, 86_400), default=60, show_default=True,
    help="How long a job is its own without a heartbeat.",
)  # fmt: skip
@click.option("--null", is_flag=True, help="Complete every job at once, with {}: to measure the broker.")
def worker(
    call: Call, *, types: Sequence[str], concurrency: int, worker_id: str | None, lease_seconds: int, null: bool
) -> None:
    """Run the reference worker: lease jobs, do them, report.

    SIGTERM, SIGINT and SIGHUP let running jobs finish and exit 0; a second SIGTERM or SIGINT exits at once. --json
    tells at the end how many there were.
    """
    call.log_as_set()
    names = tuple(name.strip() for word in types for name in word.split(",") if name.strip())
    if types and not names:
        raise OperatorFault("--types names no type: name those to lease, or leave the option out for all of them")
    options = WorkerOptions(
        dsn=call.dsn,
        types=names or None,
        concurrency=concurrency,
        lease_seconds=lease_seconds,
        drain_seconds=call.settings.drain_seconds * SHARE_OF_JOBS,
        null=null,
    )
    if worker_id is not None:
        options = replace(options, worker_id=worker_id)
    with exporter(call, "noetl-worker") as emit:
        options = replace(options, emit=emit)
        tally = asyncio.run(_run(options, drain_seconds=call.settings.drain_seconds))
    if call.as_json:
        output.show_json({"worker_id": options.worker_id} | asdict(tally))


async def _run(options: WorkerOptions, *, drain_seconds: float) -> Tally:
    stopping = asyncio.Event()
    notify("READY=1")
    return await serve(run_worker(options, stopping), stopping, drain_seconds=drain_seconds) or Tally()

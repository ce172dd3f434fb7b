"""The command `demo`: a Postgres of its own, a broker and a worker in this process, two playbooks."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

from noetl_broker import embedded_postgres
from noetl_broker.cli import output
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.run import service_options
from noetl_broker.daemon.process_signals import exit_at_signal
from noetl_broker.dev.demo import run_demo
from noetl_broker.dev.places import is_on_path, own_script, shown_path
from noetl_broker.errors import OperatorFault
from noetl_broker.resources import playbooks_folder
from noetl_broker.worker import WorkerOptions

FOLDER = Path(".demo")
# The data need not survive a crash of the machine.
POSTGRES = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

NEXT_STEPS = """\
What to try next, with a Postgres of yours (a database that you may write to):

{activate}  export NOETL_BROKER_DSN=postgresql://user:password@localhost/database
  noetl-broker migrate
  noetl-broker register {playbooks}/*.yaml
  noetl-broker run &
  noetl-broker worker &
  noetl-broker start examples/conditional --payload '{{"city": "Oslo"}}' --wait
  noetl-broker executions

  noetl-broker --help   all commands
  noetl-broker validate FILE   what is wrong with a playbook, without a database"""


@command("demo", example="noetl-broker demo", own_database=True)
def demo(call: Call) -> None:
    """Run a demo: a Postgres of its own, a broker, a worker, two playbooks.

    All data is in the folder .demo of the current folder. At the end, everything is stopped.
    """
    began = time.monotonic()
    try:
        postgres = embedded_postgres.start(FOLDER, settings=POSTGRES)
    except OSError as error:
        raise OperatorFault(
            f"the demo cannot write to {FOLDER.absolute()}: {error}; run it in another folder"
        ) from error
    with postgres, exit_at_signal():
        if postgres.notice:
            output.note(postgres.notice)
        call.say(f"Postgres started in {shown_path(postgres.folder)} ({output.span(time.monotonic() - began)})")
        # No TLS on our own machine: the driver would read certificates in a home folder of another user.
        own = call.at(f"{postgres.dsn()}?sslmode=disable")
        broker = replace(service_options(own), warn_of_superuser=False)
        options = WorkerOptions(
            dsn=own.database.dsn, schema=own.database.schema, concurrency=4, drain_seconds=2.0, poll_min_seconds=0.02
        )
        shown = asyncio.run(run_demo(broker, options, call.playbook_rules, call.say))
    call.printed(shown)
    call.say(f"\nStopped everything; it took {output.span(time.monotonic() - began)}.\n")
    call.say(NEXT_STEPS.format(playbooks=shown_path(playbooks_folder()), activate=_activation()))


def _activation() -> str:
    """Give the line that puts the program on the PATH, if a shell would not find it."""
    script = own_script("activate")
    return "" if is_on_path() or script is None else f"  . {shown_path(script)}\n"

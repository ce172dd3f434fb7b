"""The command `dev`: a Postgres of the folder's own, its playbooks registered, broker, worker and console."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from pathlib import Path

import click

from noetl_broker import logs
from noetl_broker.cli import output
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.console import console_modules
from noetl_broker.cli.run import service_options
from noetl_broker.cli.worker import worker_options
from noetl_broker.daemon.process_signals import exit_at_signal
from noetl_broker.dev.database import start_database
from noetl_broker.dev.places import shown_path
from noetl_broker.dev.services import DevServices
from noetl_broker.dev_folder import PLACES, DevFolder
from noetl_broker.embedded_postgres import EmbeddedPostgres
from noetl_broker.errors import OperatorFault
from noetl_broker.settings import PREFIX

JOB_SECONDS = 2.0  # of a stop, for the jobs that run


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
        asyncio.run(_services(call.at(dsn), folder.resolve(), place, postgres).run())
        call.say("Stopping.")
    call.say("Stopped everything.")


def _services(call: Call, folder: Path, place: DevFolder, postgres: EmbeddedPostgres) -> DevServices:
    def show_places(url: str | None, token: str | None) -> None:
        dsn = call.database.dsn
        if call.as_json:
            places = {"console": url, "token": token, "dsn": dsn}
            output.show_json({**places, "folder": str(folder), "home": str(place.path)})
        console = "" if url is None else f"  console   {url}/?token={token}\n"
        call.say(f"\nBroker and worker run.\n{console}  database  {dsn}\n")
        for name in (f"{PREFIX}DSN", f"{PREFIX}DSN_FILE", *PLACES):
            if os.environ.get(name):
                output.note(f"{name} is set: other commands use the database that it names, until you unset it")

    return DevServices(
        broker=replace(service_options(call), warn_of_superuser=False),
        worker=worker_options(call, drain_seconds=JOB_SECONDS),
        rules=call.registration_rules(),
        folder=folder,
        place=place,
        postgres=postgres,
        load_console=console_modules,
        console_port=call.settings.console_port,
        port_is_set="console_port" in call.settings.model_fields_set,
        show=call.say,
        show_problem=lambda line: output.say(call.with_schema(line), to_stderr=call.as_json),
        note=output.note,
        on_ready=show_places,
    )

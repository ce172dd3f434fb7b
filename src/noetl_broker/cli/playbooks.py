"""The commands `validate` and `register`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import click

from noetl_broker import __version__
from noetl_broker.cli import output
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.face import ask
from noetl_broker.cli.rights import AUTHOR
from noetl_broker.cli.sarif import as_sarif
from noetl_broker.cli.typed import read_bytes
from noetl_broker.errors import EXIT_FAILED, DatabaseFault, OperatorFault
from noetl_broker.playbook import Finding, PlaybookError
from noetl_broker.service.check import CheckedFile, check_source, with_calls, with_step_types
from noetl_broker.store.connect.places import in_first
from noetl_broker.store.connect.session import place

files = click.argument("paths", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
strict_option = click.option("--strict", is_flag=True, help="Treat warnings as errors.")


@command(
    "validate",
    example=("noetl-broker validate playbooks/*.yaml\nnoetl-broker validate playbooks/weather.yaml --json"),
)
@files
@strict_option
@click.option("--sarif", is_flag=True, help="Print SARIF 2.1.0, for code hosts and editors.")
def validate(call: Call, *, paths: Sequence[Path], strict: bool, sarif: bool) -> int:
    """Check playbooks without a database.

    Prints `file:line:column: error: message (what to write instead)` for every error and warning. Exit 1 if there are
    errors. If --dsn or a setting names a database, its step types count, and playbooks that steps call are looked up.
    """
    if sarif and call.as_json:
        raise OperatorFault("--json and --sarif exclude each other: give one of them")
    checked = check_files(call, paths)
    if call.database.dsn is not None:
        checked = asyncio.run(_ask_database(call, checked))
    checked = [file.strictly() for file in checked] if strict else checked
    if sarif:
        output.show_json(as_sarif([found for file in checked for found in file.findings], __version__))
    elif not call.printed([found.as_dict() for file in checked for found in file.findings]):
        for file in checked:
            for found in file.findings:
                output.say(str(found))
            if not file.findings:
                output.say(f"{file.file}: ok")
    return EXIT_FAILED if any(file.errors for file in checked) else 0


@command("register", role=AUTHOR, example="noetl-broker register playbooks/weather.yaml")
@files
@strict_option
@click.option("--new-home", is_flag=True, help="With buckets: let metadata.bucket of a playbook change.")
def register(call: Call, *, paths: Sequence[Path], strict: bool, new_home: bool) -> int:
    """Register playbooks; changed content makes a new version.

    Registers all files, or none if one has an error. Prints path and version of each. Content equal to the latest
    version makes no new version. Schedules and signals that a login without the role noetl_operator declares begin
    paused. The step types in the database count beside those of the settings.
    """
    checked = asyncio.run(check_with_database(call, paths))
    checked = [file.strictly() for file in checked] if strict else checked
    for file in checked:
        for found in file.findings:
            output.note(call.with_schema(str(found)))
    if any(file.errors for file in checked):
        return _refuse(call, ())
    texts = [(file.file, file.source.decode()) for file in checked]
    try:
        registered = ask(call, "playbooks.register", files=texts, new_home=new_home)
    except PlaybookError as error:  # what only the catalog knows
        return _refuse(call, error.findings)
    shown = ("path", "version", "catalog_id", "new")
    if not call.printed([{name: entry[name] for name in shown} for entry in registered]):
        for entry in registered:
            output.say(f"{entry['path']} version {entry['version']}{'' if entry['new'] else ' (unchanged)'}")
    for note in (note for entry in registered for note in entry["notes"]):
        output.note(call.with_schema(note))
    return 0


def _refuse(call: Call, findings: Sequence[Finding]) -> int:
    """Print what is wrong, and that nothing was registered."""
    for found in findings:
        output.note(call.with_schema(str(found)))
    output.note("noetl-broker: nothing was registered")
    return EXIT_FAILED


async def _ask_database(call: Call, checked: list[CheckedFile]) -> list[CheckedFile]:
    """Check again with what the catalog knows. Where the database does not answer, it is not asked."""
    try:
        async with place(call.database, name="validate") as found:
            return await in_first(found, lambda one: with_calls(one, checked, call.registration_rules()))
    except DatabaseFault as fault:
        output.note(f"noetl-broker: checked without the database: {fault}")
        return checked


async def check_with_database(call: Call, paths: Sequence[Path]) -> list[CheckedFile]:
    """Check files that are to be registered; asks the database about types that neither we nor the settings know."""
    checked = check_files(call, paths)
    if not any(file.has_unknown_types for file in checked):
        return checked
    async with place(call.database, name="register") as found:
        return await in_first(found, lambda one: with_step_types(one, checked, call.registration_rules()))


def check_files(call: Call, paths: Sequence[Path]) -> list[CheckedFile]:
    """Read and check the files of playbooks; raises OperatorFault if one cannot be read."""
    return [check_source(str(path), read_bytes(str(path), "file"), call.registration_rules()) for path in paths]

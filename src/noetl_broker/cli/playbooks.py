"""The commands `validate` and `register`: a playbook's text checked, and kept."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import click

from noetl_broker.cli import output
from noetl_broker.cli.frame import Call, command
from noetl_broker.cli.sarif import as_sarif
from noetl_broker.errors import EXIT_FAILED, OperatorFault
from noetl_broker.playbook import Finding, check, compile_playbook
from noetl_broker.store import catalog
from noetl_broker.store.session import session

files = click.argument("paths", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
strict_option = click.option("--strict", is_flag=True, help="Take warnings as errors.")


class Checked(NamedTuple):
    """One file: its bytes, and what is wrong with it."""

    path: Path
    source: bytes
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> int:
        """How many findings prevent its registration."""
        return sum(found.severity == "error" for found in self.findings)


@command(
    "validate",
    example=("noetl-broker validate playbooks/*.yaml\nnoetl-broker validate playbooks/weather.yaml --json"),
)
@files
@strict_option
@click.option("--sarif", is_flag=True, help="Print SARIF 2.1.0, for code hosts and editors.")
def validate(call: Call, *, paths: Sequence[Path], strict: bool, sarif: bool) -> int:
    """Check playbooks; needs no database.

    Prints `file:line:column: error: message (what to write instead)` for every error and warning; ends with 1 if there
    are errors.
    """
    if sarif and call.as_json:
        raise OperatorFault("--json and --sarif are two forms of one answer: ask for one of them")
    checked = [check_file(call, path, strict=strict) for path in paths]
    if sarif:
        output.show_json(as_sarif([found for file in checked for found in file.findings]))
    elif call.as_json:
        output.show_json([found.as_dict() for file in checked for found in file.findings])
    else:
        for file in checked:
            for found in file.findings:
                output.say(str(found))
            if not file.findings:
                output.say(f"{file.path}: ok")
    return EXIT_FAILED if any(file.errors for file in checked) else 0


@command("register", example="noetl-broker register playbooks/weather.yaml")
@files
@strict_option
def register(call: Call, *, paths: Sequence[Path], strict: bool) -> int:
    """Catalog a new version of playbooks.

    All of them, or none if there is an error in one. Prints path and version of each. The same content as the latest
    version makes no new one.
    """
    checked = [check_file(call, path, strict=strict) for path in paths]
    for file in checked:
        for found in file.findings:
            output.note(str(found))
    if any(file.errors for file in checked):
        output.note("noetl-broker: nothing was registered")
        return EXIT_FAILED
    rules = call.playbook_rules
    playbooks = [
        (compile_playbook(file.source, file=str(file.path), rules=rules), file.source.decode()) for file in checked
    ]

    async def store() -> list[catalog.Registered]:
        async with session(call.dsn, name="register") as connection:
            return await catalog.register(connection, playbooks)

    registered = asyncio.run(store())
    if call.as_json:
        fields = ("path", "version", "catalog_id", "new")
        output.show_json([{name: getattr(entry, name) for name in fields} for entry in registered])
    else:
        for entry in registered:
            output.say(f"{entry.path} version {entry.version}{'' if entry.new else ' (unchanged)'}")
    return 0


def check_file(call: Call, path: Path, *, strict: bool) -> Checked:
    """Read a playbook's file and find what is wrong with it; raises OperatorFault where it cannot be read."""
    try:
        source = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise OperatorFault(f"the file {path} cannot be read: {error.strerror or error}") from error
    findings = check(source, file=str(path), rules=call.playbook_rules)
    if strict:
        findings = tuple(replace(found, severity="error") for found in findings)
    return Checked(path, source, findings)

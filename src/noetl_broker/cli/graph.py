"""The command `graph`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import click

from noetl_broker.cli import output
from noetl_broker.cli.arguments import LARGEST_ID, VERSION_OF_PLAYBOOK, Subject
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.playbooks import read_source
from noetl_broker.diagram.build import picture_of_execution, picture_of_playbook
from noetl_broker.diagram.mermaid import render_mermaid
from noetl_broker.diagram.model import Picture, as_document
from noetl_broker.diagram.svg import render_svg
from noetl_broker.errors import DatabaseFault, NotFoundFault, OperatorFault
from noetl_broker.playbook import compile_playbook
from noetl_broker.store.admin.catalog import find
from noetl_broker.store.admin.execution_path import load_execution_path
from noetl_broker.store.connect.session import session

FORMATS = {"mermaid": render_mermaid, "svg": render_svg}
SUFFIXES = {".svg": "svg", ".mmd": "mermaid", ".md": "mermaid", "": "mermaid"}
PLAYBOOK_SUFFIXES = {".yaml", ".yml"}


@command(
    "graph",
    example=(
        "noetl-broker graph playbooks/diamond.yaml --output diamond.svg\n"
        "noetl-broker graph examples/diamond           # of the catalog, as Mermaid\n"
        "noetl-broker graph 58123456789012345          # an execution, with the path it took"
    ),
)
@click.argument("subject", metavar="PATH|FILE|ID", type=Subject())
@click.option("--format", "form", type=click.Choice([*FORMATS]), help="Default: by the suffix of --output.")
@click.option(
    "--output",
    "target",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="An SVG (.svg) or Mermaid (.mmd, .md); default: print Mermaid.",
)
@VERSION_OF_PLAYBOOK
def graph(call: Call, *, subject: str, form: str | None, target: Path | None, version: int | None) -> None:
    """Draw a playbook, or an execution with the path it took.

    FILE (or - for stdin) needs no database. PATH is a registered playbook. ID is an execution. Its picture shows the
    state and times of steps, how often each arc was taken, and the outcomes of conditions. --json prints nodes and
    arcs.
    """
    if call.as_json and (form is not None or target is not None):
        raise OperatorFault("--json excludes --format and --output: it prints nodes and arcs, they draw them")
    suffix = "" if target is None else target.suffix.lower()
    if form is None and suffix not in SUFFIXES:
        raise OperatorFault(f"there is no format {suffix}: name the file .svg, .mmd or .md, or give --format")
    picture = _picture(call, subject, version)
    if call.as_json:
        output.show_json(as_document(picture))
        return
    _write(FORMATS[form or SUFFIXES[suffix]](picture), target)


def _picture(call: Call, subject: str, version: int | None) -> Picture:
    """Give the picture of a file, an execution or a registered playbook."""
    file = Path(subject)
    is_file = subject == "-" or os.path.isfile(subject)  # noqa: PTH113 - is_file() raises for a name that is too long
    is_id = not is_file and subject.isascii() and subject.isdigit()
    if version is not None and (is_file or is_id):
        kind = "an execution keeps the version that it started with" if is_id else "a file has no versions"
        raise OperatorFault(f"--version belongs to a PATH of the catalog; {kind}")
    if is_file:
        return picture_of_playbook(compile_playbook(read_source(file), file=subject, rules=call.playbook_rules))
    if is_id:
        return _picture_of_execution(call, int(subject))
    try:
        return _picture_of_path(call, subject, version)
    except (NotFoundFault, DatabaseFault) as error:
        if file.suffix not in PLAYBOOK_SUFFIXES:
            raise
        raise OperatorFault(f"there is no file {subject}, and for a path of the catalog: {error}") from error


def _picture_of_execution(call: Call, execution_id: int) -> Picture:
    if not 0 < execution_id <= LARGEST_ID:
        raise OperatorFault(f"{execution_id} is not the id of an execution: ids go from 1 to {LARGEST_ID}")

    async def ask() -> Picture:
        async with session(call.database, name="graph") as connection:
            return picture_of_execution(*await load_execution_path(connection, execution_id, call.playbook_rules))

    return asyncio.run(ask())


def _picture_of_path(call: Call, path: str, version: int | None) -> Picture:
    async def ask() -> Picture:
        async with session(call.database, name="graph") as connection:
            found = await find(connection, path, version)
            return picture_of_playbook(found.compile(call.playbook_rules), found.version)

    return asyncio.run(ask())


def _write(text: str, target: Path | None) -> None:
    if target is None:
        output.show_text(text, newline=False)
        return
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OperatorFault(f"the file {target} cannot be written: {error.strerror or error}") from error

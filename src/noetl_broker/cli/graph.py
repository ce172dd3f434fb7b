"""The command `graph`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from noetl_broker.cli import output
from noetl_broker.cli.arguments import VERSION_OF_PLAYBOOK, complete_subject
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.face import ask
from noetl_broker.cli.typed import read_bytes
from noetl_broker.diagram.build import picture_of_playbook
from noetl_broker.diagram.model import as_document
from noetl_broker.errors import DatabaseFault, NotFoundFault, OperatorFault
from noetl_broker.playbook import compile_playbook
from noetl_broker.service.field_errors import request_of
from noetl_broker.service.images import image_of
from noetl_broker.service.models.base import OneExecution
from noetl_broker.service.models.playbooks import OneVersion

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
@click.argument("subject", metavar="PATH|FILE|ID", shell_complete=complete_subject)
@click.option("--format", "form", type=click.Choice(["mermaid", "svg"]), help="Default: by the suffix of --output.")
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
    if not call.printed(as_document(picture)):
        _write(image_of(picture, form or SUFFIXES[suffix], with_values=True).text, target)


def _picture(call: Call, subject: str, version: int | None) -> Any:
    """Give the picture of a file, an execution or a registered playbook."""
    file = Path(subject)
    is_file = subject == "-" or os.path.isfile(subject)  # noqa: PTH113 - is_file() raises for a name that is too long
    is_id = not is_file and subject.isascii() and subject.isdigit()
    if version is not None and (is_file or is_id):
        kind = "an execution keeps the version that it started with" if is_id else "a file has no versions"
        raise OperatorFault(f"--version belongs to a PATH of the catalog; {kind}")
    if is_file:
        return picture_of_playbook(
            compile_playbook(read_bytes(subject, "file"), file=subject, rules=call.playbook_rules)
        )
    if is_id:
        return ask(call, "executions.picture_execution", request_of(OneExecution, {"execution_id": subject}))
    try:
        return ask(call, "playbooks.picture_playbook", request_of(OneVersion, {"path": subject, "version": version}))
    except (NotFoundFault, DatabaseFault) as error:
        if file.suffix not in PLAYBOOK_SUFFIXES:
            raise
        raise OperatorFault(f"there is no file {subject}, and for a path of the catalog: {error}") from error


def _write(text: str, target: Path | None) -> None:
    if target is None:
        output.show_text(text, newline=False)
        return
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OperatorFault(f"the file {target} cannot be written: {error.strerror or error}") from error

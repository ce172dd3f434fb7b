"""The playbooks that a document calls, for a check whether they are registered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from noetl_broker.playbook.compile import read_document
from noetl_broker.playbook.diagnostics import Finding, PlaybookRules, did_you_mean, path_text
from noetl_broker.playbook.reader import strings


class CalledPlaybook(NamedTuple):
    """The path that a step calls, its version (None: the latest, or a template), and where it stands."""

    path: str
    version: int | None
    file: str
    line: int
    column: int
    at: str


def called_playbooks(source: str | bytes, *, file: str, rules: PlaybookRules) -> list[CalledPlaybook]:
    """Give the calls of a document whose path is no template, in document order."""
    reading = read_document(source, file=file, rules=rules).reading
    found = []
    for call in reading.calls:
        if any(strings(call.path, call.location)):
            continue
        line, column = reading.report.positions.where(call.location)
        version = call.version if isinstance(call.version, int) else None
        found.append(CalledPlaybook(call.path.strip(), version, file, line, column, path_text(call.location)))
    return found


def missing_playbooks(called: Sequence[CalledPlaybook], registered: Mapping[str, Sequence[int]]) -> list[Finding]:
    """Give a warning for each call of a path or a version that is not registered; `registered` has the versions."""
    return [
        Finding(
            severity="warning",
            code="unknown-playbook",
            message=message,
            file=call.file,
            line=call.line,
            column=call.column,
            path=call.at,
            hint=hint,
        )
        for call in called
        for message, hint in [_missing(call, registered)]
        if message
    ]


def _missing(call: CalledPlaybook, registered: Mapping[str, Sequence[int]]) -> tuple[str, str]:
    versions = registered.get(call.path)
    if versions is None:
        near = did_you_mean(call.path, registered) if registered else ""
        hint = near if near.startswith("did") else "register it before the playbook runs"
        return f"no playbook `{call.path}` is registered", hint
    if call.version is not None and versions and call.version not in versions:
        return f"the playbook `{call.path}` has no version {call.version}", f"its latest version is {max(versions)}"
    return "", ""

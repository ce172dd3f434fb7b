"""Checks playbooks before they are registered: their text, and what the catalog knows about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from noetl_broker.playbook import Finding, Playbook, PlaybookError, PlaybookRules, check, compile_playbook
from noetl_broker.playbook.lint.child_playbooks import called_playbooks, missing_playbooks
from noetl_broker.playbook.tasks import UNKNOWN_TYPE
from noetl_broker.store.admin import catalog
from noetl_broker.store.connect.connection import Connection

FILE: Final = "playbook.yaml"  # the name of a text in findings


class CheckedFile(NamedTuple):
    """A file's name, its bytes and its findings."""

    file: str
    source: bytes
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> int:
        """The number of findings that prevent its registration."""
        return sum(found.severity == "error" for found in self.findings)

    @property
    def has_unknown_types(self) -> bool:
        """Whether a step's type is neither built in nor in the settings; the catalog may know it."""
        return any(found.code == UNKNOWN_TYPE for found in self.findings)

    def strictly(self) -> CheckedFile:
        """The file with its warnings as errors."""
        return self._replace(findings=tuple(replace(found, severity="error") for found in self.findings))


def check_source(file: str, source: bytes, rules: PlaybookRules) -> CheckedFile:
    """Check the text of a playbook."""
    return CheckedFile(file, source, check(source, file=file, rules=rules))


async def check_text(connection: Connection, content: str, rules: PlaybookRules) -> CheckedFile:
    """Check a text as a registration does, with the step types and the playbooks of the catalog."""
    file = CheckedFile(FILE, content.encode(errors="surrogatepass"), ())
    [found] = await with_calls(connection, [file], replace(rules, any_step_type=False))
    return found


async def with_step_types(
    connection: Connection, checked: Sequence[CheckedFile], rules: PlaybookRules
) -> list[CheckedFile]:
    """Check again with the step types of the catalog."""
    known = replace(rules, extra_step_types=rules.extra_step_types | await catalog.known_step_types(connection))
    return [check_source(one.file, one.source, known) for one in checked]


async def with_calls(connection: Connection, checked: Sequence[CheckedFile], rules: PlaybookRules) -> list[CheckedFile]:
    """Check again with the step types of the catalog, and look there for the playbooks that steps call."""
    again = await with_step_types(connection, checked, rules)
    registered = await catalog.registered_versions(connection)
    anything = rules.of_registered()
    playbooks = [playbook for one in checked if (playbook := _playbook_in(one, anything)) is not None]
    known = registered | {playbook.path: registered.get(playbook.path, []) for playbook in playbooks}
    refused = await catalog.bucket_findings(connection, playbooks)
    return [_add_found(one, anything, known, [found for found in refused if found.file == one.file]) for one in again]


def _playbook_in(checked: CheckedFile, rules: PlaybookRules) -> Playbook | None:
    """The playbook of a file; None if it has errors."""
    try:
        return compile_playbook(checked.source, file=checked.file, rules=rules)
    except PlaybookError:
        return None


def _add_found(
    checked: CheckedFile, rules: PlaybookRules, registered: Mapping[str, Sequence[int]], refused: Sequence[Finding]
) -> CheckedFile:
    """Add the calls of playbooks that are not registered, and what a bucket refuses."""
    called = called_playbooks(checked.source, file=checked.file, rules=rules)
    findings = [*checked.findings, *missing_playbooks(called, registered), *refused]
    return checked._replace(findings=tuple(sorted(findings, key=lambda found: (found.line, found.column))))

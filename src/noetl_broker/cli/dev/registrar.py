"""Registers the playbooks of a folder, each for itself, and says what is wrong with the others."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from noetl_broker.cli.command import Call
from noetl_broker.cli.dev.watch import Changes
from noetl_broker.cli.places import shown_path
from noetl_broker.errors import BrokerError, DatabaseFault
from noetl_broker.operations.check import Checked, check_source
from noetl_broker.playbook import Playbook, PlaybookRules, compile_playbook
from noetl_broker.playbook.lint.child_playbooks import called_playbooks, missing_playbooks
from noetl_broker.store import catalog
from noetl_broker.store.connection import Connection
from noetl_broker.store.session import session

# Other YAML files of a project have none of these at the start of a line.
_PLAYBOOK: Final = re.compile(rb"""^\W*(?:kind['"]?\s*:\s*['"]?Playbook\b|workflow['"]?\s*:)""", re.MULTILINE)


@dataclass(slots=True)
class Report:
    """What became of changed files: `registered` by file, `refused` files, `lines` about what is wrong or gone."""

    registered: list[tuple[Path, catalog.Registered, Playbook]] = field(default_factory=list)
    refused: list[Path] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


class Registrar:
    """Registers changed files, and remembers which file a path comes from."""

    def __init__(self, call: Call) -> None:
        """`call` has the database and the limits of playbooks."""
        self._call = call
        self._files: dict[str, Path] = {}  # by the path of the playbook

    async def register(self, changes: Changes) -> Report:
        """Register each changed file that is a playbook without errors. Raises DatabaseFault."""
        report = Report()
        for path in [path for path, file in self._files.items() if file in changes.gone]:
            report.lines.append(f"{shown_path(self._files.pop(path))} is gone: {path} stays registered")
        sources = await asyncio.to_thread(self._read, changes.changed, report)
        if not sources:
            return report
        async with session(self._call.database, name="dev") as connection:
            rules = self._call.registration_rules()
            known = await catalog.known_step_types(connection)
            rules = replace(rules, extra_step_types=rules.extra_step_types | known)
            checked = await asyncio.to_thread(
                lambda: [(file, check_source(shown_path(file), source, rules)) for file, source in sources]
            )
            for file, found in checked:
                await self._register(connection, file, found, report)
            await self._look_for_children(connection, [found for _, found in checked if not found.errors], report)
        return report

    def _read(self, files: Sequence[Path], report: Report) -> list[tuple[Path, bytes]]:
        """Read the files that are playbooks; one that is too long is refused by its check."""
        found = []
        for file in files:
            try:
                with file.open("rb") as opened:
                    source = opened.read(self._call.settings.max_document_bytes + 1)
            except FileNotFoundError:
                continue  # the next look finds that it is gone
            except OSError as error:
                report.lines.append(f"{shown_path(file)} cannot be read: {error.strerror or error}")
                continue
            if _PLAYBOOK.search(source):
                found.append((file, source))
        return found

    async def _register(self, connection: Connection, file: Path, checked: Checked, report: Report) -> None:
        report.lines += [str(found) for found in checked.findings]
        if checked.errors:
            report.refused.append(file)
            return
        try:
            playbook = self._compile(file, checked)
            [registered] = await catalog.register(connection, [(playbook, checked.source.decode())])
        except DatabaseFault:
            raise
        except BrokerError as error:
            report.lines.append(f"{checked.file}: error: {error}")
            report.refused.append(file)
            return
        for path in [path for path, other in self._files.items() if other == file]:
            del self._files[path]
        self._files[playbook.path] = file
        report.registered.append((file, registered, playbook))

    def _compile(self, file: Path, checked: Checked) -> Playbook:
        """Compile a playbook. Raises BrokerError if another file has its path: each would replace the other."""
        playbook = compile_playbook(checked.source, file=checked.file, rules=self._call.playbook_rules)
        holder = self._files.get(playbook.path, file)
        if holder != file:
            raise BrokerError(f"{shown_path(holder)} has the path {playbook.path}; change metadata.path in one of them")
        return playbook

    async def _look_for_children(self, connection: Connection, checked: Sequence[Checked], report: Report) -> None:
        """Report the calls of playbooks that are not registered."""
        rules: PlaybookRules = self._call.playbook_rules
        calls = [call for file in checked for call in called_playbooks(file.source, file=file.file, rules=rules)]
        if calls:
            missing = missing_playbooks(calls, await catalog.registered_versions(connection))
            report.lines += [str(found) for found in missing]

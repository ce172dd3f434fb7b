"""Registers the playbooks of a folder, each for itself, and says what is wrong with the others."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from noetl_broker.dev.places import shown_path
from noetl_broker.dev.watch import FileChanges
from noetl_broker.errors import BrokerError, DatabaseFault
from noetl_broker.playbook import Playbook, PlaybookRules, compile_playbook
from noetl_broker.playbook.lint.child_playbooks import called_playbooks, missing_playbooks
from noetl_broker.service.check import CheckedFile, check_source
from noetl_broker.store.admin import catalog
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.connect.dsn import Database
from noetl_broker.store.connect.session import session

# Other files of a project have none of these words, and they have errors as playbooks.
_KIND: Final = re.compile(rb"""\bkind['"]?\s*:\s*['"]?Playbook\b""")
_WORKFLOW: Final = re.compile(rb"^workflow\s*:", re.MULTILINE)


@dataclass(slots=True)
class Registrations:
    """The results for changed files: `registered` by file, `refused` files, `lines` about what is wrong or gone.

    `kept`: the catalog has a newer version than the file.
    """

    registered: list[tuple[Path, catalog.Registered, Playbook]] = field(default_factory=list)
    refused: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


class Registrar:
    """Registers changed files, and remembers which file a path comes from."""

    def __init__(self, database: Database, rules: PlaybookRules) -> None:
        """`rules` are the limits of a playbook that is to be registered."""
        self._database, self._rules = database, rules
        self._files: dict[str, Path] = {}  # by the path of the playbook
        self._versions: dict[str, int] = {}  # that this run registered
        self._types: frozenset[str] = frozenset()  # that workers have announced
        self._untyped: set[Path] = set()  # files that need a type which nobody has announced

    async def register(self, changes: FileChanges) -> Registrations:
        """Register each changed file that is a playbook without errors. Raises DatabaseFault."""
        report = Registrations()
        self._untyped -= {*changes.changed, *changes.gone}
        for path in [path for path, file in self._files.items() if file in changes.gone]:
            report.lines.append(f"{shown_path(self._files.pop(path))} is gone: {path} stays registered")
        sources = await asyncio.to_thread(self._read, changes.changed, report)
        if not sources:
            return report
        async with session(self._database, name="dev") as connection:
            self._types = await catalog.known_step_types(connection)
            rules = replace(self._rules, extra_step_types=self._rules.extra_step_types | self._types)
            checked = await asyncio.to_thread(
                lambda: [(file, check_source(shown_path(file), source, rules)) for file, source in sources]
            )
            for file, found in checked:
                await self._register(connection, file, found, report)
            await self._look_for_children(connection, [found for _, found in checked if not found.errors], report)
        return report

    async def files_with_new_types(self) -> list[Path]:
        """Give the files that need a step type, if new ones were announced. Raises DatabaseFault."""
        if not self._untyped:
            return []
        async with session(self._database, name="dev") as connection:
            known = await catalog.known_step_types(connection)
        return [] if known <= self._types else sorted(self._untyped)

    def _read(self, files: Sequence[Path], report: Registrations) -> list[tuple[Path, bytes]]:
        """Read the files that are playbooks; a file that is too long is refused by its check."""
        found = []
        for file in files:
            try:
                with file.open("rb") as opened:
                    source = opened.read(self._rules.max_document_bytes + 1)
            except FileNotFoundError:
                continue  # the next poll finds that it is gone
            except OSError as error:
                report.lines.append(f"{shown_path(file)} cannot be read: {error.strerror or error}")
                continue
            if self._is_playbook(file, source):
                found.append((file, source))
        return found

    def _is_playbook(self, file: Path, source: bytes) -> bool:
        """Whether it says so, even with errors, or `register` would take it."""
        if _KIND.search(source) or (file.suffix.lower() != ".json" and _WORKFLOW.search(source)):
            return True
        if b"Playbook" not in source or len(source) > self._rules.max_document_bytes:
            return False  # a check of large data takes seconds
        return not check_source(str(file), source, self._rules).errors

    async def _register(self, connection: Connection, file: Path, checked: CheckedFile, report: Registrations) -> None:
        report.lines += [str(found) for found in checked.findings]
        if checked.errors:
            report.refused.append(file)
            if checked.has_unknown_types:
                self._untyped.add(file)
                report.lines.append(f"{checked.file}: dev tries again when a worker announces its step types")
            return
        try:
            playbook, text = self._compile(file, checked), checked.source.decode()
            older = await catalog.find_older(connection, playbook.path, text)
            if older is not None and older.latest != self._versions.get(playbook.path):
                report.lines.append(_kept_line(checked.file, playbook.path, older))
                report.kept.append(file)
            else:
                [registered] = await catalog.register(connection, [(playbook, text)])
                self._versions[playbook.path] = registered.version
                report.registered.append((file, registered, playbook))
        except DatabaseFault:
            raise
        except BrokerError as error:
            report.lines.append(f"{checked.file}: error: {error}")
            report.refused.append(file)
            return
        for path in [path for path, other in self._files.items() if other == file]:
            del self._files[path]
        self._files[playbook.path] = file

    def _compile(self, file: Path, checked: CheckedFile) -> Playbook:
        """Compile a playbook. Raises BrokerError if another file has its path: each would replace the other."""
        playbook = compile_playbook(checked.source, file=checked.file, rules=self._rules.of_registered())
        holder = self._files.get(playbook.path, file)
        if holder != file:
            raise BrokerError(f"{shown_path(holder)} has the path {playbook.path}; change metadata.path in one of them")
        return playbook

    async def _look_for_children(
        self, connection: Connection, checked: Sequence[CheckedFile], report: Registrations
    ) -> None:
        """Report the calls of playbooks that are not registered."""
        rules = self._rules.of_registered()
        calls = [call for file in checked for call in called_playbooks(file.source, file=file.file, rules=rules)]
        if calls:
            missing = missing_playbooks(calls, await catalog.registered_versions(connection))
            report.lines += [str(found) for found in missing]


def _kept_line(file: str, path: str, older: catalog.Older) -> str:
    return (
        f"{file}: has the text of version {older.version} of {path}, and the newer version {older.latest} stays;"
        f" noetl-broker register {shlex.quote(file)} replaces it"
    )

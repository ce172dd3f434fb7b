"""Finds the YAML and JSON files of a folder, and notices when they change.

It looks at them again and again. This needs no library. It works on every file system, also on mounted and network
folders, which send no notifications. A poll of a thousand files takes some milliseconds.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple

from noetl_broker.tasks import wait_for

ENDINGS: Final = (".yaml", ".yml", ".json")
SKIPPED: Final = frozenset({"node_modules", "__pycache__"})  # beside folders whose names begin with a dot
VIRTUAL_ENVIRONMENT: Final = "pyvenv.cfg"  # a file in it
PAUSE_SECONDS: Final = 0.15  # between two polls; a change counts once two polls agree on it
AGAIN_SECONDS: Final = 1.0  # between two questions for files that have not changed
SHARE_OF_PAUSE: Final = 10  # a poll that takes long makes the pause longer: at most a tenth of the time is spent


class Signature(NamedTuple):
    """The values that change when a file is written or replaced."""

    modified_ns: int
    size: int
    inode: int


class FileChanges(NamedTuple):
    """Files that are new or have changed, and files that are gone, each by name."""

    changed: list[Path]
    gone: list[Path]


def scan(folder: Path) -> dict[Path, Signature]:
    """Return the YAML and JSON files in a folder and its subfolders. Files that cannot be read are left out."""
    found: dict[Path, Signature] = {}
    pending = [str(folder)]
    while pending:
        try:
            entries = [*os.scandir(pending.pop())]
        except OSError:
            continue
        if any(entry.name == VIRTUAL_ENVIRONMENT for entry in entries):
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.name in SKIPPED:
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif entry.name.lower().endswith(ENDINGS) and stat.S_ISREG((status := entry.stat()).st_mode):
                    found[Path(entry.path)] = Signature(status.st_mtime_ns, status.st_size, status.st_ino)
            except OSError:
                continue
    return found


class Watcher:
    """Compares the polls of a folder: `compare` returns what has changed since the last answer."""

    def __init__(self) -> None:
        self._answered: dict[Path, Signature] = {}
        self._last: dict[Path, Signature] | None = None

    def compare(self, found: dict[Path, Signature]) -> FileChanges:
        """Return what has changed. The first poll counts at once; later ones count when the next poll agrees.

        An editor may empty a file before it writes it, or replace it.
        """
        last = found if self._last is None else self._last
        changed = [
            path for path, seen in found.items() if self._answered.get(path) != seen and last.get(path) == seen
        ]  # fmt: skip
        gone = [path for path in self._answered if path not in found and path not in last]
        self._answered |= {path: found[path] for path in changed}
        for path in gone:
            del self._answered[path]
        self._last = found
        return FileChanges(sorted(changed), sorted(gone))


async def keep_watching(
    folder: Path, stopping: asyncio.Event, again: Callable[[], Awaitable[list[Path]]]
) -> AsyncIterator[FileChanges]:
    """Yield the files that are there, and then what changes, until `stopping` is set.

    Each second it asks `again` for files that count as changed.
    """
    asked = 0.0
    watcher, first = Watcher(), True
    while not stopping.is_set():
        began = time.monotonic()
        found = await asyncio.to_thread(scan, folder)
        pause = max(PAUSE_SECONDS, SHARE_OF_PAUSE * (time.monotonic() - began))
        changes = watcher.compare(found)
        if not first and began - asked >= AGAIN_SECONDS:
            asked = began
            changes = FileChanges(sorted({*changes.changed, *await again()} - {*changes.gone}), changes.gone)
        if first or changes.changed or changes.gone:
            yield changes
        first = False
        await wait_for(stopping, pause)

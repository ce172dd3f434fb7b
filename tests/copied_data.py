"""A Postgres whose first start copies its data: `initdb` takes half a second of a core, a copy a fifth of that.

`programs` gives a folder with the programs of Postgres. Its `initdb` makes the data once for each set of options, then
copies them, and gives each copy its own password. Some tests of tests/embedded_postgres and of `demo` use the real one.
"""

from __future__ import annotations

import atexit
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from noetl_broker import embedded_postgres
from noetl_broker.embedded_postgres.binaries import BIN_FOLDER_VARIABLE, choose_account, find_bin_folder
from noetl_broker.errors import OperatorFault

INITDB = """#!/bin/sh
set -eu
[ "$1 ${{3-}}" = "-D --pwfile" ] || exec {programs}/initdb "$@"
data=$2 password=$4
shift 4
made={folder}/$(printf %s "$*" | cksum | tr " " -)
if [ ! -d "$made" ]; then
  {programs}/initdb -D "$made.$$" --pwfile "$password" "$@"
  [ ! -d "$made" ] || rm -r "$made"
  mv "$made.$$" "$made"
fi
cp -R "$made/." "$data"
said=$(printf "alter role postgres password '%s'\\n" "$(cat "$password")" |
  {programs}/postgres --single -D "$data" -c fsync=off -c shared_buffers=400kB postgres 2>&1) ||
  {{ echo "$said" >&2; exit 1; }}
"""
_folders: list[Path] = []  # at most one


def programs() -> Path | None:
    """Return the folder of programs; None where the account of Postgres cannot run those of this machine."""
    if not _folders:
        _folders.append(Path(tempfile.mkdtemp(prefix="noetl-broker-data-")))
        atexit.register(remove)
        _make(_folders[0])
    found = _folders[0] / "bin"
    return found if found.is_dir() else None


def variables() -> dict[str, str]:
    """Return the environment of a command that starts a Postgres and takes these programs."""
    found = programs()
    return {BIN_FOLDER_VARIABLE: str(found)} if found is not None else {}


def start(
    folder: Path | None = None,
    *,
    settings: Mapping[str, str] = MappingProxyType({}),
    temporary_root: Path | None = None,
    substitute: Path | None = None,
    stop_leftover: bool = False,
) -> embedded_postgres.EmbeddedPostgres:
    """Start a Postgres on copied data."""
    return embedded_postgres.start(
        folder,
        settings=settings,
        temporary_root=temporary_root,
        substitute=substitute,
        stop_leftover=stop_leftover,
        bin_folder=programs(),
    )


def remove() -> None:
    """Remove what `programs` has made; called at the end of the run."""
    while _folders:
        shutil.rmtree(_folders.pop(), ignore_errors=True)


def _make(folder: Path) -> None:
    account = choose_account()
    try:
        real = find_bin_folder()
        account.run(real / "initdb", "--version", folder=Path("/")).check_returncode()
    except (OSError, subprocess.SubprocessError, OperatorFault):
        return
    folder.chmod(0o755)
    made = folder / "data"
    made.mkdir()
    if account.switch:
        os.chown(made, account.user_id, account.group_id)
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    for program in real.iterdir():
        if program.name != "initdb":
            (bin_folder / program.name).symlink_to(program)
    script = bin_folder / "initdb"
    script.write_text(INITDB.format(programs=shlex.quote(str(real)), folder=made), encoding="utf-8")
    script.chmod(0o755)

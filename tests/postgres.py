"""The Postgres of a test run: one server, started when a test first asks for a database, shared by all test processes.

The process that owns the run (pytest itself, or the controller of pytest-xdist) is the landlord. Worker processes knock
at its door, a socket in a private folder, and are told where the server is. So a run of tests without a database starts
none, and the server ends with the run however the run ends.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
from dataclasses import asdict, dataclass
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import Any

from noetl_broker.errors import BrokerError
from noetl_broker.store import embedded

# Nothing here must survive a crash of the machine; crashes of Postgres are survived with these as well.
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "400",  # eight workers with fifty each
    "max_locks_per_transaction": "256",
}
_MEMORY_DISK = Path("/dev/shm")  # noqa: S108 - Linux' own name for it; a folder of our own is made in it
_BYTES_WANTED = 2 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A database that one test has to itself."""

    name: str
    dsn: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where the run's Postgres is; the last three fields are read by pytest-postgresql's factories."""

    host: str
    port: int
    user: str
    password: str
    options: str = ""
    maintenance_dbname: str = "postgres"
    template_dbname: str = "template0"

    def database(self, name: str) -> Database:
        """Return a database of this server by name; it need not exist."""
        return Database(name=name, dsn=f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{name}")


class Landlord:
    """Owns the run's server: starts it at the first call of `server`, ends it with `close`."""

    def __init__(self) -> None:
        self._postgres: embedded.EmbeddedPostgres | None = None
        self._starting = threading.Lock()
        self._folder: Path | None = None
        self._listener: Listener | None = None
        self._key = secrets.token_hex(16)

    def server(self) -> Server:
        """Return where the server is, started if need be."""
        with self._starting:
            if self._postgres is None:
                self._postgres = embedded.start(settings=_SETTINGS, temporary_root=_fast_root())
            postgres = self._postgres
            return Server(host=postgres.host, port=postgres.port, user=postgres.user, password=postgres.password)

    def door(self) -> tuple[str, str]:
        """Return the address and the key with which a worker process may `knock`."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="noetl-broker-tests-"))
            self._listener = Listener(str(self._folder / "door"), family="AF_UNIX", authkey=self._key.encode())
            threading.Thread(target=self._answer, args=(self._listener,), name="landlord", daemon=True).start()
        return str(self._folder / "door"), self._key

    def close(self) -> None:
        """End the server and remove what the run has left."""
        if self._postgres is not None:
            self._postgres.close()
        if self._listener is not None:
            self._listener.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _answer(self, listener: Listener) -> None:
        while True:
            with listener.accept() as visitor:
                try:
                    visitor.send(asdict(self.server()))
                except BrokerError as error:
                    visitor.send(str(error))


def knock(door: tuple[str, str]) -> Server:
    """Ask the landlord for the server; raises RuntimeError with its reason when there is none."""
    address, key = door
    with Client(address, family="AF_UNIX", authkey=key.encode()) as visit:
        answer: dict[str, Any] | str = visit.recv()
    if isinstance(answer, str):
        raise RuntimeError(answer)  # noqa: TRY004 - not a wrong type: the other kind of answer
    return Server(**answer)


def _fast_root() -> Path | None:
    # A database is cloned for each test: 15 ms in memory, 40 to 250 ms on a disk, whatever fsync is set to.
    roomy = _MEMORY_DISK.is_dir() and shutil.disk_usage(_MEMORY_DISK).free > _BYTES_WANTED
    return _MEMORY_DISK if roomy else None

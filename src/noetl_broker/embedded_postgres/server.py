"""A Postgres in a folder of its own that ends with the process that started it.

For the demo, the tests and the benchmarks. It listens on 127.0.0.1, and on a socket in its folder if the path is short
enough. It has its own password, creates no account, and writes only in its folder.

A watchdog ends it: a shell in its own session waits on a pipe that only this process holds open. The kernel closes that
end when this process ends, also after `kill -9`, and the watchdog shuts Postgres down. PR_SET_PDEATHSIG does not suit:
it is Linux only, is lost at a change of account, and fires when the thread ends. Leaving the `with` block, `close` and
a normal exit shut down at once.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import BinaryIO, Final, Literal, Self
from urllib.parse import quote

from noetl_broker.embedded_postgres.binaries import (
    Account,
    choose_account,
    environment,
    find_bin_folder,
    usable_bin_folder,
)
from noetl_broker.embedded_postgres.data_dir import (
    USER,
    DataFolder,
    check_major,
    initialize,
    socket_folder,
    usable_folder,
)
from noetl_broker.embedded_postgres.leftover import end_leftover
from noetl_broker.errors import DatabaseFault, OperatorFault

Mode = Literal["smart", "fast", "immediate"]
HOST: Final = "127.0.0.1"

_SIGNALS: Final = MappingProxyType({"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT})
_OURS: Final = frozenset({"port", "listen_addresses", "unix_socket_directories", "data_directory", "hba_file"})
_PORTS: Final = range(20_000, 32_000)  # below the ports that systems give to outgoing connections
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.005
_STATUS_LINE: Final = 7  # of postmaster.pid: starting, ready, stopping

_WATCHDOG: Final = """
read -r pid || exit 0
read -r nothing
kill -INT "$pid" 2>/dev/null
tries=0
while kill -0 "$pid" 2>/dev/null && [ $tries -lt 150 ]; do
  tries=$((tries + 1))
  [ $tries -eq 80 ] && kill -QUIT "$pid"
  [ $tries -eq 140 ] && kill -KILL "$pid"
  sleep 0.1
done 2>/dev/null
[ -z "$1" ] || rm -rf -- "$1"
"""


def start(
    folder: Path | None = None,
    *,
    settings: Mapping[str, str] = MappingProxyType({}),
    bin_folder: Path | None = None,
    temporary_root: Path | None = None,
    substitute: Path | None = None,
    stop_leftover: bool = False,
) -> EmbeddedPostgres:
    """Start Postgres on the data in `folder`, created at the first start; None is a temporary folder.

    `settings` are of Postgres, such as {"fsync": "off"}. `temporary_root` holds the temporary folder; None is the
    system's place for these. `substitute` holds the data where the account of Postgres cannot reach `folder`.
    `stop_leftover` stops a server that still runs on the data, because its starter was killed; only a caller that
    locks the folder may do so. Raises OperatorFault if there is no usable Postgres or folder.
    Raises DatabaseFault, with the last lines of the log, if it does not start.
    """
    taken = _OURS & settings.keys()
    if taken:
        raise OperatorFault(f"The embedded Postgres sets {', '.join(sorted(taken))} itself: leave it out.")
    account = choose_account()
    try:
        place = usable_folder(folder, account, temporary_root, substitute=substitute)
        if stop_leftover:
            end_leftover(place.folder / "data")
        postgres = EmbeddedPostgres(place, account=account, settings=settings, bin_folder=bin_folder)
        try:
            postgres.launch()
        except BaseException:
            postgres.close()
            raise
    except (OSError, subprocess.SubprocessError) as error:
        raise OperatorFault(
            f"The embedded Postgres cannot be set up in {folder or 'a temporary folder'}: {error}."
        ) from error
    return postgres


class EmbeddedPostgres:
    """One running Postgres; a context manager that closes it.

    `notice` is a sentence for people if the data are not in the requested folder, else None.
    """

    host: Final = HOST
    user: Final = USER
    port: int
    folder: Path
    bin_folder: Path
    notice: str | None
    socket_folder: Path | None

    def __init__(
        self, place: DataFolder, *, account: Account, settings: Mapping[str, str], bin_folder: Path | None
    ) -> None:
        """Prepare the programs and the data; start nothing."""
        self._account = account
        self._settings = dict(settings)
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: _Watchdog | None = None
        self._owner = os.getpid()
        self._settled = False
        self.folder, self.notice, self._temporary = place.folder, place.notice, place.temporary
        try:
            self.bin_folder, major = usable_bin_folder(bin_folder or find_bin_folder(), account, self.folder)
            self._data = self.folder / "data"
            self._log = self.folder / "postgres.log"
            self.password = initialize(self.folder, self._data, self.bin_folder, account, settings)
            check_major(self._data, major)
            self.socket_folder = socket_folder(self.folder, account)
        except BaseException:
            if self._temporary:
                shutil.rmtree(self.folder, ignore_errors=True)
            raise
        self._port_file = self.folder / "port"
        self.port = _kept_port(self._port_file) or _free_port()
        atexit.register(self.close)

    def dsn(self, database: str = "postgres") -> str:
        """Return the connection URL of a database, with the password in it."""
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{quote(database, safe='')}"

    @property
    def running(self) -> bool:
        """Whether the server process is alive."""
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start the server and wait until it takes connections; raises DatabaseFault if it does not."""
        if self.running:
            return
        self.stop()  # A server that ended by itself still has its watchdog.
        complaint = self._attempt()
        # Another program may have taken the port. It stays the same once a caller may know it.
        while complaint and not self._settled and "Address already in use" in complaint:
            self.port = _free_port()
            complaint = self._attempt()
        if complaint:
            raise DatabaseFault(f"The embedded Postgres in {self.folder} does not start: {complaint}")
        self._settled = True
        self._port_file.write_text(f"{self.port}\n", encoding="ascii")

    def stop(self, mode: Mode = "fast") -> None:
        """Stop the server; `launch` starts it again. `immediate` is a crash: the next start recovers from the log."""
        process, self._process = self._process, None
        if process is not None:
            _end(process, _SIGNALS[mode])
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            watchdog.dismiss()

    def restart(self, mode: Mode = "fast") -> None:
        """Stop the server, and start it on the same port and data."""
        self.stop(mode)
        self.launch()

    def close(self) -> None:
        """Stop the server, and remove its folder if it is temporary."""
        if os.getpid() != self._owner:
            return  # a forked process has this object, but the server is not its own
        self.stop()
        atexit.unregister(self.close)
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _attempt(self) -> str | None:
        """Start the server once; return None when it is ready, otherwise the end of its log."""
        ours = {
            "listen_addresses": self.host,
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_folder or ""),
            "unix_socket_permissions": "0700",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "cluster_name": "noetl-broker",
        }
        arguments = [part for name, value in (ours | self._settings).items() for part in ("-c", f"{name}={value}")]
        switch = self._account.switch
        watchdog = self._watchdog = _Watchdog(self.folder if self._temporary else None)
        with _append_private(self._log) as log:
            begin = log.tell()
            self._process = subprocess.Popen(  # noqa: S603 - Postgres, with arguments of ours
                [self.bin_folder / "postgres", "-D", self._data, *arguments],
                cwd=self.folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C must not stop it: the broker disconnects first
                user=self._account.user_id if switch else None,
                group=self._account.group_id if switch else None,
                extra_groups=[] if switch else None,
            )
            watchdog.watch(self._process.pid)
        if _becomes_ready(self._process, self._data / "postmaster.pid"):
            return None
        self.stop("immediate")
        with self._log.open("rb") as log:
            log.seek(begin)
            return " / ".join(log.read().decode(errors="replace").strip().splitlines()[-5:]) or "its log is empty"


class _Watchdog:
    """The shell that shuts Postgres down after this process has ended (see the module)."""

    def __init__(self, remove: Path | None) -> None:
        reading, self._writing = os.pipe()  # programs that we start do not inherit the writing end
        try:
            self._shell = subprocess.Popen(  # noqa: S603 - the script above
                ["/bin/sh", "-c", _WATCHDOG, "noetl-broker-watchdog", str(remove or "")],
                cwd="/",
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            os.close(self._writing)
            raise
        finally:
            os.close(reading)

    def watch(self, process_id: int) -> None:
        os.write(self._writing, f"{process_id}\n".encode())

    def dismiss(self) -> None:
        self._shell.kill()
        self._shell.wait()
        os.close(self._writing)


def _append_private(path: Path) -> BinaryIO:
    """Open a file that only we can read, also where an earlier run made it: the log quotes values."""
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.fchmod(opened, 0o600)
    return os.fdopen(opened, "ab")


def _kept_port(file: Path) -> int | None:
    """Return the port of the last start, if it is free: clients may know it."""
    try:
        port = int(file.read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return None
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections of the last run may remain
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError):
            return None
    return port


def _free_port() -> int:
    for _ in range(1000):
        port = secrets.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise OperatorFault(f"No free port on {HOST} between {_PORTS.start} and {_PORTS.stop}.")


def _becomes_ready(process: subprocess.Popen[bytes], pid_file: Path) -> bool:
    """Wait until the pid file says that the server takes connections; False if it ends or takes too long."""
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            lines = pid_file.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            lines = []
        # The pid is compared because a crash leaves an older file behind.
        if len(lines) > _STATUS_LINE and lines[0] == str(process.pid) and lines[_STATUS_LINE].strip() == "ready":
            return True
        time.sleep(_POLL_SECONDS)
    return False


def _end(process: subprocess.Popen[bytes], first: signal.Signals) -> None:
    for number, seconds in ((first, _STOP_SECONDS), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0)):
        process.send_signal(number)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
        return

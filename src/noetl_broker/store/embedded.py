"""A Postgres of our own, in a folder, that ends with the process that started it.

For the demo, the tests and the benchmarks. It listens on 127.0.0.1 (and on a socket in its folder, where the path is
short enough), asks for a password that was made for it, creates no account and touches nothing outside its folder.

How it ends with us: a watchdog, a few lines of shell in a session of its own, waits on a pipe whose other end only this
process holds. The kernel closes that end however we end, `kill -9` included, and the watchdog shuts Postgres down. The
kernel's own means (PR_SET_PDEATHSIG) is Linux only, is lost at a change of account, and fires when the *thread* that
started the child ends. SIGTERM needs no signal handler of ours for the same reason; leaving the `with` block, `close`
and a normal end of the interpreter shut down at once.
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
from typing import Final, Literal, Self
from urllib.parse import quote

from noetl_broker.errors import DatabaseFault, OperatorFault
from noetl_broker.store.binaries import Account, choose_account, environment, find_bin_folder, usable_bin_folder
from noetl_broker.store.cluster import USER, Place, check_major, initialize, socket_folder, usable_folder

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
) -> EmbeddedPostgres:
    """Start Postgres on the data in `folder`, created at the first start; None is a temporary folder.

    `settings` are Postgres' own, such as {"fsync": "off"}; a temporary folder is made in `temporary_root`, by default
    where the system keeps such. Raises OperatorFault when there is no usable Postgres or folder, DatabaseFault (with
    the last lines of its log) when it does not start.
    """
    taken = _OURS & settings.keys()
    if taken:
        raise OperatorFault(f"The embedded Postgres sets {', '.join(sorted(taken))} itself: leave it out.")
    account = choose_account()
    try:
        place = usable_folder(folder, account, temporary_root)
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
    """One running Postgres; as a context manager it is closed at the end of the block.

    `notice` is a sentence for the person at the terminal when the data are not where they were asked for, else None.
    """

    host: Final = HOST
    user: Final = USER
    port: int
    folder: Path
    bin_folder: Path
    notice: str | None
    socket_folder: Path | None

    def __init__(self, place: Place, *, account: Account, settings: Mapping[str, str], bin_folder: Path | None) -> None:
        """Prepare the programs and the data; starts nothing."""
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
        self.port = _free_port()
        atexit.register(self.close)

    def dsn(self, database: str = "postgres") -> str:
        """Return the connection URL of a database, with the password in it."""
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{quote(database, safe='')}"

    @property
    def running(self) -> bool:
        """Whether the server process is alive."""
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start the server and wait until it takes connections; raises DatabaseFault when it does not."""
        if self.running:
            return
        self.stop()  # A server that ended by itself still has its watchdog.
        complaint = self._attempt()
        # Another program may have taken the port since we looked; once it has been told to others it stays.
        while complaint and not self._settled and "Address already in use" in complaint:
            self.port = _free_port()
            complaint = self._attempt()
        if complaint:
            raise DatabaseFault(f"The embedded Postgres in {self.folder} does not start: {complaint}")
        self._settled = True

    def stop(self, mode: Mode = "fast") -> None:
        """Stop the server; `immediate` is a crash: the next start recovers from its log. `launch` starts it again."""
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
        """Stop the server for good, and remove its folder if it is a temporary one."""
        if os.getpid() != self._owner:
            return  # A fork inherits this object and its place in atexit, not the server.
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
        """Start the server once; None when it is ready, otherwise the end of its log."""
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
        with self._log.open("ab") as log:
            begin = log.tell()
            self._process = subprocess.Popen(  # noqa: S603 - Postgres, with arguments of ours
                [self.bin_folder / "postgres", "-D", self._data, *arguments],
                cwd=self.folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us: the broker lets go of the database before it stops
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
            return " / ".join(log.read().decode(errors="replace").strip().splitlines()[-5:]) or "it says nothing"


class _Watchdog:
    """The shell that shuts Postgres down when this process is no more (see the module)."""

    def __init__(self, remove: Path | None) -> None:
        reading, self._writing = os.pipe()  # closed in every program that we start: only we hold the writing end
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
    """Wait until the server says in its pid file that it takes connections; False when it ends or takes too long."""
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

"""A server that still runs on a folder's data although the process that started it has been killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

from noetl_broker.errors import DatabaseFault

_POLL_SECONDS: Final = 0.02
# As the watchdog of the server does it; it may be at work beside us, or killed as well.
_SIGNALS: Final = ((signal.SIGINT, 8.0), (signal.SIGQUIT, 6.0), (signal.SIGKILL, 5.0))


def end_leftover(data: Path) -> None:
    """Stop the server on this data, if one runs, and wait for its end; raises DatabaseFault if it does not end."""
    pid_file = data / "postmaster.pid"
    for number, seconds in _SIGNALS:
        process_id = _server(pid_file, data)
        if process_id is None:
            _disown(pid_file)
            return
        _signal(process_id, number)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and _server(pid_file, data) is not None:
            time.sleep(_POLL_SECONDS)
    if (process_id := _server(pid_file, data)) is not None:
        raise DatabaseFault(f"process {process_id} still serves the data in {data} and cannot be stopped: end it.")


def _disown(pid_file: Path) -> None:
    """Let the next server start if another program has the process id of a server that was killed.

    Postgres refuses a pid file that names a living process, except its parent. The rest of the file stays: it tells
    whether a session of the killed server still uses the data.
    """
    try:
        lines = pid_file.read_text(encoding="utf-8").splitlines(keepends=True)
        pid_file.write_text("".join([f"{os.getpid()}\n", *lines[1:]]), encoding="utf-8")
    except FileNotFoundError:
        return


def _server(pid_file: Path, data: Path) -> int | None:
    """Return the process that the pid file names, if it runs and serves this data."""
    try:
        process_id = int(pid_file.read_text(encoding="utf-8").partition("\n")[0])
    except (FileNotFoundError, ValueError):
        return None
    return process_id if str(data) in _command_line(process_id) else None


def _command_line(process_id: int) -> str:
    """Return the command line of a process; empty if it does not run."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{process_id}/cmdline").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
    answer = subprocess.run(  # noqa: S603 - a number
        ["/bin/ps", "-ww", "-o", "command=", "-p", str(process_id)], capture_output=True, text=True, check=False
    )
    return answer.stdout


def _signal(process_id: int, number: signal.Signals) -> None:
    try:
        os.kill(process_id, number)
    except ProcessLookupError:
        return

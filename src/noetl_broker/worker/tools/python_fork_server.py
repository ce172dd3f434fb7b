"""Starts the processes of python steps by fork: the standard library is imported once, not for each job.

The worker starts this file as a script, so it imports nothing of the package but `python_child.py`. There are three
kinds of processes:

- The server imports modules and forks keepers. It never sees a job.
- A keeper forks a runner for each job, one job at a time. When the runner ends, or the worker says so, the keeper kills
  it and all that it started. It reports to the worker how the runner ended. When the worker dies, it kills them, too.
- A runner reads one job, runs its code, writes the outcome, and is killed.

On Linux server and keepers are subreapers: a descendant whose parent ends becomes the child of its keeper, in any
session. If the keeper was killed, it becomes the child of the server. Elsewhere a keeper kills the runner's process
group alone.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

try:
    import ctypes

    LIBC = ctypes.CDLL(None)
except (ImportError, OSError, TypeError):  # a Python that was built without libffi
    LIBC = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from noetl_broker.worker.tools import python_child
else:  # by its path: the folder of this script is not on `sys.path`, because its modules shadow standard ones
    _spec = importlib.util.spec_from_file_location("python_child", Path(__file__).with_name("python_child.py"))
    python_child = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(python_child)

# Messages of the worker. A keeper answers a job with four bytes: the exit code of its runner.
NEW_KEEPER, JOB, END = b"k", b"j", b"e"
EXIT_CODE_BYTES = 4
# Many steps import these modules. Modules with threads (asyncio, logging, urllib.request) slow each fork by a third.
WARM = ("base64", "collections", "csv", "datetime", "decimal", "hashlib", "random", "re", "uuid")
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # of Linux
PROCESSES = "/proc"
HAS_PROC = Path(PROCESSES, "self/stat").exists()
KILL_SECONDS = 10  # for killing all processes of a step
# The runner's handlers of signals that may be sent to all processes of the worker.
HANDLERS = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}


def prctl(option: int, value: int) -> None:
    """Call prctl on Linux; elsewhere do nothing."""
    with contextlib.suppress(AttributeError):  # of None, or of another system's library
        LIBC.prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0)))


def become_subreaper() -> None:
    """Orphans of this process become its children, where /proc can list them."""
    if HAS_PROC:
        prctl(PR_SET_CHILD_SUBREAPER, 1)


def redirect_to_null(stream: int) -> None:
    """Redirect a stream to /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, stream)
    os.close(null)


class Wake:
    """A pipe that can be read when a child has ended or stopped. Each process makes its own."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        os.set_blocking(self.reader, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def clear(self) -> None:
        """Read what is there."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.reader, 4096)

    def close(self) -> None:
        """Forget it after a fork."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(self.reader)
        os.close(self._writer)


def receive(control: socket.socket, descriptors: int) -> tuple[bytes, list[int]]:
    """The next message of the worker, one byte, with its descriptors. Empty when the worker is gone."""
    try:
        message, received, _, _ = socket.recv_fds(control, 1, descriptors)
    except ConnectionError:
        return b"", []
    for descriptor in received:
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - the standard library's own form
    return message, received


def serve(control: socket.socket) -> NoReturn:
    """Fork a keeper at each message of the worker, until the worker is gone."""
    keepers: set[int] = set()
    wake, poll = Wake(), select.poll()
    poll.register(control, select.POLLIN)
    poll.register(wake.reader, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if wake.reader in ready:
            wake.clear()
            watch_keepers(keepers)
        if control.fileno() not in ready:
            continue
        message, received = receive(control, 1)
        if not message:
            os._exit(0)
        for descriptor in received:
            keepers.update(fork_keeper(socket.socket(fileno=descriptor), control, wake))
        with contextlib.suppress(ConnectionError):
            control.sendall(message)


def fork_keeper(own: socket.socket, control: socket.socket, wake: Wake) -> list[int]:
    """Fork a keeper and return its process id. If it cannot be forked, the worker sees that its socket is closed."""
    with own, contextlib.suppress(OSError):
        if (keeper := os.fork()) > 0:
            return [keeper]
        control.close()
        wake.close()
        keep(own)
    return []


def watch_keepers(keepers: set[int]) -> None:
    """Continue keepers that a step has stopped, and kill what the steps of killed keepers have left.

    When such a process ends, it may have left another.
    """
    left = False
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            if pid == 0:
                break
            if os.WIFSTOPPED(status):
                os.kill(pid, signal.SIGCONT)
                continue
            left = left or status != 0 or pid not in keepers
            keepers.discard(pid)
    if left and HAS_PROC:
        for child in children() - keepers:
            kill_with_group(child)


def keep(control: socket.socket) -> NoReturn:
    """Serve one job after another, until the worker is gone."""
    os.setsid()
    become_subreaper()
    wake = Wake()
    while True:
        message, received = receive(control, 3)
        if not message:
            os._exit(0)
        if message != JOB:
            continue  # the runner had ended by itself
        try:
            keeper, runner = os.getpid(), os.fork()
        except OSError as error:
            refuse(received[0], error)
            runner = 0
        else:
            if runner == 0:
                control.close()
                wake.close()
                run(keeper, *received)
        for descriptor in received:
            os.close(descriptor)
        status = end_all(runner, wait_for(runner, control, wake)) if runner else 0
        try:
            control.sendall(os.waitstatus_to_exitcode(status).to_bytes(EXIT_CODE_BYTES, "big", signed=True))
        except ConnectionError:
            os._exit(0)


def refuse(channel: int, error: OSError) -> None:
    """Tell the worker that there can be no process for the job."""
    message = f"its process cannot be started: {error}"
    fault = {"message": message, "type": "process_died", "retryable": True}
    with contextlib.suppress(ConnectionError):
        python_child.write_line(channel, {"error": fault})


def run(keeper: int, channel: int, output: int, errors: int) -> NoReturn:
    """Run a job in this process. A fork that returned from the step's code ends here, as a program ends."""
    os.setsid()
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper:
        os._exit(1)
    for stream, descriptor in ((1, output), (2, errors)):
        os.dup2(descriptor, stream)
        os.close(descriptor)
    for number, handler in HANDLERS.items():
        signal.signal(number, handler)
    if (numbers := sys.modules.get("numpy.random")) is not None:
        numbers.seed()  # `random` does so itself after a fork
    gc.enable()
    python_child.serve_one(channel)
    sys.exit(0)


def wait_for(runner: int, control: socket.socket, wake: Wake) -> int | None:
    """Wait until the runner ends, and return its status; None when the worker ends the job or is gone."""
    poll = select.poll()
    poll.register(wake.reader, select.POLLIN)
    poll.register(control, select.POLLIN)
    while True:
        wake.clear()
        for pid, status in reaped():
            if pid == runner:
                return status
        if control.fileno() in dict(poll.poll()):
            with contextlib.suppress(ConnectionError):
                control.recv(1)
            return None


def reaped() -> list[tuple[int, int]]:
    """The process id and the status of each child that has ended."""
    found = []
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            found.append(ended)
    return found


def end_all(runner: int, status: int | None) -> int:
    """Kill the runner and all that it started, wait for them, and return the runner's status.

    Processes of another user cannot be killed: this process ends after KILL_SECONDS.
    """
    signal.alarm(KILL_SECONDS)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(runner, signal.SIGKILL)
    if status is None:
        os.kill(runner, signal.SIGKILL)  # it may not have its own group yet
        status = os.waitpid(runner, 0)[1]
    with contextlib.suppress(ChildProcessError):
        # The children of each process that dies become children of this one.
        while True:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                for child in children():
                    kill_with_group(child)
                os.waitpid(-1, 0)
    signal.alarm(0)
    return status


def children() -> set[int]:
    """The children of this process, including zombies."""
    own, found = os.getpid(), set()
    for entry in os.scandir(PROCESSES):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            parent = Path(entry.path, "stat").read_bytes().rpartition(b")")[2].split()[1]
            if int(parent) == own:
                found.add(int(entry.name))
    return found


def kill_with_group(child: int) -> None:
    """Kill a child and its process group at once, so that nobody in it can start another process."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        group = os.getpgid(child)
        os.kill(child, signal.SIGKILL)
        if group != os.getpgrp():
            os.killpg(group, signal.SIGKILL)


def main(control: socket.socket, modules: list[str]) -> NoReturn:
    """Import the modules, tell the worker, and serve it."""
    control.set_inheritable(False)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # an import that never ends does not look at the socket
    # Python reads the properties of its streams at its start: they are pipes then, as in a job.
    for stream in (0, 1, 2):
        redirect_to_null(stream)
    for number in HANDLERS:
        signal.signal(number, signal.SIG_IGN)
    become_subreaper()
    for name in (*WARM, *modules):
        try:
            importlib.import_module(name)
        except BaseException as error:  # noqa: BLE001 - any exception of a module is the answer
            message = f"cannot preload {name}: {type(error).__name__}: {error}"
            python_child.write_line(control.fileno(), {"error": message})
            os._exit(1)
    gc.collect()
    gc.disable()  # its marks would copy pages that are shared with the runners
    gc.freeze()
    python_child.write_line(control.fileno(), {"threads": thread_count()})
    serve(control)


def thread_count() -> int:
    """The threads of this process; 1 where they cannot be counted."""
    return len(list(Path(PROCESSES, "self/task").iterdir())) if HAS_PROC else 1


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])

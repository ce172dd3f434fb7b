"""An interpreter that has the program imported and forks for each command: 20 ms in place of 400.

`tests.processes` starts it and sends it commands through the socket that is its standard input. A child has its own
descriptors, folder, environment and arguments, and it ends as `python -m noetl_broker` ends.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import select
import socket
import sys
import threading
import time
from importlib import import_module

from noetl_broker.cli.main import COMMANDS
from tests.warm_children import MESSAGE_BYTES, PID_BYTES, fork_children

STATUS_BYTES = 4
CONSOLE = "noetl_broker.console.app"


def serve(control: socket.socket) -> tuple[str, list[str]]:
    """Fork for each message; gives a child its module and arguments. It ends the server with the socket."""
    running: dict[int, tuple[int, int]] = {}  # a descriptor of each child: its process id, and where its end is told
    waiting = select.poll()
    waiting.register(control, select.POLLIN)
    while True:
        for ready, _ in waiting.poll():
            if ready != control.fileno():
                pid, told = running.pop(ready)
                waiting.unregister(ready)
                os.close(ready)
                os.write(told, os.waitpid(pid, 0)[1].to_bytes(STATUS_BYTES, sys.byteorder))
                os.close(told)
                continue
            message, descriptors, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 4)
            if not message:
                os._exit(0)
            command = json.loads(message)
            _import_console(command["arguments"])
            pid = os.fork()
            if pid == 0:
                control.detach()
                module, arguments = _become(command, descriptors[:3])
                child_of_command = fork_children() if "--processes" in arguments else None
                return _become(*child_of_command) if child_of_command else (module, arguments)
            for descriptor in descriptors[:3]:
                os.close(descriptor)
            child = os.pidfd_open(pid)
            running[child] = pid, descriptors[3]
            waiting.register(child, select.POLLIN)
            control.send(pid.to_bytes(PID_BYTES, sys.byteorder))


def _import_console(arguments: list[str]) -> None:
    """Import the console before the first command that serves it: 400 ms, which the others need no more."""
    if CONSOLE not in sys.modules and not {"console", "dev"}.isdisjoint(arguments):
        for name in (CONSOLE, "noetl_broker.console.server"):
            import_module(name)
        gc.collect()
        gc.freeze()


def _become(command: dict[str, object], descriptors: list[int]) -> tuple[str, list[str]]:
    """Take over streams, folder and environment of a command; returns its module and arguments."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.closerange(len(descriptors), 4096)
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=stream is sys.stderr or os.isatty(stream.fileno()))  # type: ignore[union-attr]
    environment, folder, arguments = command["environment"], command["folder"], command["arguments"]
    module = command["module"]
    assert isinstance(module, str)
    assert isinstance(environment, dict)
    assert isinstance(folder, str)
    assert isinstance(arguments, list)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    os.chdir(folder)
    sys.path[0] = folder
    return module, arguments


def _run(module: str) -> None:
    """Run the command and end with its exit code.

    Freeing all objects takes 200 ms, as it copies the pages that the child shares. So this does what else the
    interpreter does at its end, and leaves all other endings to it: threads, an output that is closed, an exception.
    """
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        others = {thread for thread in threading.enumerate() if not thread.daemon} - {threading.main_thread()}
        if others or not isinstance(end.code, int | None):
            raise
        atexit._run_exitfuncs()
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:
            raise end from None
        os._exit((end.code or 0) & 0xFF)


if __name__ == "__main__":
    for entry in COMMANDS.values():
        import_module(f"noetl_broker.cli.{entry.module}")
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    gc.collect()
    gc.freeze()
    module, sys.argv[1:] = serve(control)
    _run(module)

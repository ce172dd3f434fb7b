"""The processes that a warm command starts itself, such as those of `run --processes 2`, forked as it was forked.

A helper of the command forks them from the state that the command began with. It forks twice and ends the one in
between, so that the kernel makes each of them a child of the command, which sees its end and its exit code.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

PR_SET_CHILD_SUBREAPER = 36  # of Linux
PID_BYTES = 4
MESSAGE_BYTES = 1 << 20
PROGRAM = "noetl_broker"
# Positions among the arguments of `_fork_exec`, which runs a new process for `subprocess`.
ENVIRONMENT, STDIN, STDOUT, STDERR, NEW_SESSION = 5, 6, 9, 11, 15
_subprocess: Any = subprocess
_fork_exec = _subprocess._fork_exec


def fork_children() -> tuple[dict[str, object], list[int]] | None:
    """Fork the helper. Returns None in the command; in each child its request and its three descriptors."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if os.fork() == 0:
        ours.close()
        # The end of the command's output is the end of the last process that can write to it.
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(nowhere, descriptor)
        os.close(nowhere)
        return _serve(theirs)
    theirs.close()

    def fork_exec(*arguments: Any) -> int:
        if [*map(os.fsdecode, arguments[0][:3])] != [sys.executable, "-m", PROGRAM]:
            return int(_fork_exec(*arguments))
        return _ask(ours, arguments)

    _subprocess._fork_exec = fork_exec
    return None


def _ask(helper: socket.socket, arguments: tuple[Any, ...]) -> int:
    """Have a child forked; returns its process id."""
    variables = (os.fsdecode(variable).partition("=") for variable in arguments[ENVIRONMENT])
    request = {
        "module": PROGRAM,
        "arguments": [*map(os.fsdecode, arguments[0][3:])],
        "folder": str(Path.cwd()),
        "environment": {name: value for name, _, value in variables},
        "new_session": arguments[NEW_SESSION],
    }
    descriptors = [arguments[STDIN], arguments[STDOUT], arguments[STDERR]]
    given = [number if descriptor == -1 else descriptor for number, descriptor in enumerate(descriptors)]
    socket.send_fds(helper, [json.dumps(request).encode()], given)
    return int.from_bytes(helper.recv(PID_BYTES), sys.byteorder)


def _serve(control: socket.socket) -> tuple[dict[str, object], list[int]]:
    """In the helper: fork for each request until the command ends; returns in a child."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 3)
        if not message:
            os._exit(0)
        reading, writing = os.pipe()
        between = os.fork()
        if between == 0:
            if os.fork() == 0:
                control.detach()
                request: dict[str, object] = json.loads(message)
                if request["new_session"]:
                    os.setsid()
                os.write(writing, os.getpid().to_bytes(PID_BYTES, sys.byteorder))
                os.close(writing)
                os.close(reading)
                return request, descriptors
            os._exit(0)
        for descriptor in (*descriptors, writing):
            os.close(descriptor)
        os.waitpid(between, 0)  # then the child is one of the command
        control.send(os.read(reading, PID_BYTES))
        os.close(reading)

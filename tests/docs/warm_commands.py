"""A `noetl-broker` for the scripts of pages. It hands a command to the warm interpreter of this test process.

The script's shell starts a small client in place of the program. The client sends its arguments, folder, environment
and streams to a thread of this process, passes on signals, and ends as the command ends.
"""

from __future__ import annotations

import atexit
import json
import os
import shlex
import shutil
import socket
import sys
import tempfile
import threading
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path

from tests.processes import WarmProcess

MOST_BYTES = 1 << 17
CLIENT = """
import json, os, signal, socket, sys
SIGNALS = {{signal.SIGHUP, signal.SIGINT, signal.SIGTERM}}
signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server.connect({address!r})
command = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [command], [0, 1, 2])
pid = int(server.recv(20))
for number in SIGNALS:
    signal.signal(number, lambda number, frame: os.kill(pid, number))
signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
code = int(server.recv(20))
os._exit(code if code >= 0 else 128 - code)
"""


@cache
def programs() -> Path | None:
    """Return the folder with the `noetl-broker` of scripts; None where no interpreter is kept warm."""
    if sys.platform != "linux":
        return None
    folder = Path(tempfile.mkdtemp(prefix="noetl-broker-docs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    atexit.register(listener.close)
    listener.bind(str(folder / "commands"))
    listener.listen()
    threading.Thread(target=_serve, args=(listener,), daemon=True).start()
    (folder / "client.py").write_text(CLIENT.format(address=str(folder / "commands")), encoding="utf-8")
    program = folder / "noetl-broker"
    client = shlex.join([sys.executable, "-IS", str(folder / "client.py")])
    program.write_text(f'#!/bin/sh\nexec {client} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return folder


def _serve(listener: socket.socket) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:  # the process ends
            return
        threading.Thread(target=_run, args=(client,), daemon=True).start()


def _run(client: socket.socket) -> None:
    """Run one command to its end."""
    with client, ExitStack() as opened:
        message, descriptors, _, _ = socket.recv_fds(client, MOST_BYTES, 3)
        if not message:  # the client was killed
            return
        for descriptor in descriptors:
            opened.callback(os.close, descriptor)
        stdin, stdout, stderr = descriptors
        arguments, folder, environment = json.loads(message)
        process = WarmProcess(arguments, cwd=Path(folder), env=environment, stdin=stdin, stdout=stdout, stderr=stderr)
        opened.close()
        with suppress(OSError):  # the client was killed
            client.send(str(process.pid).encode())
            client.send(str(process.wait()).encode())

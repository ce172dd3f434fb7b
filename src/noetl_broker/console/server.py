"""Serves the application over HTTP until it is told to stop; the commands `console` and `dev` use it."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn
from fastapi import FastAPI

from noetl_broker.console.protocol import BoundedProtocol, ConnectionLimits
from noetl_broker.errors import OperatorFault

BACKLOG = 128  # connections that the system queues, and that are taken at a time
STOP_SECONDS = 3  # that requests have to end when the server stops


class _Server(uvicorn.Server):
    """A server that leaves signals to the process, and says when it has begun."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.begun = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the application, then take requests."""
        await super().startup(sockets)
        self.begun.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing: the command handles signals."""
        yield


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens; `port` 0 is any free one. Raises OperatorFault with what to change."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind, protocol)  # asyncio sends at once only where it reads that this is TCP
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(BACKLOG)
    except OSError as error:
        raise OperatorFault(
            f"the console cannot listen on port {port} of {host}: {error.strerror or error}; give a free --port, and as"
            " --host an address of this machine"
        ) from error
    return opened


def is_loopback(opened: socket.socket) -> bool:
    """Whether only this machine can reach the socket."""
    return ipaddress.ip_address(opened.getsockname()[0].partition("%")[0]).is_loopback


def url_of(opened: socket.socket) -> str:
    """The address for a browser: `http://127.0.0.1:8080`."""
    host, port = opened.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.asynccontextmanager
async def serving(app: FastAPI, opened: socket.socket, limits: ConnectionLimits | None = None) -> AsyncIterator[None]:
    """Serve while the block runs; the block begins when requests are answered."""
    given = limits or ConnectionLimits()

    class Protocol(BoundedProtocol):
        limits = given

    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        headers=[("Cross-Origin-Resource-Policy", "same-origin")],  # also of errors, and of what is refused early
        proxy_headers=False,
        backlog=BACKLOG,
        limit_concurrency=given.connections + 1,  # where all are busy, a further one gets 503
        timeout_keep_alive=given.idle_seconds,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve([opened]), name="console")
    try:
        begun = asyncio.create_task(server.begun.wait())
        await asyncio.wait({task, begun}, return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()
        if task.done():
            task.result()
        yield
    finally:
        app.state.services.changes.close()
        server.should_exit = True
        await task

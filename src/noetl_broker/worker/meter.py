"""Reads the data of a connection before a library does, and closes it at a fault."""

from __future__ import annotations

import asyncio
from typing import Any


class Meter(asyncio.Protocol):
    """Passes everything on to the protocol of a library, until `check` finds a fault in the data."""

    def __init__(self, library: Any, transport: Any) -> None:
        self._library = library
        self._transport = transport
        self._fault: Exception | None = None

    def begin(self) -> None:
        """Read the data of the connection from now on."""
        if self._transport.get_protocol() is not self:
            self._transport.set_protocol(self)

    def check(self, data: bytes) -> Exception | None:
        """The fault for which the connection is closed, before the library reads this data."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        """Pass data on, or close the connection."""
        if self._fault is None:
            self._fault = self.check(data)
            if self._fault is None:
                self._library.data_received(data)
            else:
                self._transport.abort()

    def eof_received(self) -> bool | None:
        """Pass it on."""
        ends: bool | None = self._library.eof_received()
        return ends

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on, with the fault."""
        self._library.connection_lost(self._fault or exc)

    def pause_writing(self) -> None:
        """Pass it on."""
        self._library.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._library.resume_writing()

"""The socket that the console listens on."""

from __future__ import annotations

import socket

from noetl_broker.console.server import open_socket


def test_answers_are_sent_at_once() -> None:
    """Where the protocol is not named, asyncio leaves Nagle's algorithm on, and each answer waits 40 ms."""
    with open_socket("127.0.0.1", 0) as opened:
        assert opened.proto == socket.IPPROTO_TCP

"""A proxy before a database that can refuse connections, like a server that is full or starting."""

from __future__ import annotations

import asyncio
import struct

from tests.chaos.proxy import Proxy
from tests.postgres import Database

# The messages of a refusing server by SQLSTATE. Without a SQLSTATE the proxy closes the connection silently.
MESSAGES = {
    "": "",
    "08006": "the connection to the server behind me was lost",
    "53300": "sorry, too many clients already",
    "57P01": "terminating connection due to administrator command",
    "57P02": "terminating connection because of crash of another server process",
    "57P03": "the database system is starting up",
    "58030": "could not open file: Input/output error",
}
FOR_EVER = 1 << 30


class RefusingProxy(Proxy):
    """Refuses the connections that `refuse` chooses; nothing at first."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.refuse("", times=0)

    def refuse(self, state: str, *, times: int, after: int = 0, named: str = "") -> None:
        """Refuse the next `times` connections whose first message contains `named`, after `after` of them."""
        self._state, self._left, self._after, self._named = state, times, after, named.encode()
        self.refused = 0
        self.all_refused = asyncio.Event()  # all `times` refusals have happened

    async def admits(self, first: bytes, client: asyncio.StreamWriter) -> bool:
        """Refuse it if it is its turn."""
        if self._named not in first or not self._left:
            return True
        if self._after:
            self._after -= 1
            return True
        self._left -= 1
        self.refused += 1
        if not self._left:
            self.all_refused.set()
        client.write(_refusal(self._state))
        return False


def _refusal(state: str) -> bytes:
    if not state:
        return b""
    fields = {"S": "FATAL", "V": "FATAL", "C": state, "M": MESSAGES.get(state, "go away")}
    body = b"".join(f"{key}{text}\0".encode() for key, text in fields.items()) + b"\0"
    return b"E" + struct.pack("!i", len(body) + 4) + body

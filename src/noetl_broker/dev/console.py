"""The console of a folder: its port and its token stay the same from run to run."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from socket import socket
from typing import Final

from noetl_broker.dev_folder import DevFolder
from noetl_broker.errors import OperatorFault
from noetl_broker.store.admin.api_tokens import check_token, create_token
from noetl_broker.store.connect.dsn import Database
from noetl_broker.store.connect.session import session

LOOPBACK: Final = "127.0.0.1"


async def console_token(database: Database, place: DevFolder) -> str:
    """The token of an operator. The token of the run before is used again if it is still valid."""
    kept = place.read_console_token()
    async with session(database, name="dev") as connection:
        found = await check_token(connection, kept)
        if kept is not None and found.role == "operator":
            return kept
        name = f"dev-{secrets.token_hex(3)}" if found.any_token else "dev"
        token, _ = await create_token(connection, name, "operator", None)
    place.write_console_token(token)
    return token


def open_console(
    place: DevFolder, open_socket: Callable[[str, int], socket], port: int, note: Callable[[str], None], *, is_set: bool
) -> socket:
    """Open the port if it `is_set`, else that of the last run; if another program has the default port, any port."""
    if is_set:
        return open_socket(LOOPBACK, port)
    for choice in filter(None, (place.read_console_port(), port)):
        with contextlib.suppress(OperatorFault):
            return open_socket(LOOPBACK, choice)
    opened = open_socket(LOOPBACK, 0)
    taken = opened.getsockname()[1]
    place.write_console_port(taken)
    note(f"another program has port {port}: the console is on port {taken}, also at the next start")
    return opened

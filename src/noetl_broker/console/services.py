"""The options of a console, and the services that its routes share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from fastapi import Request

from noetl_broker.console.changes import Changes
from noetl_broker.console.connections import REQUEST_SECONDS, Connections
from noetl_broker.console.sign_in import SignIn
from noetl_broker.console.threads import Threads
from noetl_broker.console.trusted_header import TrustedHeader
from noetl_broker.playbook import PlaybookRules
from noetl_broker.store.connect.dsn import Database

OWN = 2  # connections for tokens, health and streams
AT_ONCE = 2  # requests that compute much, of each kind
LONG_SECONDS = 60.0  # that one of many executions, or of all turns, may take


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleOptions:
    """The settings of the console: a database, and the limits for playbooks that it reads.

    `tokens_demanded`: it is reached by others. Without it, tokens are demanded once there was one.
    `trusted_header`: a proxy says who asks; then a token is demanded of all others.
    `signs_in_by_address`: `/?token=…` signs in. Addresses are kept by browsers and proxies, so only `dev` does this.
    `token_seconds`: that an answer of the database about a token holds. After `heartbeat_seconds`, a stream says that
    it is alive, and its token is checked again.
    """

    database: Database
    playbook_rules: PlaybookRules = field(default_factory=PlaybookRules)
    keep_keys: str = "365d"
    tokens_demanded: bool = False
    trusted_header: TrustedHeader | None = None
    signs_in_by_address: bool = False
    token_seconds: float = 2.0
    heartbeat_seconds: float = 15.0


class Services:
    """The connections to the database, the threads, the streams, and who may use them."""

    def __init__(self, options: ConsoleOptions) -> None:
        self.options = options
        database = options.database
        self.connections = Connections(database)
        self.own_connections = Connections(database, size=OWN)  # free while requests hold all others
        # Of many executions, or of all turns of one: replay, back-test, bulk.
        self.long_work = Threads(database, size=AT_ONCE, seconds=LONG_SECONDS)
        # Of one execution or one playbook: explain, graph, check.
        self.short_work = Threads(database, size=AT_ONCE, seconds=REQUEST_SECONDS)
        self.sign_in = SignIn(
            self.own_connections,
            demanded=options.tokens_demanded or options.trusted_header is not None,
            checked_seconds=options.token_seconds,
        )
        self.changes = Changes(self.own_connections)

    async def close(self) -> None:
        """End the streams, and close the connections."""
        self.changes.close()
        await asyncio.gather(
            *(each.close() for each in (self.long_work, self.short_work, self.connections, self.own_connections))
        )


def services_of(request: Request) -> Services:
    """The services of the application that serves a request; `create_app` puts them there."""
    found: Services = request.app.state.services
    return found

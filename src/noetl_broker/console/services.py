"""The services that the routes of one application share."""

from __future__ import annotations

import asyncio

from fastapi import Request

from noetl_broker.console.changes import Changes
from noetl_broker.console.connections import REQUEST_SECONDS, Connections
from noetl_broker.console.sign_in import SignIn
from noetl_broker.console.threads import Threads
from noetl_broker.playbook import PlaybookRules
from noetl_broker.store.connect.dsn import Database

TOKEN_SECONDS = 2.0  # that an answer of the database about a token holds
HEARTBEAT_SECONDS = 15.0  # after which a stream says that it is alive, and its token is checked again
OWN = 2  # connections for tokens, health and streams
AT_ONCE = 2  # requests that compute much, of each kind
LONG_SECONDS = 60.0  # that one of many executions, or of all turns, may take


class Services:
    """The connections to the database, the threads, the streams, who may use them, and the limits for playbooks."""

    def __init__(
        self,
        database: Database,
        playbook_rules: PlaybookRules,
        *,
        tokens_demanded: bool,
        token_seconds: float = TOKEN_SECONDS,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self.database = database
        self.connections = Connections(database)
        self.own_connections = Connections(database, size=OWN)  # free while requests hold all others
        # Of many executions, or of all turns of one: replay, back-test, bulk.
        self.long_work = Threads(database, size=AT_ONCE, seconds=LONG_SECONDS)
        # Of one execution or one playbook: explain, graph, check.
        self.short_work = Threads(database, size=AT_ONCE, seconds=REQUEST_SECONDS)
        self.sign_in = SignIn(self.own_connections, demanded=tokens_demanded, checked_seconds=token_seconds)
        self.changes = Changes(self.own_connections)
        self.heartbeat_seconds = heartbeat_seconds
        self.playbook_rules = playbook_rules

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

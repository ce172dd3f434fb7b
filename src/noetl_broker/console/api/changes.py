"""Changes of executions as a stream of server-sent events."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import suppress
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from noetl_broker.console.access import Viewer, check_again
from noetl_broker.console.changes import Changes, turns_of
from noetl_broker.console.connections import Connections
from noetl_broker.console.problem import RETRY_SECONDS, Refusal
from noetl_broker.console.services import services_of
from noetl_broker.errors import BrokerError, DatabaseFault, NotFoundFault
from noetl_broker.service.models.values import GivenId

router = APIRouter(prefix="/changes", tags=["changes"])

MOST_IDS = 200
EVENT_STREAM = "text/event-stream"
DOCUMENTED: Final[dict[int | str, dict[str, Any]]] = {
    HTTPStatus.OK.value: {
        "description": "Events of the names `changes`, `attention` and `database`; the data of each is a JSON object.",
        "content": {EVENT_STREAM: {"schema": {"type": "string"}}},
    }
}


@router.get("", response_class=StreamingResponse, responses=DOCUMENTED)
async def stream_changes(
    request: Request,
    caller: Viewer,
    execution_id: Annotated[
        list[GivenId] | None, Query(max_length=MOST_IDS, description="of which executions; without it of all")
    ] = None,
) -> StreamingResponse:
    """Follow changes of executions.

    Each event `changes` has `{"changes": [{"execution_id", "turn", "status"}]}`: where these executions stand now. A
    stream of named executions begins with where each of them stands. A stream of all begins with an empty list: it
    reports what changes from then on. It watches the newest 500 executions, and the newest 500 that have not ended. An
    event `attention` has `{"approvals", "dead_letters"}`: how many wait for a person, at the beginning and when they
    change. While the database does not answer, an event `database` has `{"away": true}`; when it is back, `{"away":
    false}`.
    """
    changes = services_of(request).changes
    if changes.is_full(caller.name):
        raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too many streams are open", {"Retry-After": str(RETRY_SECONDS)})
    ids = None if execution_id is None else frozenset(execution_id)
    if ids is not None:
        await _require(ids, services_of(request).own_connections)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_messages(request, changes, ids, caller.name), media_type=EVENT_STREAM, headers=headers)


async def _require(ids: frozenset[int], connections: Connections) -> None:
    """Raise NotFoundFault if one of these executions does not exist. While the database is away, nobody knows."""
    with suppress(DatabaseFault):
        async with connections.borrow() as connection:
            found, _ = await turns_of(connection, ids)
        if missing := ids - found.keys():
            raise NotFoundFault(f"no execution {min(missing)}; noetl-broker executions lists them")


async def _messages(request: Request, changes: Changes, ids: frozenset[int] | None, caller: str) -> AsyncIterator[str]:
    if changes.is_full(caller):  # of requests at the same time, others came first
        return
    with changes.subscribe(ids, caller) as stream:
        yield ": open\n\n"
        while True:
            check_at = time.monotonic() + services_of(request).options.heartbeat_seconds
            while (seconds := check_at - time.monotonic()) > 0:
                for message in await changes.next(stream, seconds):
                    yield message
                if changes.closed:
                    return
            if not await _may_go_on(request):
                return
            yield ": still here\n\n"


async def _may_go_on(request: Request) -> bool:
    """Whether the caller of a stream may still read it. While the database is away, the stream goes on."""
    try:
        await check_again(request)
    except Refusal:
        return False
    except BrokerError:
        pass
    return True

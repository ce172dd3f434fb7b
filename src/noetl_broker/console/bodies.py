"""Bounds on the bodies of requests: their bytes, and the values of their JSON.

To read JSON holds up all other requests, also in a thread: the reader never lets go of Python's lock.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from fastapi import Request
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from noetl_broker.console import problem
from noetl_broker.console.access import caller_of
from noetl_broker.errors import BrokerError
from noetl_broker.service.action import EVERY_ROLE, Role
from noetl_broker.service.typed_json import MANY_VALUES, has_many_values

MAX_BODY_BYTES: Final = 8 << 20
SMALL_BODY_BYTES: Final = 64 << 10  # that anybody may send, as to sign in; it is too small for many values
TOO_LARGE: Final = f"the body is too large: it may have {MAX_BODY_BYTES >> 20} MiB"


def limit_bodies(app: ASGIApp) -> ASGIApp:
    """Refuses a body of more than MAX_BODY_BYTES, before it is read or as soon as it grows past them.

    A viewer may not send a body of more than SMALL_BODY_BYTES, or of an unknown size. It may not have more than
    MOST_VALUES.
    """

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope if scope["type"] == "http" else {"headers": []})
        announced = headers.get("content-length", "")
        size = int(announced) if announced.isdecimal() else 0
        if not size and "transfer-encoding" not in headers:
            return await app(scope, receive, send)
        request = Request(scope, receive)
        try:
            whole = [{"type": "http.request", "body": await _read(request, size)}]
        except ClientDisconnect:
            return None
        except (BrokerError, problem.Refusal) as error:
            answer = await problem.answer_problem(request, problem.refusal_of(request, error))
            return await answer(scope, receive, send)

        async def next_message() -> Message:
            return whole.pop() if whole else await receive()

        return await app(scope, next_message, send)

    return serve


async def _read(request: Request, size: int) -> bytes:
    """The whole body. Raises Refusal, and ClientDisconnect if the client hangs up before its end."""
    too_large = problem.Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, TOO_LARGE)
    if size > MAX_BODY_BYTES:
        raise too_large
    if size > SMALL_BODY_BYTES or "transfer-encoding" in request.headers:
        (await caller_of(request)).require(EVERY_ROLE - {Role.VIEWER})
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise too_large
    text = bytes(body)
    if has_many_values(text):
        raise problem.Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is too large: {MANY_VALUES}")
    return text

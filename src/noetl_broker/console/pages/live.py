"""Answers to the scripts of open pages: pages at one address share one, whoever has them open.

The role belongs to what is shared: a viewer and an operator never get the same answer. Nobody gets one without a check
of the own token. The name of the caller and the token of forms are put in for each.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from typing import Final, NamedTuple

from fastapi import Request
from fastapi.responses import Response
from markupsafe import escape
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from noetl_broker.console.access import COOKIE, caller_of
from noetl_broker.console.pages import csrf, failures
from noetl_broker.console.pages.screen import SHARED, Blanks
from noetl_broker.console.pages.shared import ReadAllowance, SharedReads, TooSoonError
from noetl_broker.console.problem import Refusal
from noetl_broker.errors import BrokerError
from noetl_broker.service.action import Caller
from noetl_broker.visible import visible_lines

HEADER: Final = "x-live"  # of the requests of scripts
AGE: Final = "X-Age-Ms"  # of an answer: how long ago it was begun
KEPT_HEADERS: Final = (b"content-type",)  # of a shared answer; a cookie is never shared
MOST_BYTES: Final = 1 << 20  # of an answer that is kept


class Kept(NamedTuple):
    """A shared answer; `began` is a moment of the monotonic clock."""

    began: float
    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes


class LiveAnswers:
    """Answers requests with HEADER from what is shared. All others go on, and end what was shared of their address."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._shared = SharedReads()
        self._allowance = ReadAllowance()
        self._blanks = Blanks(f"name-{secrets.token_hex(16)}", secrets.token_hex(32))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        if HEADER in request.headers:
            await (await self._answer(request))(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            caller = getattr(request.state, "caller", None)
            if caller is not None:  # the page must not go back to what was shared before
                self._shared.drop(_key(request, caller))

    async def _answer(self, request: Request) -> Response:
        try:
            caller = await caller_of(request)
        except Refusal as refusal:
            return await failures.on_refusal(request, refusal)
        except BrokerError as fault:
            return await failures.on_fault(request, fault)
        key = _key(request, caller)
        try:
            kept: Kept = await self._shared.get(key, partial(self._load, request))
        except TooSoonError as fault:
            return Response(status_code=HTTPStatus.NO_CONTENT, headers={"Retry-After": f"{fault.seconds:.0f}"})
        if len(kept.body) > MOST_BYTES:
            self._shared.drop(key)
        own = Blanks(str(escape(visible_lines(caller.name))), _csrf_token(request))
        body = kept.body
        for blank, value in zip(self._blanks, own, strict=True):
            body = body.replace(blank.encode(), value.encode())
        response = Response(body, status_code=kept.status)
        response.headers.update({name.decode("latin-1"): value.decode("latin-1") for name, value in kept.headers})
        response.headers[AGE] = f"{(time.monotonic() - kept.began) * 1000:.0f}"
        return response

    async def _load(self, request: Request) -> Kept:
        return await self._allowance.run(_kind(request.url.path), partial(self._run, request))  # type: ignore[no-any-return]

    async def _run(self, request: Request) -> Kept:
        scope = {**request.scope, "state": dict(request.scope.get("state", {})), SHARED: self._blanks}
        began, started, parts = time.monotonic(), dict[str, Message](), list[bytes]()

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            started.setdefault(message["type"], message)
            parts.append(message.get("body", b""))

        await self._app(scope, receive, send)
        start = started["http.response.start"]
        headers = [(name, value) for name, value in start["headers"] if name.lower() in KEPT_HEADERS]
        return Kept(began, start["status"], headers, b"".join(parts))


def _key(request: Request, caller: Caller) -> tuple[object, ...]:
    return caller.role, COOKIE in request.cookies, request.url.path, request.url.query


def _kind(path: str) -> str:
    """The key under which the cost of a page is kept: its address without numbers."""
    return "".join(letter for letter in path if not letter.isdecimal())


def _csrf_token(request: Request) -> str:
    """The token for the forms of a browser; one without our cookie gets none that fits."""
    return csrf.token_of(request.cookies.get(csrf.COOKIE) or "", request.cookies.get(COOKIE))

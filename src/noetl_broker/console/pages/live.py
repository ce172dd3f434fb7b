"""Answers to the scripts of open pages: made one at a time, and shared by the pages of one role at one address.

Each answer says when its page may ask again. The pages come one after another, so scripts together take the console
SHARE of its time. The database works for a part of that. A viewer and an operator never share an answer, and nobody
gets one without a check of the own token. The script puts in the name of its reader and the token of forms.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Hashable
from contextlib import suppress
from http import HTTPStatus
from typing import Final, NamedTuple

from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from noetl_broker.console.access import COOKIE, caller_of
from noetl_broker.console.pages import failures
from noetl_broker.console.pages.screen import SHARED
from noetl_broker.console.problem import Refusal, refusal_of
from noetl_broker.errors import BrokerError
from noetl_broker.service.action import Caller

HEADER: Final = "x-live"  # of the requests of scripts
AGE: Final = "X-Age-Ms"  # of an answer: how long ago it was begun
SHARE: Final = 0.05  # of the time, in which answers are made
KEPT_SECONDS: Final = 1.0  # that an answer is kept, at least
MOST_SECONDS: Final = 10.0  # by which one slow answer holds up the next ones
MOST_KEPT: Final = 200
MOST_WAITING: Final = 10  # addresses; the pages at another one are told to ask again


class LiveAnswer(NamedTuple):
    """A shared answer. It was begun, and is kept, until these moments of the monotonic clock."""

    began: float
    until: float
    status: int
    body: bytes


class LiveAnswers:
    """Answers requests with HEADER from what is shared. All others go on, and end what was shared of their address."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._kept: dict[Hashable, asyncio.Task[LiveAnswer]] = {}
        self._turn = asyncio.Lock()
        self._next = 0.0  # when the next page may ask again

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http" or scope["method"] != "GET":
            return await self._app(scope, receive, send)
        request = Request(scope, receive)
        if HEADER in request.headers:
            return await (await self._answer(request))(scope, receive, send)
        try:
            return await self._app(scope, receive, send)
        finally:
            caller = getattr(request.state, "caller", None)
            if caller is not None:  # the page must not go back to what was shared before
                self._kept.pop(_key(request, caller), None)

    async def _answer(self, request: Request) -> Response:
        try:
            key = _key(request, await caller_of(request))
        except (BrokerError, Refusal) as error:
            return await failures.answer_page(request, refusal_of(request, error))
        kept = self._kept.get(key)
        if kept is None or (kept.done() and kept.result().until < time.monotonic()):
            self._kept.pop(key, None)
            if sum(not each.done() for each in self._kept.values()) >= MOST_WAITING:
                return Response(status_code=HTTPStatus.NO_CONTENT, headers=_pause(self._next))
            kept = self._kept[key] = asyncio.create_task(self._make(request))
            if len(self._kept) > MOST_KEPT:
                del self._kept[next(iter(self._kept))]
        answer = await asyncio.shield(kept)
        headers = {AGE: f"{(time.monotonic() - answer.began) * 1000:.0f}", **_pause(answer.until)}
        return HTMLResponse(answer.body, answer.status, headers)

    async def _make(self, request: Request) -> LiveAnswer:
        async with self._turn:
            began = time.monotonic()
            status, body = await self._run(request)
            now = time.monotonic()
            self._next = max(now, self._next) + min((now - began) / SHARE, MOST_SECONDS)
            return LiveAnswer(began, max(began + KEPT_SECONDS, self._next), status, body)

    async def _run(self, request: Request) -> tuple[int, bytes]:
        """The status and the page. An error has no page: it may name the caller."""
        scope = {**request.scope, "state": dict(request.scope.get("state", {})), SHARED: True}
        status, parts = HTTPStatus.INTERNAL_SERVER_ERROR.value, list[bytes]()

        async def send(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            parts.append(message.get("body", b""))

        with suppress(Exception):  # the page about it says it, and the log has it
            await self._app(scope, request.receive, send)
        return status, b"".join(parts) if status == HTTPStatus.OK else b""


def _pause(until: float) -> dict[str, str]:
    return {"Retry-After": f"{max(1, math.ceil(until - time.monotonic()))}"}


def _key(request: Request, caller: Caller) -> Hashable:
    return caller.role, COOKIE in request.cookies, request.url.path, request.url.query

"""Errors as pages: the same statuses and sentences as the API's."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl

from fastapi import Request
from fastapi.responses import RedirectResponse, Response

from noetl_broker.console.access import COOKIE, is_own_page
from noetl_broker.console.pages.cookies import TOKEN_FIELD
from noetl_broker.console.pages.rendering import link
from noetl_broker.console.pages.screen import Screen
from noetl_broker.console.problem import RETRY_SECONDS, Refusal

EDITED: Final = "/playbooks/edit"  # where a person writes a long text
HEADINGS: Mapping[HTTPStatus, str] = {
    HTTPStatus.BAD_REQUEST: "This cannot be done so",
    HTTPStatus.FORBIDDEN: "You may not do this",
    HTTPStatus.NOT_FOUND: "There is nothing here",
    HTTPStatus.CONFLICT: "This cannot be done now",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many attempts",
    HTTPStatus.SERVICE_UNAVAILABLE: "The database does not answer",
    HTTPStatus.INTERNAL_SERVER_ERROR: "A fault of this program",
}


async def answer_page(request: Request, refusal: Refusal) -> Response:
    """The page about a refusal; a caller who must sign in gets the way there."""
    if request.method == "POST" and request.url.path == EDITED and is_own_page(request):
        return await _kept_text(request, refusal)
    status = refusal.status
    if status is HTTPStatus.UNAUTHORIZED:
        wanted = Screen(request, None).here() if request.method == "GET" else None
        response: Response = RedirectResponse(link("/sign-in", next=wanted), status_code=HTTPStatus.SEE_OTHER)
        if COOKIE in request.cookies:  # each use of it counts as a failed sign-in
            response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return response
    response = Screen(request, getattr(request.state, "caller", None)).render(
        "error.html",
        title=HEADINGS.get(status, status.phrase),
        status=status,
        detail=refusal.detail,
        number=status.value,
        retry_seconds=RETRY_SECONDS if status is HTTPStatus.SERVICE_UNAVAILABLE else None,
    )
    response.headers.update(refusal.headers or {})
    return response


async def _kept_text(request: Request, refusal: Refusal) -> Response:
    """The text of a form that was refused, because its session is missing or has ended: it can be sent again."""
    body = (await request.body()).decode(errors="replace")
    fields = dict(await asyncio.to_thread(parse_qsl, body, keep_blank_values=True))
    return Screen(request, None).render(
        "kept_text.html",
        title="Your text is not lost",
        status=refusal.status,
        is_signed_out=refusal.status is HTTPStatus.UNAUTHORIZED,
        detail=refusal.detail,
        fields={name: text for name, text in fields.items() if name not in {TOKEN_FIELD, "content"}},
        content=fields.get("content", ""),
        action=EDITED,
    )

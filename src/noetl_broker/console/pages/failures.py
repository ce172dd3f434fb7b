"""Errors as pages: the same table from faults to statuses as the API's, and the same sentences."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException

from noetl_broker.console.access import COOKIE, is_own_page
from noetl_broker.console.pages import csrf
from noetl_broker.console.pages.rendering import link
from noetl_broker.console.pages.screen import Screen
from noetl_broker.console.problem import RETRY_SECONDS, Refusal, allowed_methods, field_error, sentence_of, status_of
from noetl_broker.errors import BrokerError
from noetl_broker.store.connect.sqlstates import reason_of, trace_of

EDITED = "/playbooks/edit"  # where a person writes a long text
log = structlog.get_logger(__name__)

HEADINGS: Mapping[HTTPStatus, str] = {
    HTTPStatus.BAD_REQUEST: "This cannot be done so",
    HTTPStatus.FORBIDDEN: "You may not do this",
    HTTPStatus.NOT_FOUND: "There is nothing here",
    HTTPStatus.CONFLICT: "This cannot be done now",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many attempts",
    HTTPStatus.SERVICE_UNAVAILABLE: "The database does not answer",
    HTTPStatus.INTERNAL_SERVER_ERROR: "A fault of this program",
}


def add_handlers(app: FastAPI) -> None:
    """Let the app answer every exception with a page."""
    handlers: Mapping[type[Exception], Callable[[Request, Any], Awaitable[Response]]] = {
        BrokerError: on_fault,
        Refusal: on_refusal,
        RequestValidationError: _on_wrong_fields,
        HTTPException: _on_http_exception,
        Exception: _on_bug,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def _page(request: Request, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    is_away = status is HTTPStatus.SERVICE_UNAVAILABLE
    response = Screen(request, getattr(request.state, "caller", None)).render(
        "error.html",
        title=HEADINGS.get(status, status.phrase),
        status=status,
        detail=detail,
        number=status.value,
        retry_seconds=RETRY_SECONDS if is_away else None,
    )
    response.headers.update(headers or {})
    if is_away:
        response.headers["Retry-After"] = str(RETRY_SECONDS)
    return response


async def on_fault(request: Request, fault: BrokerError) -> Response:
    """The page about a fault."""
    return _page(request, status_of(fault), sentence_of(request, fault))


async def on_refusal(request: Request, refusal: Refusal) -> Response:
    """The page about a refusal; a caller who must sign in gets the way there."""
    if request.method == "POST" and request.url.path == EDITED and is_own_page(request):
        return await _kept_text(request, refusal)
    if refusal.status is HTTPStatus.UNAUTHORIZED:
        wanted = request.url.path if request.method == "GET" else None
        if wanted is not None and request.url.query:
            wanted = f"{wanted}?{request.url.query}"
        response = RedirectResponse(link("/sign-in", next=wanted), status_code=HTTPStatus.SEE_OTHER)
        if COOKIE in request.cookies:  # each use of it counts as a failed sign-in
            response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return response
    return _page(request, refusal.status, refusal.detail, refusal.headers)


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
        fields={name: text for name, text in fields.items() if name not in {csrf.FIELD, "content"}},
        content=fields.get("content", ""),
        action=EDITED,
    )


async def _on_wrong_fields(request: Request, error: RequestValidationError) -> Response:
    found = [field_error(one) for one in error.errors()]
    return _page(request, HTTPStatus.BAD_REQUEST, "; ".join(f"{one.at}: {one.message}" for one in found))


async def _on_http_exception(request: Request, error: HTTPException) -> Response:
    status = HTTPStatus(error.status_code)
    details = {
        HTTPStatus.NOT_FOUND: f"the console has no page {request.url.path}",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{request.url.path} does not take {request.method}",
    }
    detail = error.detail if error.detail != status.phrase else details.get(status, error.detail)
    headers = {"Allow": allowed_methods(request)} if status is HTTPStatus.METHOD_NOT_ALLOWED else error.headers
    return _page(request, status, detail, headers)


async def _on_bug(request: Request, error: Exception) -> Response:
    log.error(
        "a page failed",
        method=request.method,
        path=request.url.path,
        error=reason_of(error),
        exc_info=trace_of(error),
    )
    return _page(request, HTTPStatus.INTERNAL_SERVER_ERROR, "the log of the console has its traceback")

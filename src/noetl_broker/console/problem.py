"""Errors as `application/problem+json` (RFC 9457): one table from our faults to statuses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from noetl_broker.errors import (
    BrokerError,
    DatabaseFault,
    ForbiddenFault,
    NotFoundFault,
    OperatorFault,
    PermissionFault,
    UnknownStepFault,
)
from noetl_broker.service.field_errors import message_of
from noetl_broker.store.connect.sqlstates import reason_of, trace_of

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")  # of routes
RETRY_SECONDS = 2  # after which a client may ask again while the database is away
MOST_ERRORS = 20  # wrong fields of one answer

# The status of each fault; the first family that fits counts.
STATUSES: tuple[tuple[type[Exception], HTTPStatus], ...] = (
    (NotFoundFault, HTTPStatus.NOT_FOUND),
    (UnknownStepFault, HTTPStatus.NOT_FOUND),
    (OperatorFault, HTTPStatus.BAD_REQUEST),
    (PermissionFault, HTTPStatus.FORBIDDEN),
    (ForbiddenFault, HTTPStatus.FORBIDDEN),
    (DatabaseFault, HTTPStatus.SERVICE_UNAVAILABLE),
    (BrokerError, HTTPStatus.CONFLICT),
)


class FieldError(BaseModel):
    """One wrong field: its path, such as `query.limit` or `body.payload`, and what is wrong."""

    at: str
    message: str


class Problem(BaseModel):
    """The document of every error."""

    type: str = "about:blank"  # `code` says which problem it is
    title: str = Field(description="the name of the HTTP status")
    status: int
    detail: str = Field(description="one sentence: what is wrong with which value, where, and what to do")
    code: str = Field(description="NB and the status, such as NB404")
    errors: list[FieldError] | None = Field(None, description="the wrong fields, if there are any")


# The content of an error answer in the OpenAPI document.
PROBLEM_CONTENT: Final = {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}}


@dataclass(eq=False)
class Refusal(Exception):
    """A request that is refused before or instead of its route: a status, a sentence, headers, wrong fields."""

    status: HTTPStatus
    detail: str
    headers: Mapping[str, str] | None = None
    errors: Sequence[FieldError] | None = None


def add_handlers(app: FastAPI, answer: Callable[[Request, Refusal], Awaitable[Response]]) -> None:
    """Let the app answer every exception so."""

    async def handle(request: Request, error: Exception) -> Response:
        return await answer(request, refusal_of(request, error))

    for kind in (BrokerError, Refusal, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, handle)


def refusal_of(request: Request, error: Exception) -> Refusal:
    """What is said about an error; the log has one that is a bug of this program."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, BrokerError):
        return refusal_of_fault(error, sentence_of(request, error))
    if isinstance(error, RequestValidationError):
        field = getattr(request.scope.get("route"), "body_field", None)
        body = None if field is None else field.field_info.annotation
        errors = [field_error(one, body) for one in error.errors()[:MOST_ERRORS]]
        said = "; ".join(f"{one.at}: {one.message}" for one in errors)
        return Refusal(HTTPStatus.BAD_REQUEST, said, errors=errors)
    if isinstance(error, HTTPException):
        return _of_http(request, error)
    return refusal_of_bug(error, method=request.method, path=request.url.path)


def refusal_of_fault(fault: BrokerError, sentence: str) -> Refusal:
    """What a sentence about a fault is sent with."""
    status = next(status for kind, status in STATUSES if isinstance(fault, kind))
    headers = {"Retry-After": str(RETRY_SECONDS)} if status is HTTPStatus.SERVICE_UNAVAILABLE else None
    return Refusal(status, sentence, headers)


def refusal_of_bug(error: Exception, **fields: str) -> Refusal:
    """What is said about an error that is a bug of this program; the log has it, with the fields of the request."""
    log.error("a request failed", **fields, error=reason_of(error), exc_info=trace_of(error))
    return Refusal(
        HTTPStatus.INTERNAL_SERVER_ERROR, "this is a bug of the program; the log of the console has its traceback"
    )


def sentence_of(request: Request, fault: BrokerError) -> str:
    """The message of a fault. Without a checked token, it has no address of the database; the log has it."""
    if not isinstance(fault, DatabaseFault) or hasattr(request.state, "caller"):
        return str(fault)
    log.warning("the database does not answer", error=str(fault))
    return "the database does not answer; the log of the console says why"


async def answer_problem(_request: Request, refusal: Refusal) -> Response:
    """The answer of the API."""
    document, headers = problem_of(refusal).model_dump(exclude_none=True), dict(refusal.headers or {})
    return JSONResponse(document, refusal.status, headers=headers, media_type=MEDIA_TYPE)


def problem_of(refusal: Refusal) -> Problem:
    """The document of a refusal."""
    status = refusal.status
    return Problem(
        title=status.phrase,
        status=status,
        detail=refusal.detail,
        code=f"NB{status.value}",
        errors=None if refusal.errors is None else [*refusal.errors],
    )


def field_error(found: Mapping[str, Any], body: Any = None) -> FieldError:
    """A wrong field, from what pydantic says of it; `body` is the type of the request's body."""
    at = ".".join(map(str, found["loc"]))
    if found["type"] == "json_invalid":
        message = f"it is not JSON: {found['ctx']['error']} at character {found['loc'][-1]}"
        return FieldError(at="body", message=message)
    return FieldError(at=at, message=message_of(found, body))


def _of_http(request: Request, error: HTTPException) -> Refusal:
    status, path = HTTPStatus(error.status_code), request.url.path
    nothing = f"there is nothing at {path}; /api/v1/openapi.json lists the routes"
    details = {
        HTTPStatus.NOT_FOUND: nothing if path.startswith("/api/") else f"the console has no page {path}",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{path} does not take {request.method}",
    }
    detail = error.detail if error.detail != status.phrase else details.get(status, error.detail)
    headers = dict(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = allowed_methods(request)
    return Refusal(status, detail, headers)


def allowed_methods(request: Request) -> str:
    """The value of `Allow`: the methods that the routes of this path take. The framework names those of one route."""
    found = [
        method
        for method in METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]
    return ", ".join(["HEAD", *found] if "GET" in found else found)

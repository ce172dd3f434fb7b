"""`create_app` gives the ASGI application: the API, and the console's pages beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from functools import cache, partial
from typing import Any

from fastapi import Depends, FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from noetl_broker import __version__
from noetl_broker.console import problem
from noetl_broker.console.access import refuse_unknown_parameters
from noetl_broker.console.api.routes import ROUTERS
from noetl_broker.console.bodies import limit_bodies
from noetl_broker.console.document import openapi_document, operations
from noetl_broker.console.pages import create_pages
from noetl_broker.console.pages.headers import add_headers
from noetl_broker.console.services import ConsoleOptions, Services
from noetl_broker.console.trusted_header import TrustedHeader

agents: Any
try:
    from noetl_broker.console.agents import transports as agents
except ImportError:  # the extra `mcp` is not installed
    agents = None

__all__ = ["ConsoleOptions", "TrustedHeader", "create_app"]

PREFIX = "/api/v1"
# A browser must not guess the type of an answer, and must not store it.
HEADERS = (("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"), ("Cache-Control", "no-store"))


def create_app(options: ConsoleOptions) -> FastAPI:
    """The application. The routes of `api.routes` are under /api/v1; all other paths are of the pages.

    With the extra `mcp`, agents are served at /mcp.
    """
    services = Services(options)
    pages = create_pages(services)
    endpoint = None if agents is None else agents.create_endpoint(services)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        try:
            async with nullcontext() if endpoint is None else endpoint.running:
                yield
        finally:
            await pages.state.examinations.close()
            await services.close()

    app = FastAPI(
        title="noetl-broker",
        version=__version__,
        lifespan=lifespan,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat the host of the request
    )
    app.state.services = services
    problem.add_handlers(app, problem.answer_problem)
    for router in ROUTERS:
        app.include_router(router, prefix=PREFIX, dependencies=[Depends(refuse_unknown_parameters)])
    if endpoint is not None:
        app.include_router(endpoint.router)
    listed = tuple(operations(ROUTERS, PREFIX))
    app.openapi = cache(partial(openapi_document, app, listed))  # type: ignore[method-assign] # the framework's own way
    app.add_middleware(_with_pages, pages=pages, own=() if agents is None else (agents.PATH,))
    app.add_middleware(limit_bodies)
    app.add_middleware(add_headers, headers=HEADERS)
    app.add_middleware(_head_as_get)
    return app


def _head_as_get(app: ASGIApp) -> ASGIApp:
    """Answers HEAD as GET, without the body."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        is_head = scope["type"] == "http" and scope["method"] == "HEAD"

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body"})  # the end, also of a stream

        await app({**scope, "method": "GET"} if is_head else scope, receive, send_head if is_head else send)

    return serve


def _with_pages(app: ASGIApp, pages: ASGIApp, own: tuple[str, ...]) -> ASGIApp:
    """Gives requests outside /api to the pages, except the app's `own` paths.

    So a path of the API that does not exist is answered by the API.
    """

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        path = f"{scope.get('path')}/"
        is_page = scope["type"] == "http" and not path.startswith(("/api/", *(f"{one}/" for one in own)))
        await (pages if is_page else app)(scope, receive, send)

    return serve

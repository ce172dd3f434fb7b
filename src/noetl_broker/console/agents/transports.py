"""How agents connect: `serve_stdio` for a program that starts this one, and `create_endpoint` for HTTP."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

from fastapi import APIRouter, Request, Response
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.types import Receive, Scope, Send

from noetl_broker.console.access import Viewer
from noetl_broker.console.agents.server import Context, create_server
from noetl_broker.console.bodies import MAX_BODY_BYTES
from noetl_broker.console.services import ConsoleOptions, Services
from noetl_broker.service.action import Caller
from noetl_broker.service.models.base import Role

PATH = "/mcp"


async def serve_stdio(options: ConsoleOptions, role: Role) -> None:
    """Answer on stdout what stdin asks, until it ends."""
    services = Services(options)
    caller = Caller(role=role, rules=options.playbook_rules, database=options.database, keep_keys=options.keep_keys)
    server = create_server(services, lambda _context: caller)
    try:
        async with stdio_server() as (asked, answers):
            await server.run(asked, answers, server.create_initialization_options())
    finally:
        await services.close()


def _caller(context: Context) -> Caller:
    """Who sent the request: `Viewer` has found out."""
    request: Request | None = context.request
    assert request is not None  # noqa: S101 - the library has it of HTTP
    caller: Caller = request.state.caller
    return caller


class Endpoint(NamedTuple):
    """The route of agents; it answers while `running` is entered."""

    router: APIRouter
    running: AbstractAsyncContextManager[None]


def create_endpoint(services: Services) -> Endpoint:
    """The route for one console. It keeps no session: the token of each request says who asks."""
    manager = StreamableHTTPSessionManager(
        create_server(services, _caller),
        stateless=True,
        json_response=True,
        max_request_body_size=MAX_BODY_BYTES,
    )
    router = APIRouter()

    class Answer(Response):
        """The answer of the library, which reads the request itself."""

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await manager.handle_request(scope, receive, send)

    async def serve(_caller: Viewer) -> Response:
        return Answer()

    router.add_api_route(PATH, serve, methods=["POST"], include_in_schema=False)
    return Endpoint(router, manager.run())

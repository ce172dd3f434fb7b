"""The console on a test's database, with a real server and a real client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from noetl_broker.console.app import ConsoleOptions, create_app
from noetl_broker.console.pages import ROUTERS
from noetl_broker.console.server import open_socket, serving, url_of
from tests.brokers import PATIENCE_SECONDS
from tests.postgres import Database


@asynccontextmanager
async def console(database: Database, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the console and yield a client of it."""
    async with served(create_app(ConsoleOptions(database=database, **changes))) as client:
        yield client


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Serve an application and yield a client of it."""
    opened = open_socket("127.0.0.1", 0)
    async with (
        serving(app, opened),
        httpx.AsyncClient(base_url=url_of(opened), trust_env=False, timeout=PATIENCE_SECONDS) as client,
    ):
        yield client


def page_routes(method: str) -> set[str]:
    """Return the paths of the console's pages that take this method."""
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    return {route.path for route in routes if method in (route.methods or ())}


@pytest.fixture
async def api(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a console without tokens."""
    async with console(database) as client:
        yield client

"""Agents of the real programs: the SDK's client over stdio and over HTTP."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import TextContent

from tests.brokers import PATIENCE_SECONDS
from tests.cli.conftest import plain_environment
from tests.postgres import Database

PROGRAM = str(Path(sys.executable).with_name("noetl-broker"))


class Answer(NamedTuple):
    """The text of an answer, and whether it is an error."""

    text: str
    is_error: bool

    @property
    def data(self) -> Any:
        """The answer itself."""
        return json.loads(self.text)["data"]

    @property
    def next(self) -> list[str]:
        """What to ask then."""
        return list(json.loads(self.text)["next"])

    @property
    def problem(self) -> Any:
        """The document of an error."""
        assert self.is_error, self.text
        return json.loads(self.text)


class Agent:
    """A client of the tools."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def tools(self) -> dict[str, Any]:
        """Return the tools by name."""
        return {tool.name: tool for tool in (await self.client.list_tools()).tools}

    async def answer(self, tool: str, /, **given: Any) -> Answer:
        """Call a tool."""
        result = await self.client.call_tool(tool, given)
        [content] = result.content
        assert isinstance(content, TextContent)
        return Answer(content.text, result.is_error)

    async def ask(self, tool: str, /, **given: Any) -> Any:
        """Call a tool that answers."""
        answer = await self.answer(tool, **given)
        assert not answer.is_error, answer.text
        return answer.data

    async def refused(self, tool: str, /, **given: Any) -> tuple[str, str]:
        """Call a tool that refuses; return code and detail."""
        problem = (await self.answer(tool, **given)).problem
        return problem["code"], problem["detail"]


@asynccontextmanager
async def over_stdio(database: Database, role: str | None = None, *, mode: Any = "auto") -> AsyncIterator[Agent]:
    """Start `noetl-broker mcp`, and yield an agent of it."""
    environment = plain_environment() | {"NOETL_BROKER_DSN": database.dsn}
    words = ["mcp", *([] if role is None else ["--role", role])]
    server = StdioServerParameters(command=PROGRAM, args=words, env=environment)
    async with Client(server, read_timeout_seconds=PATIENCE_SECONDS, mode=mode) as client:
        yield Agent(client)


@asynccontextmanager
async def over_http(url: str, headers: dict[str, str] | None = None, *, mode: Any = "auto") -> AsyncIterator[Agent]:
    """Yield an agent of a console."""
    async with httpx2.AsyncClient(headers=headers, trust_env=False, timeout=PATIENCE_SECONDS) as http:
        transport = streamable_http_client(f"{url}/mcp", http_client=http)
        async with Client(transport, read_timeout_seconds=PATIENCE_SECONDS, mode=mode) as client:
            yield Agent(client)

"""The OpenAPI document: the API does what it says, and nothing else."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from noetl_broker.console.api import ROUTERS
from noetl_broker.console.app import PREFIX
from noetl_broker.console.document import operations
from noetl_broker.store.migrations import create_roles
from tests.brokers import drain, register, start
from tests.console.conftest import console
from tests.console.test_access import token
from tests.console.test_executions import STORY
from tests.postgres import Database, named
from tests.roles import login

# NOETL_API_EXAMPLES=50: so many random requests to each route, and each limit of each field (CONTRIBUTING.md).
EXAMPLES = os.environ.get("NOETL_API_EXAMPLES")
SIZE = ("--max-examples", EXAMPLES or "2", "--phases", "examples,coverage,fuzzing" if EXAMPLES else "examples,fuzzing")
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


async def test_each_answer_is_documented(database: Database, tmp_path: Path) -> None:
    """Schemathesis tries each route with good and bad requests; the login of the console is an operator's."""
    await register(database, STORY)
    await start(database, payload={"x": 1}, count=2)
    await start(database, payload={"x": "text"})
    await drain(database)
    await create_roles(database)
    headers = await token(database, "operator")
    async with (
        login(database, "console", named("noetl_operator")) as operator,
        console(operator, tokens_demanded=True) as client,
    ):
        process = await asyncio.create_subprocess_exec(
            *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{client.base_url}{PREFIX}/openapi.json"),
            *("--header", f"Authorization: {headers['Authorization']}", "--checks", CHECKS, *SIZE),
            *("--exclude-path", f"{PREFIX}/changes", "--no-shrink"),
            *("--suppress-health-check", "all", "--warnings", "off", "--seed", "1", "--workers", "2"),
            *("--request-timeout", "120"),  # its own is 10 s
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        report, _ = await process.communicate()
    assert process.returncode == 0, report.decode()


def test_each_route_says_who_may_use_it() -> None:
    """Only the health of a load balancer needs no token."""
    assert [each.path for each in operations(ROUTERS, PREFIX) if each.role is None] == [f"{PREFIX}/health"]

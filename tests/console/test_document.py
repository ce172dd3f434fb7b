"""The OpenAPI document: the API does what it says, and nothing else."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from noetl_broker.console.api.routes import ROUTERS
from noetl_broker.console.app import PREFIX
from noetl_broker.console.document import operations
from noetl_broker.store.connect.migrations import create_roles
from tests.brokers import drain, register, start
from tests.console.conftest import console
from tests.console.test_access import token
from tests.console.test_executions import STORY
from tests.postgres import Database, named
from tests.roles import login

# NOETL_API_EXAMPLES=50: so many random requests to each route (CONTRIBUTING.md).
EXAMPLES = os.environ.get("NOETL_API_EXAMPLES", "2")
# Not `ignored_auth`: it sends so many wrong tokens that it has to wait. The others need several requests.
CONFIG = Path(__file__).with_name("schemathesis.toml")
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "negative_data_rejection", "positive_data_acceptance", "missing_required_header",
    "unsupported_method", "allow_header_conformance",
)  # fmt: skip


async def test_each_answer_is_documented(database: Database, tmp_path: Path) -> None:
    """Schemathesis sends what the document allows and what it forbids; the login of the console is an operator's.

    Each limit of each field, each method, and random values.
    """
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
            *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(CONFIG), "run"),
            *(f"{client.base_url}{PREFIX}/openapi.json", "--header", f"Authorization: {headers['Authorization']}"),
            *("--checks", ",".join(CHECKS), "--max-examples", EXAMPLES, "--phases", "examples,coverage,fuzzing"),
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
    assert [each.path for each in operations(ROUTERS, PREFIX) if each.roles is None] == [f"{PREFIX}/health"]

"""Generates the page of the API's routes with the role that each needs."""

from __future__ import annotations

from noetl_broker.console.api.routes import ROUTERS
from noetl_broker.console.app import PREFIX
from noetl_broker.console.document import Operation, operations
from noetl_broker.service.models.base import Role
from tests.docs.references import DOCS

ROUTES = DOCS / "reference" / "api-routes.md"
ABOUT = f"""\
# Routes of the HTTP API

Generated from the program by `make docs`. [HTTP API](api.md) explains how to use them.
`{PREFIX}/openapi.json` has parameters, bodies and answers. An operator may do what a viewer may.

| route | viewer | operator | what |
|---|---|---|---|"""


def api_routes() -> str:
    """Return the page."""
    return "\n".join([ABOUT, *map(_row, operations(ROUTERS, PREFIX))]) + "\n"


def _row(operation: Operation) -> str:
    viewer = {None: "without a token", Role.VIEWER: "yes", Role.OPERATOR: ""}[operation.role]
    operator = "without a token" if operation.role is None else "yes"
    sentence = " ".join(operation.sentence.split()).replace("|", "\\|")
    return f"| `{operation.method} {operation.path}` | {viewer} | {operator} | {sentence} |"

"""The command `mcp`: tools for an agent, on stdin and stdout."""

from __future__ import annotations

import asyncio

import click

from noetl_broker.cli.command import Call, command, optional_module
from noetl_broker.service.models.base import Role


@command("mcp", example="noetl-broker mcp\nnoetl-broker mcp --role operator --dsn postgresql://ops@db/app", serves=True)
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.VIEWER.value,
    show_default=True,
    help="What the agent may do: a viewer sees no values and changes nothing.",
)
def mcp(call: Call, *, role: str) -> None:
    """Give agents tools on stdin and stdout, by MCP.

    The program of the agent starts it and asks. It has the rights of the login, and ends with its stdin. The console
    has the same tools under /mcp, with tokens.
    """
    call.configure_logs()
    transports, services = (
        optional_module(f"console.{name}", "noetl-broker mcp", "mcp") for name in ("agents.transports", "services")
    )
    options = services.ConsoleOptions(
        database=call.database, playbook_rules=call.playbook_rules, keep_keys=call.settings.keep_keys
    )
    asyncio.run(transports.serve_stdio(options, Role(role)))

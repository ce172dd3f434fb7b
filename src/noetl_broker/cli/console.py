"""The command `console`: pages for a browser, and the HTTP API."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from noetl_broker.cli import output
from noetl_broker.cli.command import Call, command, optional_module
from noetl_broker.daemon.process_signals import notify, serve
from noetl_broker.errors import DatabaseFault, OperatorFault, PermissionFault
from noetl_broker.service.models.base import Role
from noetl_broker.store.admin.api_tokens import check_token
from noetl_broker.store.connect.migrations import check_operator_rights
from noetl_broker.store.connect.places import in_first
from noetl_broker.store.connect.session import place


@command(
    "console",
    example="noetl-broker console\nnoetl-broker console --host 0.0.0.0 --port 8080     # tokens are needed",
    serves=True,
)
@click.option("--host", metavar="ADDRESS", help="Where it listens (or the setting console_host; default: 127.0.0.1).")
@click.option(
    "--port", type=click.IntRange(0, 65_535), help="Its port (or the setting console_port; default: 8080); 0 is any."
)
def console(call: Call, *, host: str | None, port: int | None) -> None:
    """Serve the console and the HTTP API until stopped.

    Prints the address: open it in a browser. The API is under /api/v1; /api/v1/openapi.json describes it.
    """
    call.configure_logs()
    app, server = console_modules()
    settings = call.settings
    trusted = app.TrustedHeader.of(
        settings.console_trusted_header,
        settings.console_trusted_proxies,
        settings.console_trusted_operators,
        {
            Role.AUTHOR: settings.console_trusted_authors,
            Role.APPROVER: settings.console_trusted_approvers,
            Role.PRODUCER: settings.console_trusted_producers,
        },
    )
    opened = server.open_socket(host or settings.console_host, settings.console_port if port is None else port)
    is_local = server.is_loopback(opened)
    options = app.ConsoleOptions(
        database=call.database,
        playbook_rules=call.playbook_rules,
        keep_keys=call.settings.keep_keys,
        tokens_demanded=not is_local,
        trusted_header=trusted,
    )
    made = app.create_app(options)

    async def run() -> None:
        await _require_rights(call)
        if not is_local and trusted is None:
            await _require_token(call)
        stopping = asyncio.Event()

        async def work() -> None:
            async with server.serving(made, opened):
                url = server.url_of(opened)
                notify("READY=1")
                if not call.printed({"url": url}):
                    output.say(f"the console answers at {url}")
                await stopping.wait()

        await serve(work(), stopping, drain_seconds=settings.drain_seconds)

    with opened:
        asyncio.run(run())


async def _require_rights(call: Call) -> None:
    """Raise PermissionFault if the login may not do what operators do: most requests would be refused.

    While the database does not answer, the console starts, and waits for it.
    """
    try:
        async with place(call.database, name="console") as found:
            await in_first(found, check_operator_rights)
    except DatabaseFault as fault:
        if isinstance(fault, PermissionFault):
            raise


async def _require_token(call: Call) -> None:
    """Raise OperatorFault if no token is valid, so that nobody could use the console."""
    async with place(call.database, name="console") as asked:
        found = await in_first(asked, lambda one: check_token(one, None))
    if not found.valid_token:
        raise OperatorFault(
            "the console listens beyond this machine only where a token is valid: create one with noetl-broker token "
            "create NAME --role operator, or take --host 127.0.0.1"
        )


def console_modules() -> tuple[Any, Any]:
    """The modules `console.app` and `console.server`; raises OperatorFault where their extra is not installed."""
    app, server = (optional_module(f"console.{name}", "the console", "console") for name in ("app", "server"))
    return app, server

"""Arguments that name what is in the database: what they take, and what a shell offers for them.

A shell that completes must neither wait nor complain: a database that is away or slow offers nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from noetl_broker.cli.output import one_line
from noetl_broker.settings import load_settings, with_dsn
from noetl_broker.store.completions import Offer, offer_executions, offer_paths, offer_steps
from noetl_broker.store.pool import Connection, connect

LARGEST_ID = 2**63 - 1
PATIENCE_SECONDS = 1.0

Asking = Callable[[Connection], Awaitable[list[Offer]]]


class ExecutionId(click.ParamType[int]):
    """The id of an execution."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the number."""
        text = str(value).strip()
        number = int(text) if re.fullmatch(r"[0-9]{1,19}", text) else 0
        if not 0 < number <= LARGEST_ID:
            self.fail(f"{value!r} is not the id of an execution; noetl-broker executions lists them", param, ctx)
        return number

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer late executions."""
        del param
        return _offers(ctx, lambda connection: offer_executions(connection, incomplete))


class PlaybookPath(click.ParamType[str]):
    """The path of a playbook in the catalog."""

    name = "path"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer what is registered."""
        del param
        return _offers(ctx, lambda connection: offer_paths(connection, incomplete))


class StepName(click.ParamType[str]):
    """A step of the execution whose id stands before it."""

    name = "step"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the steps of that execution."""
        del param
        # Where an option still lacks its value, click has set the arguments aside.
        words = [str(ctx.params.get("execution_id")), *ctx.args]
        ids = [int(word) for word in words if re.fullmatch(r"[0-9]{1,18}", word)]
        return _offers(ctx, lambda connection: offer_steps(connection, ids[0], incomplete)) if ids else []


class Subject(click.ParamType[str]):
    """A path in the catalog, or the id of an execution, or a file."""

    name = "subject"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer paths, ids where a number begins, and files where there is nothing else."""
        offer = offer_executions if incomplete.isdigit() else offer_paths
        found = _offers(ctx, lambda connection: offer(connection, incomplete))
        return found or click.Path().shell_complete(ctx, param, incomplete)


def _offers(ctx: click.Context, asking: Asking) -> list[CompletionItem]:
    # Whatever is wrong, the command itself will say it; on the line that is being typed there is no room for it.
    with contextlib.suppress(Exception):
        offers = asyncio.run(asyncio.wait_for(_ask(_dsn(ctx), asking), PATIENCE_SECONDS))
        return [CompletionItem(one_line(value), help=one_line(about)) for value, about in offers]
    return []


async def _ask(dsn: str | None, asking: Asking) -> list[Offer]:
    connection = await connect(dsn, name="noetl-broker completion")
    try:
        return await asking(connection)
    finally:
        connection.terminate()


def _dsn(ctx: click.Context) -> str | None:
    """Give what is typed behind `--dsn`, or what the settings say, as the command would read it."""
    config = ctx.params.get("config")
    settings = load_settings(Path(config) if config else None)
    given = ctx.params.get("dsn")
    if isinstance(given, tuple):  # of a command that serves several databases
        given = next(iter(given), None)
    if given:
        return str(given)
    dsn = with_dsn(settings).dsn
    return dsn.get_secret_value() if dsn is not None else None

"""Arguments that name executions, playbooks and steps, with their shell completion.

Completion never waits and never fails: if the database is slow or away, it offers nothing.
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
from noetl_broker.playbook.keys import LARGEST_VERSION
from noetl_broker.settings import databases_of, load_settings, with_dsn
from noetl_broker.store.admin.completions import Offer, offer_executions, offer_paths, offer_schedules, offer_steps
from noetl_broker.store.connect.connection import Connection, connect
from noetl_broker.store.connect.dsn import Database

LARGEST_ID = 2**63 - 1
TIMEOUT_SECONDS = 1.0
VERSION_OF_PLAYBOOK = click.option(
    "--version", type=click.IntRange(1, LARGEST_VERSION), help="A version of the playbook; default: the latest."
)

Question = Callable[[Connection], Awaitable[list[Offer]]]


class Completed(click.ParamType[Any]):
    """A name in the database: `offer` gives those that begin as it is typed so far."""

    name = "name"

    def __init__(self, offer: Callable[[Connection, str], Awaitable[list[Offer]]]) -> None:
        self._offer = offer

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer what begins so."""
        del param
        return _offers(ctx, lambda connection: self._offer(connection, incomplete))


class ExecutionId(Completed):
    """The id of an execution; the latest ones are offered."""

    name = "id"

    def __init__(self) -> None:
        super().__init__(offer_executions)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the number."""
        text = str(value).strip()
        number = int(text) if re.fullmatch(r"[0-9]{1,19}", text) else 0
        if not 0 < number <= LARGEST_ID:
            self.fail(f"{value!r} is not the id of an execution; noetl-broker executions lists them", param, ctx)
        return number


PLAYBOOK_PATH, SCHEDULE_NAME = Completed(offer_paths), Completed(offer_schedules)


class StepName(click.ParamType[str]):
    """A step of the execution that the call names."""

    name = "step"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the steps of that execution."""
        del param
        # While an option lacks its value, click keeps the arguments in ctx.args.
        words = [str(ctx.params.get("execution_id")), *ctx.args]
        ids = [int(word) for word in words if re.fullmatch(r"[0-9]{1,18}", word)]
        return _offers(ctx, lambda connection: offer_steps(connection, ids[0], incomplete)) if ids else []


def complete_subject(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer ids for digits, else paths of the catalog, else files."""
    offer = Completed(offer_executions if incomplete.isdigit() else offer_paths)
    return offer.shell_complete(ctx, param, incomplete) or click.Path().shell_complete(ctx, param, incomplete)


def _offers(ctx: click.Context, ask: Question) -> list[CompletionItem]:
    # The command itself reports what is wrong; the line that is being typed has no room for it.
    with contextlib.suppress(Exception):
        offers = asyncio.run(asyncio.wait_for(_answer(_database(ctx), ask), TIMEOUT_SECONDS))
        return [CompletionItem(one_line(value), help=one_line(about)) for value, about in offers]
    return []


async def _answer(database: Database, ask: Question) -> list[Offer]:
    connection = await connect(database, name="noetl-broker completion")
    try:
        return await ask(connection)
    finally:
        connection.terminate()


def _database(ctx: click.Context) -> Database:
    """Give the database of `--dsn` and `--schema`, or of the settings, as the command would."""
    config = ctx.params.get("config")
    settings = with_dsn(load_settings(Path(config) if config else None))
    given = (ctx.params.get(option) or () for option in ("dsn", "schema"))
    return databases_of(settings, *((one,) if isinstance(one, str) else one for one in given), several=False)[0]

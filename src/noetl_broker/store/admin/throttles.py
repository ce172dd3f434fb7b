"""Throttles of jobs for commands and clients, and those that a playbook declares."""

from __future__ import annotations

from typing import Any

from noetl_broker.playbook.blocks import all_blocks
from noetl_broker.playbook.model import Playbook, Throttle
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.queries import sql
from noetl_broker.text import numbers_text


async def list_throttles(connection: Connection) -> list[dict[str, Any]]:
    """Each throttle with its numbers, and how many keys and jobs it has: `leased`, `ready`, `held`."""
    return [dict(row) for row in await connection.fetch(sql("list_throttles"))]


async def list_keys(connection: Connection, name: str, *, most: int) -> list[dict[str, Any]]:
    """The keys of a throttle that have jobs, those with most held jobs first: `key`, `leased`, `ready`, `held`."""
    return [dict(row) for row in await connection.fetch(sql("list_throttle_keys"), name, most)]


async def declare_throttles(connection: Connection, playbook: Playbook) -> tuple[str, ...]:
    """Make the throttles that a playbook declares and nobody has made.

    Returns a sentence for each one whose row has other numbers: the row rules.
    """
    found = {throttle.name: throttle for throttle in throttles_of(playbook)}
    if not found:
        return ()
    declared = [(one.name, one.concurrency, one.rate, one.burst) for one in found.values()]
    rows = await connection.fetch(sql("declare_throttles"), *map(list, zip(*declared, strict=True)))
    return tuple(
        f"throttle {row['name']} has {numbers_text(row)}, and the playbook says"
        f" {numbers_text(declared_numbers(found[row['name']]))}: the throttle stays as it is"
        f" (noetl-broker limit put {row['name']} changes it)"
        for row in rows
        if declared_numbers(found[row["name"]]) != {key: row[key] for key in ("concurrency", "rate", "burst")}
    )


def throttles_of(playbook: Playbook) -> list[Throttle]:
    """The throttles of all steps, tasks and blocks."""
    steps = [step for part in (playbook, *all_blocks(playbook)) for step in part.steps.values()]
    tasks = [step.iteration.task for step in steps if step.iteration is not None]
    return [step.throttle for step in (*steps, *tasks) if step.throttle is not None]


def declared_numbers(throttle: Throttle) -> dict[str, Any]:
    """The numbers as the columns of `noetl.limit`."""
    return {"concurrency": throttle.concurrency, "rate": throttle.rate, "burst": throttle.burst}

"""Slots: what turns ask about them, and what they write.

A batch does not wait for a slot that another broker has locked. It leaves the executions that want it to a later
batch. Several turns of a batch may ask for one slot. Earlier turns are not written yet, so the batch remembers the
slots that it has granted.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from noetl_broker.broker.model.effects import FactsUsed
from noetl_broker.store.json_codec import dump_json
from noetl_broker.store.queries import sql

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from asyncpg import Record

    from noetl_broker.broker.model.decision import Decision
    from noetl_broker.broker.model.effects import SlotsChanged
    from noetl_broker.store.connect.connection import Connection
    from noetl_broker.store.turn.claimed_rows import Mail

Granted = dict[tuple[str, str], list[int]]  # by path and key: executions of the batch that were promised the slot
KINDS = frozenset({"slots", "slot_locks"})  # of wants


def wants_slots(wants: Mapping[int, Iterable[Any]]) -> set[int]:
    """The executions that want something about slots."""
    return {owner for owner, of_owner in wants.items() if any(want[0] in KINDS for want in of_owner)}


async def ask(
    connection: Connection, wants: list[tuple[int, Any]], answers: dict[int, dict[Any, object]], granted: Granted
) -> set[int]:
    """Answer the wants about slots, under their locks; returns the executions whose slots others have locked."""
    asked = [(owner, want) for owner, want in wants if want[0] == "slots"]
    freed = [(owner, want) for owner, want in wants if want[0] == "slot_locks"]
    busy = await _ask_free(connection, asked, answers, granted) if asked else set()
    return busy | await _lock_freed(connection, freed, answers) if freed else busy


async def _ask_free(
    connection: Connection, wants: list[tuple[int, Any]], answers: dict[int, dict[Any, object]], granted: Granted
) -> set[int]:
    columns = zip(*((owner, *slot) for owner, want in wants for slot in want[1]), strict=True)
    rows: dict[int, list[Record]] = defaultdict(list)
    for row in await connection.fetch(sql("ask_slots"), *map(list, columns)):
        rows[row["execution_id"]].append(row)
    busy = set()
    for owner, want in wants:
        if not all(row["is_locked"] for row in rows[owner]):
            busy.add(owner)
            continue
        told = answers[owner][want] = [_answer(row, granted) for row in rows[owner]]
        if all(answer["free"] for answer in told):
            for row in rows[owner]:
                if not (row["is_own"] or row["is_shared"]):
                    granted.setdefault((row["path"], row["key"]), []).append(owner)
    return busy


def _answer(row: Record, granted: Granted) -> dict[str, Any]:
    """The answer about one slot that a turn gets, as its facts keep it."""
    if row["is_shared"]:
        return {"free": True, "number": row["number"], "shared": True}
    promised = granted.get((row["path"], row["key"]), [])
    left = row["max_held"] - row["held"] - row["ready"] - len(promised)
    if row["is_own"] or left > 0:
        return {"free": True, "number": row["number"]}
    return {"free": False, "number": row["number"], "holder": row["holder"] or next(iter(promised), None)}


async def _lock_freed(
    connection: Connection, wants: list[tuple[int, Any]], answers: dict[int, dict[Any, object]]
) -> set[int]:
    columns = zip(*((owner, *slot) for owner, want in wants for slot in want[1]), strict=True)
    locked = set(await connection.fetchval(sql("lock_freed_slots"), *map(list, columns)) or ())
    for owner, want in wants:
        if owner in locked:
            answers[owner][want] = True
    return {owner for owner, _ in wants} - locked


async def write_slots(connection: Connection, changes: dict[int, SlotsChanged]) -> bool:
    """Write what became of the slots of executions; returns whether others were admitted."""
    rows = [
        (owner, change.what, slot.path, slot.key, slot.limit, slot.number, slot.on_limit, slot.label)
        for owner, change in changes.items()
        for slot in change.slots
    ]
    admitted = await connection.fetchval(sql("write_slots"), *map(list, zip(*rows, strict=True)))
    return bool(admitted)


def facts_of(mail: Mail, decision: Decision) -> str | None:
    """The facts of a turn as JSON: what came with the mail, and what the turn was told."""
    told = decision.last(FactsUsed) if decision.effects else None
    if told is None:
        return None if mail.facts is None else dump_json(mail.facts)
    return dump_json({**(mail.facts or {}), **told.facts})

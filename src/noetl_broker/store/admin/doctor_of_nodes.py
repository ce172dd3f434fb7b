"""The examination of an installation on Citus: the clocks of its nodes, and what moves have left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from noetl_broker.errors import DatabaseFault
from noetl_broker.store.admin.doctor_checks import DoctorFinding
from noetl_broker.store.connect.connection import connect
from noetl_broker.store.connect.dsn import Database
from noetl_broker.store.connect.nodes import is_on_citus, node_of
from noetl_broker.store.connect.session import translate_faults
from noetl_broker.store.queries import sql

NAME = "noetl-broker doctor"
MOST_APART = 0.1  # seconds between two clocks
TRIPS = 3  # the quickest answer says most


async def examine_nodes(database: Database, buckets: Sequence[Database]) -> list[DoctorFinding]:
    """What is wrong between the nodes; none if the buckets are on none. A bucket that does not answer is left out."""
    try:
        connection = await connect(replace(database, at_coordinator=True), name=NAME)
    except DatabaseFault as fault:
        return [
            DoctorFinding(
                "coordinator", "problem", str(fault),
                "Executions go on, but nothing is moved, archived or migrated, and periods get no tables.",
                "Start the coordinator, or correct what the message names.",
            )
        ]  # fmt: skip
    try:
        with translate_faults():
            if not await is_on_citus(connection):
                return []
            orphans = int(await connection.fetchval(sql("count_orphaned_shards")))
    finally:
        await connection.close()
    offsets = {str(node_of(bucket)): offset for bucket in buckets if (offset := await _offset(bucket)) is not None}
    return [*_clocks(offsets), *_orphans(orphans)]


async def _offset(bucket: Database) -> float | None:
    """Seconds that the clock of the bucket's node is ahead of ours; None: it does not answer."""
    try:
        connection = await connect(bucket, name=NAME)
    except DatabaseFault:
        return None
    answers = []
    try:
        with translate_faults():
            for _ in range(TRIPS):
                began = time.time()
                there = float(await connection.fetchval(sql("node_clock")))
                ended = time.time()
                answers.append((ended - began, there - (began + ended) / 2))
        return min(answers)[1]
    except DatabaseFault:
        return None
    finally:
        await connection.close()


def _clocks(offsets: dict[str, float]) -> list[DoctorFinding]:
    if not offsets:
        return []
    latest, earliest = max(offsets, key=offsets.__getitem__), min(offsets, key=offsets.__getitem__)
    apart = offsets[latest] - offsets[earliest]
    if apart <= MOST_APART:
        return [DoctorFinding("clocks", "ok", f"those of {len(offsets)} nodes are {apart * 1000:.0f} ms apart")]
    return [
        DoctorFinding(
            "clocks", "problem", f"that of {latest} is {apart:.2f} s ahead of that of {earliest}",
            "After a move, later signals and later executions of a line may come first.",
            "Let all nodes take their time from one source, such as chrony.",
        )
    ]  # fmt: skip


def _orphans(count: int) -> list[DoctorFinding]:
    if not count:
        return [DoctorFinding("orphaned shards", "ok", "no move has left any")]
    return [
        DoctorFinding(
            "orphaned shards", "notice", f"moves have left {count} shards that are not dropped yet",
            "Citus drops them within a minute; a session that reads one delays it, and the next move is refused.",
            "If they stay, call citus_cleanup_orphaned_resources() at the coordinator.",
        )
    ]  # fmt: skip

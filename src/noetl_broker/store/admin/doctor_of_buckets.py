"""The examination of an installation with buckets: of each bucket, and what must be equal in all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from noetl_broker.errors import BrokerError, DatabaseFault
from noetl_broker.store.admin.doctor import examine
from noetl_broker.store.admin.doctor_checks import DoctorFinding
from noetl_broker.store.admin.doctor_of_nodes import examine_nodes
from noetl_broker.store.connect.buckets import buckets_of, count_buckets
from noetl_broker.store.connect.connection import connect
from noetl_broker.store.connect.dsn import Database
from noetl_broker.store.connect.session import translate_faults
from noetl_broker.store.queries import sql

AT_ONCE = 8  # buckets that are examined at a time


async def examine_all(database: Database) -> Sequence[DoctorFinding]:
    """Examine a schema, or all buckets of an installation. What all buckets say alike is one finding."""
    count = await _count(database)
    if count is None:
        return await examine(database)
    turns = asyncio.Semaphore(AT_ONCE)
    buckets = buckets_of(database, count)
    parts = await asyncio.gather(*(_examine(bucket, turns) for bucket in buckets))
    findings = [*_combined(database, [bucket.schema for bucket in buckets], parts)]
    return [*findings, await _compare_settings(buckets), *await examine_nodes(database, buckets)]


def _combined(
    database: Database, schemas: Sequence[str], parts: Sequence[Sequence[DoctorFinding]]
) -> Iterator[DoctorFinding]:
    """One finding where all buckets are well, or say the same; else one for each bucket, with its name."""
    said: dict[tuple[object, ...], list[tuple[str, DoctorFinding]]] = {}
    for schema, part in zip(schemas, parts, strict=True):
        for found in part:
            says = "" if found.state == "ok" else found.says.replace(schema, database.schema)
            said.setdefault((found.check, found.state, says, found.why, found.do), []).append((schema, found))
    for each in said.values():
        named, found = [schema for schema, _ in each], each[0][1]
        where = f"{len(named)} buckets" if len(named) == len(schemas) else ", ".join(dict.fromkeys(named))
        says = found.says if len(named) == 1 else found.says.replace(named[0], database.schema)
        yield found._replace(says=f"{where}: {says}")


async def _count(database: Database) -> int | None:
    """The number of buckets; None: there are none, or nobody can say, which `examine` explains."""
    try:
        connection = await connect(database, name="noetl-broker doctor")
    except BrokerError:
        return None
    try:
        with translate_faults():
            return await count_buckets(connection)
    except BrokerError:
        return None
    finally:
        await connection.close()


async def _examine(bucket: Database, turns: asyncio.Semaphore) -> Sequence[DoctorFinding]:
    async with turns:
        try:
            return await examine(bucket)
        except BrokerError as fault:
            why = "Its executions stand still; those of the other buckets go on."
            return [DoctorFinding("bucket", "problem", str(fault), why, "Correct what the message names.")]


async def _compare_settings(buckets: Sequence[Database]) -> DoctorFinding:
    """Whether all buckets that answer have the same playbooks, step types, throttles and paused paths."""
    found: dict[str, dict[str, list[str]]] = {}
    for bucket in buckets:
        try:
            connection = await connect(bucket, name="noetl-broker doctor")
        except DatabaseFault:
            continue
        try:
            with translate_faults():
                for row in await connection.fetch(sql("digest_settings")):
                    found.setdefault(row["setting"], {}).setdefault(row["digest"], []).append(bucket.schema)
        except DatabaseFault:
            continue
        finally:
            await connection.close()
    differ = {setting: by_digest for setting, by_digest in found.items() if len(by_digest) > 1}
    if not differ:
        count = max((len(same) for by_digest in found.values() for same in by_digest.values()), default=0)
        return DoctorFinding("buckets", "ok", f"{count} buckets have the same settings")
    parts = []
    for setting, by_digest in differ.items():
        fewest = min(by_digest.values(), key=len)
        parts.append(f"{setting} ({', '.join(fewest)})")
    return DoctorFinding(
        "buckets", "problem", f"settings differ between buckets: {'; '.join(parts)}",
        "Each bucket works by its own rows, so executions of one playbook may differ by their bucket.",
        "Repeat the command that sets them, without a number in --schema: it writes all buckets.",
        {"differ": {setting: [*by_digest.values()] for setting, by_digest in differ.items()}},
    )  # fmt: skip

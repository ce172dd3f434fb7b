"""Migrations: plain SQL files, applied once each, in order, under a lock, and never changed afterwards."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from noetl_broker.errors import PermissionFault, SchemaFault
from noetl_broker.resources import migrations_folder, roles_file
from noetl_broker.store.faults import sentence
from noetl_broker.store.pool import connect
from noetl_broker.store.queries import sql

if TYPE_CHECKING:
    from noetl_broker.store.pool import Connection

# The schema versions that this version of the program serves.
SERVED_VERSIONS = range(8, 9)


# What a migration says in its header where programs that do not know it may go on: `-- serves-from: 9`.
SERVES_FROM = re.compile(r"^-- serves-from: (\d+)$", re.MULTILINE)


class Migration(NamedTuple):
    """One file: `version` is the number that its name begins with.

    `serves_from`: programs that serve this version or a later one may go on once it is applied.
    """

    version: int
    name: str
    text: str
    checksum: str
    serves_from: int


class Recorded(NamedTuple):
    """One row of `noetl.schema_version`."""

    name: str
    checksum: str
    serves_from: int


class Applied(NamedTuple):
    """One migration as the database remembers it; `checksum` None: not applied yet."""

    version: int
    name: str
    checksum: str | None
    pending: bool


def migrations() -> tuple[Migration, ...]:
    """All migrations that this program ships, in order."""
    found = []
    for file in sorted(migrations_folder().glob("[0-9]*.sql")):
        text = file.read_text(encoding="utf-8")
        version, told = int(file.name[:4]), SERVES_FROM.search(text)
        checksum = hashlib.sha256(text.encode()).hexdigest()
        found.append(Migration(version, file.name, text, checksum, int(told[1]) if told else version))
    return tuple(found)


async def migrate(dsn: str | None) -> list[str]:
    """Apply what is missing; returns the names of the files applied now.

    Raises SchemaFault where an applied file has been changed since, the database is ahead of this program, or not in
    UTF8.
    """
    # An index on a large table takes its time, and so may another migrate that holds the lock.
    connection = await connect(dsn, name="noetl-broker migrate", command_timeout=None, takes="writes")
    try:
        await _check_encoding(connection)
        # Session-level: the lock spans one transaction per file.
        await connection.execute("set statement_timeout = 0; set lock_timeout = 0")
        await connection.execute(sql("lock_migrations"))
        await connection.execute(sql("create_schema_version"))
        applied = await _applied(connection)
        _check(applied)
        names = []
        for migration in migrations():
            if migration.version in applied:
                continue
            await _apply(connection, migration)
            names.append(migration.name)
    except asyncpg.InsufficientPrivilegeError as error:
        message = f"the role may not change the schema: {error}; migrate as the owner of the database"
        raise PermissionFault(message) from error
    finally:
        await connection.close()
    return names


async def _apply(connection: Connection, migration: Migration) -> None:
    """All of it or nothing; raises SchemaFault where something of another shape stands in its way."""
    try:
        async with connection.transaction():
            await connection.execute(migration.text)
            await connection.execute(
                sql("record_migration"), migration.version, migration.name, migration.checksum, migration.serves_from
            )
    except asyncpg.InsufficientPrivilegeError:
        raise
    except (asyncpg.SyntaxOrAccessError, asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
        message = (
            f"migration {migration.name} cannot be applied: {error}; something of that name stands in the schema noetl "
            "that is neither ours nor of a NoETL server: rename it, or move it to another schema"
        )
        raise SchemaFault(message) from error


def roles() -> str:
    """Return the SQL that makes the roles and grants what each may do; it may be run again."""
    return roles_file().read_text(encoding="utf-8")


async def create_roles(dsn: str | None) -> None:
    """Make the roles, or bring their rights up to date, in one transaction; the schema must be there."""
    connection = await connect(dsn, name="noetl-broker migrate")
    try:
        await check_version(connection)
        async with connection.transaction():
            await connection.execute(sql("wait_for_migrations"))
            await connection.execute(roles())
    except asyncpg.InsufficientPrivilegeError as error:
        message = f"the role may not make roles or grant: {sentence(error)}"
        raise PermissionFault(message) from error
    finally:
        await connection.close()


async def status(dsn: str | None) -> list[Applied]:
    """Each migration and whether it is applied."""
    connection = await connect(dsn, name="noetl-broker migrate")
    try:
        applied = await _applied(connection)
    finally:
        await connection.close()
    known = [
        Applied(
            m.version, m.name, applied[m.version].checksum if m.version in applied else None, m.version not in applied
        )
        for m in migrations()
    ]
    ahead = set(applied) - {m.version for m in migrations()}
    return known + [
        Applied(version, applied[version].name, applied[version].checksum, pending=False) for version in sorted(ahead)
    ]


async def check_version(connection: Connection) -> None:
    """Raises SchemaFault where the schema is missing, too old, or newer than this program serves, or not in UTF8.

    It may be newer where each migration that we do not know says that programs of our version can go on.
    """
    await _check_encoding(connection)
    applied = await _applied(connection)
    version = max(applied, default=0)
    if version in SERVED_VERSIONS:
        return
    if version == 0:
        message = "the database has no noetl schema of ours; run noetl-broker migrate"
    elif version < SERVED_VERSIONS.start:
        message = (
            f"the schema is at version {version}, this program needs {SERVED_VERSIONS.start}; run noetl-broker migrate"
        )
    else:
        served = SERVED_VERSIONS.stop - 1
        if all(entry.serves_from <= served for number, entry in applied.items() if number > served):
            return
        message = f"the schema is at version {version}, this program serves up to {served}; upgrade the program"
    raise SchemaFault(message)


async def check_applied(connection: Connection) -> None:
    """Raises SchemaFault where an applied migration is unknown here, or was changed since."""
    _check(await _applied(connection))


async def check_rights(connection: Connection) -> None:
    """Raises PermissionFault with what the role of a daemon lacks."""
    missing = await missing_rights(connection)
    if missing:
        raise PermissionFault(
            f"the role lacks {', '.join(missing)}; noetl-broker migrate --roles makes one that has it"
        )


async def missing_rights(connection: Connection, role: str | None = None) -> list[str]:
    """What a role (None: our own) lacks to run as a daemon."""
    return [row["missing"] for row in await connection.fetch(sql("missing_rights"), role)]


async def _check_encoding(connection: Connection) -> None:
    """Raises SchemaFault where the database is not in UTF8: results and errors may hold any character."""
    row = await connection.fetchrow(sql("database_encoding"))
    if row is not None and row["encoding"] != "UTF8":
        message = (
            f"the database {row['database']} is in {row['encoding']}, which cannot hold all that is written to it; make"
            " one in UTF8: create database NAME template template0 encoding 'UTF8' locale 'C'"
        )
        raise SchemaFault(message)


async def _applied(connection: Connection) -> dict[int, Recorded]:
    """By version; raises PermissionFault where our login may not see it."""
    try:
        if not await connection.fetchval(sql("has_schema_version")):
            return {}
        rows = await connection.fetch(sql("list_migrations"))
    except asyncpg.InsufficientPrivilegeError as error:
        raise PermissionFault(f"the database refuses for want of rights: {error}") from error
    return {
        row["version"]: Recorded(row["name"], row["checksum"], row["serves_from"] or row["version"]) for row in rows
    }


def _check(applied: dict[int, Recorded]) -> None:
    ours = {migration.version: migration for migration in migrations()}
    for version, (name, checksum, _) in applied.items():
        if version not in ours:
            message = f"the database has migration {name}, which this program does not know; upgrade the program"
            raise SchemaFault(message)
        if ours[version].checksum != checksum:
            message = f"migration {name} was changed after it was applied; restore the file as it was released"
            raise SchemaFault(message)

"""Migrations: plain SQL files, applied once each, in order, under a lock, and never changed afterwards."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from noetl_broker import __version__
from noetl_broker.errors import OperatorFault, PermissionFault, SchemaFault
from noetl_broker.resources import migrations_folder, roles_file
from noetl_broker.store.connect import citus
from noetl_broker.store.connect.buckets import refuse_installation
from noetl_broker.store.connect.connection import connect, named_of, schema_of
from noetl_broker.store.connect.dsn import Database
from noetl_broker.store.connect.schema_name import rendered, shards_of, with_schema
from noetl_broker.store.connect.sqlstates import message_of
from noetl_broker.store.queries import sql

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from noetl_broker.store.connect.connection import Connection

# The schemas that this program serves: from the first version of the minor release before to its own.
SERVED_VERSIONS = range(28, 29)


# The versions of the files without a number.
OF_BUCKET, ON_CITUS = -1, -2
UNNUMBERED = {"compat_noetl.sql": 0, "bucket.sql": OF_BUCKET, "citus.sql": ON_CITUS}

# The header of a migration that older programs may continue with: `-- serves-from: 9`.
SERVES_FROM = re.compile(r"^-- serves-from: (\d+)$", re.MULTILINE)

MOST_SHOWN = 3  # rights in a message
_COMMA = re.compile(r", (?![^()]*\))")  # between functions, not between their arguments


class Migration(NamedTuple):
    """One file: `version` is the number at the start of its name, or that in `UNNUMBERED`.

    `serves_from`: programs that serve this version or a later one can continue after it is applied.
    """

    version: int
    name: str
    text: str
    checksum: str
    serves_from: int

    def numbered(self, bucket: int | None, buckets: int) -> Migration:
        """The file with the number of a bucket and how many there are."""
        return self._replace(text=self.text.replace("{number}", str(bucket)).replace("{buckets}", str(buckets)))


class Recorded(NamedTuple):
    """One row of `noetl.schema_version`."""

    name: str
    checksum: str
    serves_from: int
    program: str | None  # the version of noetl-broker that applied it


class Applied(NamedTuple):
    """One migration and whether it is applied; `checksum` None: not applied."""

    version: int
    name: str
    checksum: str | None
    pending: bool


def migrations() -> tuple[Migration, ...]:
    """All numbered migrations that this program ships, in order."""
    return tuple(_read(file) for file in sorted(migrations_folder().glob("[0-9]*.sql")))


def compat_noetl() -> Migration:
    """The migration that is applied after all others, beside a NoETL server only."""
    return _read(migrations_folder() / "compat_noetl.sql")


def of_bucket() -> Migration:
    """The migration that makes a schema a bucket, and is applied after all others; with places for the numbers."""
    return _read(migrations_folder() / "bucket.sql")


def on_node() -> Migration:
    """The migration that a bucket on Citus has after that of a bucket, with places for the numbers."""
    return _read(migrations_folder() / "citus.sql")


def _ours(*, beside_noetl: bool = False, in_bucket: bool = False, on_citus: bool = False) -> tuple[Migration, ...]:
    """The migrations of a schema, in order."""
    return (
        *migrations(),
        *((compat_noetl(),) if beside_noetl else ()),
        *((of_bucket(),) if in_bucket else ()),
        *((on_node(),) if on_citus else ()),
    )


def _read(file: Path) -> Migration:
    text = file.read_text(encoding="utf-8")
    version = int(file.name[:4]) if file.name[0].isdigit() else UNNUMBERED[file.name]
    served = SERVES_FROM.search(text)
    checksum = hashlib.sha256(text.encode()).hexdigest()
    return Migration(version, file.name, text, checksum, int(served[1]) if served else version)


async def migrate(
    database: Database, *, bucket: int | None = None, buckets: int = 0, on_citus: bool = False
) -> list[str]:
    """Apply the missing migrations; returns the names of their files. `bucket`: its number, of so many.

    `on_citus`: `database` is at the coordinator, and its schema is a distributed one.

    Raises SchemaFault if an applied file was changed, the database is newer than this program, or is not in UTF8;
    HasBuckets if the schema is an installation.
    """
    # An index on a large table takes long, and so may another migrate that holds the lock.
    connection = await connect(database, name="noetl-broker migrate", command_timeout=None, takes="writes")
    try:
        await _check_encoding(connection)
        await refuse_installation(connection)
        # The lock is the session's, because each file is a transaction.
        await connection.execute("set statement_timeout = 0; set lock_timeout = 0")
        await connection.execute(sql("lock_migrations"))
        if await connection.fetchval(sql("is_reserved_word"), database.schema):
            raise OperatorFault(f"the schema cannot be named {database.schema}, a word of SQL; choose another name")
        if on_citus:
            await connection.execute(sql("distribute_schemas"))
            connection.shards = shards_of(())  # type: ignore[attr-defined] # of `connection_class`
        for statement in citus.statements_of(sql("create_schema_version")):
            await connection.execute(statement)
        applied = await _applied(connection)
        _check_known(applied)
        check_unchanged(applied)
        if OF_BUCKET in applied and bucket is None:
            raise OperatorFault(
                f"the schema {database.schema} is a bucket: migrate its installation, without the number"
            )
        names = []
        beside_noetl = await connection.fetchval(sql("has_noetl_server"))
        files = [
            migration.numbered(bucket, buckets)
            for migration in _ours(beside_noetl=beside_noetl, in_bucket=bucket is not None, on_citus=on_citus)
        ]
        for file in files:
            if file.version not in applied:
                await _apply(connection, file, on_citus=on_citus)
                names.append(file.name)
        if on_citus:
            await citus.pin(connection, [file.text for file in files])
    except asyncpg.InsufficientPrivilegeError as error:
        message = f"the role may not change the schema: {error}; migrate as the owner of the database"
        raise PermissionFault(message) from error
    finally:
        await connection.close()
    return names


async def _apply(connection: Connection, migration: Migration, *, on_citus: bool) -> None:
    """Apply one file in one transaction; raises SchemaFault if an object of the same name is in the way."""
    try:
        async with connection.transaction():
            await (citus.apply if on_citus else _execute)(connection, migration.text)
            await connection.execute(
                sql("record_migration"), migration.version, migration.name, migration.checksum, migration.serves_from,
                __version__,
            )  # fmt: skip
    except asyncpg.InsufficientPrivilegeError:
        raise
    except (asyncpg.SyntaxOrAccessError, asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
        message = (
            f"migration {migration.name} cannot be applied: {error}; something of that name stands in the schema "
            f"{schema_of(connection)} that is neither ours nor of a NoETL server: rename it, or move it to another "
            "schema"
        )
        raise SchemaFault(message) from error


async def _execute(connection: Connection, text: str) -> None:
    await connection.execute(text)


def roles() -> str:
    """Return the SQL that makes the roles and grants what each may do, unrendered; it may be run again."""
    return roles_file().read_text(encoding="utf-8")


async def create_roles(database: Database) -> None:
    """Create the roles, or update their rights, in one transaction; the schema must exist."""
    connection = await connect(database, name="noetl-broker migrate")
    try:
        await check_version(connection)
        async with connection.transaction():
            await connection.execute(sql("wait_for_migrations"))
            for statement in citus.statements_of(roles()):
                await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError as error:
        message = f"the role may not make roles or grant: {message_of(error)}"
        raise PermissionFault(message) from error
    finally:
        await connection.close()


async def status(database: Database) -> list[Applied]:
    """Each migration, and whether it is applied. Raises HasBuckets for an installation."""
    connection = await connect(database, name="noetl-broker migrate")
    try:
        await refuse_installation(connection)
        applied = await _applied(connection)
        beside_noetl = await connection.fetchval(sql("has_noetl_server"))
    finally:
        await connection.close()
    ours = _ours(
        beside_noetl=beside_noetl or 0 in applied, in_bucket=OF_BUCKET in applied, on_citus=ON_CITUS in applied
    )
    known = [
        Applied(
            m.version, m.name, applied[m.version].checksum if m.version in applied else None, m.version not in applied
        )
        for m in ours
    ]
    ahead = set(applied) - {m.version for m in ours}
    return known + [
        Applied(version, applied[version].name, applied[version].checksum, pending=False) for version in sorted(ahead)
    ]


async def check_version(connection: Connection) -> dict[int, Recorded]:
    """The applied migrations by version, if this program serves them; else raises SchemaFault. So for another encoding.

    HasBuckets: it is an installation. A newer schema is served if each unknown migration says that programs of our
    version can continue.
    """
    await _check_encoding(connection)
    applied = await _applied(connection)
    version, newest = max(applied, default=0), SERVED_VERSIONS[-1]
    if version in SERVED_VERSIONS or (
        version > newest and all(entry.serves_from <= newest for number, entry in applied.items() if number > newest)
    ):
        return applied
    if version == 0:
        await refuse_installation(connection)
        schema = schema_of(connection)
        message = f"the database has no {schema} schema of ours; run noetl-broker migrate"
        if schema != named_of(connection):
            message += f"; if {schema} was there before, restore it from a backup"
    else:
        remedy = "run noetl-broker migrate" if version < newest else "upgrade the program"
        message = f"the schema is at {version_of(applied)}; {remedy}"
    raise SchemaFault(with_schema(message, named_of(connection)))


def version_of(applied: dict[int, Recorded]) -> str:
    """The version of a schema and the versions that this program serves, both with the program's version."""
    version = max(applied)
    served = " to ".join(dict.fromkeys(map(str, (SERVED_VERSIONS[0], SERVED_VERSIONS[-1]))))
    made_by = f" (noetl-broker {applied[version].program})" if applied[version].program else ""
    return f"version {version}{made_by}, this noetl-broker {__version__} serves {served}"


async def check_rights(connection: Connection) -> None:
    """Raise PermissionFault with the rights that a daemon's role lacks."""
    missing = await missing_rights(connection)
    if missing:
        message = f"the role lacks {', '.join(missing)}; noetl-broker migrate --roles makes a role that has it"
        raise PermissionFault(with_schema(message, named_of(connection)))


async def missing_rights(connection: Connection, role: str | None = None) -> list[str]:
    """The rights that a role (None: our own) lacks to run as a daemon."""
    return [row["missing"] for row in await connection.fetch(sql("missing_rights"), role)]


async def check_operator_rights(connection: Connection) -> None:
    """Raise PermissionFault with the rights of operators that our role lacks."""
    missing = await missing_operator_rights(connection)
    if missing:
        more = f" and {len(missing) - MOST_SHOWN} more" if len(missing) > MOST_SHOWN else ""
        role = f"{named_of(connection)}_operator"
        raise PermissionFault(
            f"the login lacks {', '.join(missing[:MOST_SHOWN])}{more}; it needs the role {role}: grant {role} to it"
            " (noetl-broker migrate --roles makes it)"
        )


async def missing_operator_rights(connection: Connection, role: str | None = None) -> list[str]:
    """The rights of operators that a role (None: our own) lacks."""
    schema = schema_of(connection)
    granted = [(right, rendered(thing, schema)) for right, thing in _granted(roles(), "noetl_operator")]
    rights, things = [[*column] for column in zip(*granted, strict=True)]
    return [row["missing"] for row in await connection.fetch(sql("missing_of_granted"), role, rights, things)]


def _granted(text: str, role: str) -> Iterator[tuple[str, str]]:
    """Each right that the text of `roles.sql` grants to a role alone, and the table or function."""
    grants = re.compile(rf"^\s*grant ([\w, ]+) on\s+(?:function\s+)?([^;]*?)\s+to {role};", re.MULTILINE)
    for rights, things in grants.findall(text):
        for thing in _COMMA.split(" ".join(things.split())):
            yield from ((right, thing) for right in rights.split(", "))


async def _check_encoding(connection: Connection) -> None:
    """Raise SchemaFault if the database is not in UTF8: results and errors may contain any character."""
    row = await connection.fetchrow(sql("database_encoding"))
    if row is not None and row["encoding"] != "UTF8":
        message = (
            f"the database {row['database']} is in {row['encoding']}, which cannot hold all that is written to it; make"
            " one in UTF8: create database NAME template template0 encoding 'UTF8' locale 'C'"
        )
        raise SchemaFault(message)


async def _applied(connection: Connection) -> dict[int, Recorded]:
    """The applied migrations by version; raises PermissionFault if our login may not read them."""
    try:
        if not await connection.fetchval(sql("has_schema_version")):
            return {}
        rows = await connection.fetch(sql("list_migrations"))
    except asyncpg.InsufficientPrivilegeError as error:
        raise PermissionFault(f"the database refuses, because a right is missing: {error}") from error
    return {
        row["version"]: Recorded(row["name"], row["checksum"], row["serves_from"] or row["version"], row["program"])
        for row in rows
    }


def _check_known(applied: dict[int, Recorded]) -> None:
    """Raise SchemaFault if a newer program migrated the schema."""
    if applied and max(applied) > SERVED_VERSIONS[-1]:
        raise SchemaFault(f"the schema is at {version_of(applied)}; migrate with the newer program")


def check_unchanged(applied: dict[int, Recorded]) -> None:
    """Raise SchemaFault if the file of an applied migration was changed."""
    for ours in _ours(beside_noetl=True, in_bucket=True, on_citus=True):
        if ours.version in applied and applied[ours.version].checksum != ours.checksum:
            message = f"migration {ours.name} was changed after it was applied; restore the file as it was released"
            raise SchemaFault(message)

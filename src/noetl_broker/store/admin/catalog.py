"""The catalog: registers versions of playbooks, finds them, and suggests near names."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, NamedTuple

import asyncpg

from noetl_broker.errors import NotFoundFault, OperatorFault, PermissionFault
from noetl_broker.playbook.blocks import all_blocks
from noetl_broker.playbook.buckets import bucket_faults, home_fault
from noetl_broker.playbook.compile import compile_playbook
from noetl_broker.playbook.diagnostics import Finding, PlaybookError, PlaybookRules
from noetl_broker.playbook.model import Playbook
from noetl_broker.playbook.schedules import declared_schedules
from noetl_broker.store.admin.schedules import ScheduleSpec, declare_schedules
from noetl_broker.store.admin.signals import declare_on_signal
from noetl_broker.store.admin.throttles import declare_throttles
from noetl_broker.store.connect.buckets import OwnBucket, own_bucket
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.json_codec import dump_json
from noetl_broker.store.queries import sql


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """One registered playbook; `new` is False if its text equals the latest version."""

    path: str
    version: int
    catalog_id: int
    new: bool
    notes: tuple[str, ...] = ()  # what the author should know


async def register(
    connection: Connection,
    playbooks: Sequence[tuple[Playbook, str]],
    *,
    new_home: bool = False,
    paused: bool = False,
    by: str | None = None,
) -> list[Registered]:
    """Register playbooks with their texts, all or none; an unchanged text makes no new version.

    Raises PlaybookError for what a bucket refuses; `new_home`: not for another metadata.bucket.
    `by` registers them. `paused`, or the login is no operator: schedules and signals that are new or changed begin
    paused.
    """
    async with connection.transaction():
        # READ COMMITTED: the next statement sees what the previous holder of the lock committed.
        await connection.execute(sql("lock_catalog"))
        paused = paused or not await connection.fetchval(sql("may_resume"))
        own = await own_bucket(connection)
        if own is not None:
            await _refuse_in_bucket(connection, [playbook for playbook, _ in playbooks], new_home=new_home)
        registered = [await _register(connection, playbook, text, by) for playbook, text in playbooks]
        for index, (playbook, _) in enumerate(playbooks):
            await _declare_schedules(connection, playbook, own, paused=paused, by=by)
            starts_here = own is None or own.has(playbook.bucket or playbook.path)
            signals = playbook.on_signal if starts_here else ()
            await declare_on_signal(connection, playbook.path, signals, paused=paused)
            notes = *await declare_throttles(connection, playbook), *await _pool_notes(connection, playbook)
            registered[index] = replace(registered[index], notes=notes)
        return registered


async def _refuse_in_bucket(connection: Connection, playbooks: Sequence[Playbook], *, new_home: bool) -> None:
    """Raise PlaybookError for what a bucket refuses."""
    faults = await bucket_findings(connection, playbooks)
    if not new_home:
        rows = await connection.fetch(sql("latest_homes"), [playbook.path for playbook in playbooks])
        latest = {row["path"]: (row["version"], row["bucket"]) for row in rows}
        changes = [home_fault(one, *latest[one.path]) for one in playbooks if one.path in latest]
        faults += [fault for fault in changes if fault is not None]
    if faults:
        raise PlaybookError(faults)


async def bucket_findings(connection: Connection, playbooks: Sequence[Playbook]) -> list[Finding]:
    """What a bucket refuses in playbooks that are registered together; nothing if the schema is no bucket."""
    if not await connection.fetchval(sql("is_bucket")):
        return []
    needs = [playbook.needs for playbook in playbooks if playbook.needs is not None]
    calls = {(call.path, call.version) for each in needs for call in each.calls}
    rows = await connection.fetch(sql("homes_of"), [path for path, _ in calls], [version for _, version in calls])
    homes = {(row["path"], row["version"]): row["bucket"] for row in rows}
    homes |= {(playbook.path, None): playbook.bucket for playbook in playbooks}
    return [fault for playbook in playbooks for fault in bucket_faults(playbook, homes)]


async def _pool_notes(connection: Connection, playbook: Playbook) -> tuple[str, ...]:
    """A note for a playbook with a `pool` beside a NoETL server."""
    if not playbook.names_pools or not await connection.fetchval(sql("is_beside_noetl")):
        return ()
    return (f"{playbook.path}: `pool` has no meaning for NoETL's own workers: they lease the jobs of all pools",)


async def write_homes(connection: Connection, playbooks: Sequence[Playbook]) -> None:
    """Write the homes of registered playbooks in the schema of an installation, whose functions route by them."""
    homes = {playbook.path: playbook.bucket for playbook in playbooks}
    await connection.execute(sql("write_homes"), [*homes], [*homes.values()])


async def _declare_schedules(
    connection: Connection, playbook: Playbook, own: OwnBucket | None, *, paused: bool, by: str | None
) -> None:
    """Bring the schedules that a playbook declares in line: in a bucket, those that live there.

    Raises PlaybookFault for a bad one.
    """
    path = playbook.path
    specs = [
        ScheduleSpec(
            name=f"{path}#{declared.name}",
            path=path,
            cron=declared.cron,
            every=declared.every,
            payload=dump_json(declared.payload),
            timezone=declared.timezone,
            jitter=declared.jitter,
            catch_up=declared.catch_up,
            overlap=declared.overlap,
            declared_in=path,
        )
        for declared in declared_schedules(playbook.document, path)
        if own is None or own.has(playbook.bucket or f"{path}#{declared.name}")
    ]
    await declare_schedules(connection, path, specs, paused=paused, by=by)


async def _register(connection: Connection, playbook: Playbook, text: str, by: str | None) -> Registered:
    latest = await connection.fetchrow(sql("latest_version"), playbook.path)
    if latest is not None and latest["content"] == text:
        return Registered(
            path=playbook.path, version=latest["version"], catalog_id=latest["catalog_id"], new=False
        )  # fmt: skip
    version = 1 if latest is None else latest["version"] + 1
    kind = str(playbook.document.get("kind", "Playbook"))
    document = dump_json(playbook.document)
    catalog_id = await connection.fetchval(
        sql("add_version"), playbook.path, version, kind, playbook.name, text, document, playbook.bucket, by
    )
    for block in all_blocks(playbook):
        part = dump_json(block.document)
        await connection.execute(sql("add_block"), block.path, version, kind, block.name, catalog_id, part)
    return Registered(path=playbook.path, version=version, catalog_id=catalog_id, new=True)


async def find_or_register(connection: Connection, playbook: Playbook, text: str, by: str | None = None) -> Registered:
    """The version of the path with this text; a new version if none has it.

    Raises PermissionFault: operators register no playbook; and OperatorFault in a bucket, which registers none alone.
    """
    found = await connection.fetchrow(sql("find_content"), playbook.path, text)
    if found is None:
        if await connection.fetchval(sql("is_bucket")):
            raise OperatorFault(
                f"the playbook {playbook.path} with this text is not registered, and one bucket cannot register it"
                " alone: noetl-broker register FILE, then do this again"
            )
        try:
            return (await register(connection, [(playbook, text)], by=by))[0]
        except asyncpg.InsufficientPrivilegeError as error:
            raise PermissionFault(
                f"the playbook {playbook.path} with this text is not registered, and only the owner of the schema may"
                " register it: noetl-broker register FILE"
            ) from error
    return Registered(path=playbook.path, version=found["version"], catalog_id=found["catalog_id"], new=False)


class Older(NamedTuple):
    """An earlier version of a playbook that has a text, and the latest version, which has another one."""

    version: int
    latest: int


async def find_older(connection: Connection, path: str, text: str) -> Older | None:
    """The version of the path with this text, if a newer version has another text; None if none has it."""
    found = await connection.fetchrow(sql("find_content"), path, text)
    latest = (await latest_versions(connection, [path])).get(path)
    if found is None or latest is None or latest == found["version"]:
        return None
    return Older(found["version"], latest)


class Version(NamedTuple):
    """A registered version of a playbook."""

    catalog_id: int
    path: str
    version: int
    content: str

    def compile(self, rules: PlaybookRules) -> Playbook:
        """The compiled playbook. Raises PlaybookError."""
        return compile_playbook(self.content, file=self.path, path=self.path, rules=rules.of_registered())


async def find(connection: Connection, path: str, version: int | None) -> Version:
    """A version of a playbook (None: the latest); NotFoundFault suggests a near name."""
    found = await connection.fetchrow(sql("find_version"), path, version)
    if found is None:
        named = "" if version is None else f" version {version}"
        meant = await suggest_path(connection, path, version)
        raise NotFoundFault(f"no playbook {path}{named} is registered" + (f"; {meant}" if meant else ""))
    return Version(*found)


async def find_readable(connection: Connection, path: str, version: int | None) -> Version | None:
    """As `find`; None if there is none, or the role may not read the catalog."""
    try:
        return await find(connection, path, version)
    except (NotFoundFault, asyncpg.InsufficientPrivilegeError):
        return None


async def registered_versions(connection: Connection) -> dict[str, list[int]]:
    """The versions of each path."""
    return {row["path"]: row["versions"] for row in await connection.fetch(sql("list_versions"))}


async def latest_versions(connection: Connection, paths: Collection[str]) -> dict[str, int]:
    """The latest version of each of these paths that is registered."""
    return {row["path"]: row["version"] for row in await connection.fetch(sql("latest_versions"), [*paths])}


async def list_step_types(connection: Connection) -> list[dict[str, Any]]:
    """The step types of people's own workers: `name`, `added_at`, `added_by`."""
    return [dict(row) for row in await connection.fetch(sql("list_step_types"))]


async def known_step_types(connection: Connection) -> frozenset[str]:
    """The names of these step types, for a registration."""
    return frozenset(row["name"] for row in await list_step_types(connection))


async def suggest_path(connection: Connection, path: str, version: int | None) -> str | None:
    """A suggestion for a path or version that was not found; None if nothing is near."""
    latest = {row["path"]: row["version"] for row in await connection.fetch(sql("list_paths"))}
    if path in latest:
        return f"its latest version is {latest[path]}" if version is not None else None
    near = get_close_matches(path, latest, n=1)
    if not near:
        # People often give only the last part of a path.
        names = {known.rpartition("/")[2]: known for known in latest}
        near = [names[name] for name in get_close_matches(path.rpartition("/")[2], names, n=1)]
    return f'did you mean "{near[0]}"?' if near else None

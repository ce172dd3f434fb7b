"""The catalog: registers versions of playbooks and finds what somebody may have meant by a path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from noetl_broker.errors import NotFoundFault
from noetl_broker.playbook.model import Playbook
from noetl_broker.store.codec import dump_json
from noetl_broker.store.pool import Connection
from noetl_broker.store.queries import sql


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """What became of one playbook; `new` false: its content was the latest version's already."""

    path: str
    version: int
    catalog_id: int
    new: bool


async def register(connection: Connection, playbooks: Sequence[tuple[Playbook, str]]) -> list[Registered]:
    """Catalog playbooks with their texts, all or none; the same text as the latest version makes no new version."""
    async with connection.transaction():
        # Under READ COMMITTED the next statement sees what the previous holder committed.
        await connection.execute(sql("lock_catalog"))
        return [await _register(connection, playbook, text) for playbook, text in playbooks]


async def _register(connection: Connection, playbook: Playbook, text: str) -> Registered:
    latest = await connection.fetchrow(sql("latest_version"), playbook.path)
    if latest is not None and latest["content"] == text:
        return Registered(
            path=playbook.path, version=latest["version"], catalog_id=latest["catalog_id"], new=False
        )  # fmt: skip
    version = 1 if latest is None else latest["version"] + 1
    kind = str(playbook.document.get("kind", "Playbook"))
    document = dump_json(playbook.document)
    catalog_id = await connection.fetchval(
        sql("add_version"), playbook.path, version, kind, playbook.name, text, document
    )
    return Registered(path=playbook.path, version=version, catalog_id=catalog_id, new=True)


async def find_or_register(connection: Connection, playbook: Playbook, text: str) -> Registered:
    """The version of the playbook's path that has this text, whichever it is; a new one only where none has."""
    found = await connection.fetchrow(sql("find_content"), playbook.path, text)
    if found is None:
        return (await register(connection, [(playbook, text)]))[0]
    return Registered(path=playbook.path, version=found["version"], catalog_id=found["catalog_id"], new=False)


async def find(connection: Connection, path: str, version: int | None) -> tuple[str, int]:
    """Give the text of a playbook and its version (None: the latest); NotFoundFault says what may have been meant."""
    found = await _find(connection, path, version)
    return found["content"], found["version"]


async def find_row(connection: Connection, path: str, version: int | None) -> tuple[int, str]:
    """As `find`, with the id of the catalog's row and the text."""
    found = await _find(connection, path, version)
    return found["catalog_id"], found["content"]


async def _find(connection: Connection, path: str, version: int | None) -> Any:
    found = await connection.fetchrow(sql("find_version"), path, version)
    if found is None:
        named = "" if version is None else f" version {version}"
        meant = await what_was_meant(connection, path, version)
        raise NotFoundFault(f"no playbook {path}{named} is registered" + (f"; {meant}" if meant else ""))
    return found


async def what_was_meant(connection: Connection, path: str, version: int | None) -> str | None:
    """Say which registered path, or which version, is near the one that was not found; None when nothing is."""
    latest = {row["path"]: row["version"] for row in await connection.fetch(sql("list_paths"))}
    if path in latest:
        return f"its latest version is {latest[path]}" if version is not None else None
    near = get_close_matches(path, latest, n=1)
    if not near:
        # A name alone is often meant for the last part of a path.
        names = {known.rpartition("/")[2]: known for known in latest}
        near = [names[name] for name in get_close_matches(path.rpartition("/")[2], names, n=1)]
    return f'did you mean "{near[0]}"?' if near else None

"""What `dev` registers of a folder, and what it leaves as it is."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from noetl_broker.dev.registrar import Registrar, Registrations
from noetl_broker.dev.watch import FileChanges, scan
from noetl_broker.playbook import PlaybookRules
from noetl_broker.store.admin.catalog import announce_step_types
from noetl_broker.store.connect.session import session
from tests.brokers import rows
from tests.postgres import Database

OLD = "apiVersion: noetl.io/v1\nkind: Playbook\nmetadata: {path: a/story}\nworkflow: [{step: start}]\n"
NEW = f"{OLD}# better\n"
ON_ONE_LINE = (
    '{"apiVersion": "noetl.io/v1", "kind": "Playbook", "metadata": {"path": "a/b"}, "workflow": [{"step": "start"}]}'
)


def registrar_of(database: Database) -> Registrar:
    """A registrar as a `dev` has it that starts now."""
    return Registrar(database, PlaybookRules())


async def save(registrar: Registrar, file: Path, text: str) -> Registrations:
    """Write a file; give what the registrar says."""
    await asyncio.to_thread(file.write_text, text, encoding="utf-8")
    return await registrar.register(FileChanges([file], []))


async def versions(database: Database) -> list[tuple[object, ...]]:
    """The versions in the catalog, with their texts."""
    return [tuple(row) for row in await rows(database, "select version, content from noetl.catalog order by version")]


async def test_an_older_text_does_not_replace_a_newer_version(database: Database, tmp_path: Path) -> None:
    """One line says so, with the command that replaces it. A text that is new is registered."""
    file = tmp_path / "story.yaml"
    for text in (OLD, NEW):
        await save(registrar_of(database), file, text)
    registrar = registrar_of(database)
    kept = await save(registrar, file, OLD)
    assert (kept.registered, kept.refused, kept.kept) == ([], [], [file])
    assert "\n".join(kept.lines) == (
        f"{file}: has the text of version 1 of a/story, and the newer version 2 stays;"
        f" noetl-broker register {file} replaces it"
    )
    assert await versions(database) == [(1, OLD), (2, NEW)]
    await save(registrar, file, f"{OLD}# best\n")
    assert len(await versions(database)) == 3


async def test_an_edit_that_is_taken_back_is_registered(database: Database, tmp_path: Path) -> None:
    """The newer version came from this file while `dev` ran, so its author wants the older text."""
    registrar, file = registrar_of(database), tmp_path / "story.yaml"
    for text in (OLD, NEW, OLD):
        await save(registrar, file, text)
    assert await versions(database) == [(1, OLD), (2, NEW), (3, OLD)]


@pytest.mark.parametrize("name", ["b.yaml", "b.YML", "b.json"])
async def test_a_playbook_on_one_line_is_registered(database: Database, tmp_path: Path, name: str) -> None:
    """Its file is found, and taken as `register` takes it. Other files are passed over."""
    (tmp_path / name).write_text(ON_ONE_LINE, encoding="utf-8")
    (tmp_path / "package.json").write_text('{"name": "shop",\n"workflow": []}', encoding="utf-8")
    report = await registrar_of(database).register(FileChanges(sorted(scan(tmp_path)), []))
    assert [(file.name, entry.path) for file, entry, _ in report.registered] == [(name, "a/b")]
    assert (report.refused, report.lines) == ([], [])


async def test_a_playbook_waits_for_its_step_types(database: Database, tmp_path: Path) -> None:
    """It is tried again once a worker has announced new ones; until then, nothing is checked again."""
    registrar, file = registrar_of(database), tmp_path / "story.yaml"
    first = await save(registrar, file, OLD.replace("start}", "start, type: ship, to: Oslo}"))
    assert (first.refused, first.lines[-1]) == (
        [file], f"{file}: dev tries again when a worker announces its step types"
    )  # fmt: skip
    assert await registrar.files_with_new_types() == []
    async with session(database, name="test") as connection:
        await announce_step_types(connection, ["ship"])
    assert await registrar.files_with_new_types() == [file]
    again = await registrar.register(FileChanges([file], []))
    assert [entry.path for _, entry, _ in again.registered] == ["a/story"]
    assert await registrar.files_with_new_types() == []

"""Commands find the database of `dev` from their folder upward, if nothing else names one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest

from noetl_broker.dev_folder import DevFolder, dev_folder_of, find_dsn_file


@pytest.fixture
def place(tmp_path: Path) -> Iterator[DevFolder]:
    """Yield a folder with a DSN; the current folder is below it."""
    place = DevFolder(tmp_path)
    with place.locked():
        place.write_dsn("postgresql://somewhere")
    (tmp_path / "below").mkdir()
    with chdir(tmp_path / "below"):
        yield place


def test_the_nearest_file_is_found_upward(place: DevFolder) -> None:
    """It leads back to the folder."""
    found = find_dsn_file({})
    assert found == place.dsn_file
    assert dev_folder_of(found) == place


@pytest.mark.parametrize("name", ["PGHOST", "PGDATABASE", "PGSERVICE"])
def test_a_variable_that_names_a_database_wins(place: DevFolder, name: str) -> None:
    """An empty one does not count."""
    assert find_dsn_file({name: "x"}) is None
    assert find_dsn_file({name: ""}) == place.dsn_file


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_another_account_is_ignored(place: DevFolder) -> None:
    """It could send payloads to any server."""
    os.chown(place.dsn_file, 65534, 65534)
    assert find_dsn_file({}) is None

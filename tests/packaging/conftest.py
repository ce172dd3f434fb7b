"""The installed programs of these tests, each built once."""

from __future__ import annotations

from pathlib import Path

import pytest

from noetl_broker.store.migrations import SERVED_VERSIONS
from tests.packaging.wheels import Program, as_the_next, build, copy_of_the_tree, install

ADDITIVE = f"-- serves-from: {SERVED_VERSIONS[-1]}\nalter table noetl.execution add column note text;\n"
BREAKING = "alter table noetl.execution rename column error to fault;\n"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    return build(copy_of_the_tree(tmp_path_factory.mktemp("tree")), tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """This version."""
    return install(wheel, tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="session")
def additive(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """A next version whose migration only adds, and declares it."""
    return _next(tmp_path_factory, ADDITIVE)


@pytest.fixture(scope="session")
def breaking(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """A next version whose migration removes a column that this version reads."""
    return _next(tmp_path_factory, BREAKING)


def _next(folders: pytest.TempPathFactory, migration: str) -> Program:
    tree = as_the_next(copy_of_the_tree(folders.mktemp("tree")), migration)
    return install(build(tree, folders.mktemp("wheel")), folders.mktemp("installed"))

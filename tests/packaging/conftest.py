"""The wheel of these tests: built once, installed once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging.wheels import Program, build, copy_of_the_tree, install, quick_compiler


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files of which a wheel is built."""
    return copy_of_the_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="session")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    return build(tree, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def compiled_wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled wheel of this tree, for this Python."""
    compiler = str(quick_compiler(tmp_path_factory.mktemp("compiler")))
    return build(tree, tmp_path_factory.mktemp("compiled"), HATCH_BUILD_HOOK_ENABLE_CUSTOM="true", CC=compiler)


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """This version."""
    return install(wheel, tmp_path_factory.mktemp("installed"))

"""The licence is in what a user installs, once the owner of the repository has chosen one."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.packaging.wheels import build
from tests.test_tidy import ROOT

LICENCES = sorted(ROOT.glob("LICENSE*"))


@pytest.mark.skipif(
    not LICENCES, reason="there is no LICENSE file yet: the owner of the repository chooses the licence"
)
def test_the_sdist_and_the_wheel_hold_the_licence(tree: Path, tmp_path: Path) -> None:
    """Where tools look for it: at the top of the sdist, and in the metadata of the wheel."""
    for file in LICENCES:
        shutil.copy(file, tree)
    wheel = zipfile.ZipFile(build(tree, tmp_path / "wheel"))
    with tarfile.open(build(tree, tmp_path / "sdist", "sdist")) as sdist:
        held = {name.partition("/")[2] for name in (*wheel.namelist(), *sdist.getnames())}
    assert {name for file in LICENCES for name in (file.name, f"licenses/{file.name}")} - held == set()

"""The matrix of `make test-matrix` covers the versions of the project and lists what it leaves out."""

from __future__ import annotations

import sys
import tomllib

import pytest

from tests import matrix
from tests.test_tidy import ROOT


def test_every_combination_is_run_or_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--list` names each Python and each Postgres."""
    monkeypatch.setattr(sys, "argv", ["matrix", "--list"])
    matrix.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert {line[:10].strip() for line in lines} <= {"found", "left out"}
    for version in matrix.PYTHONS:
        of_version = [line for line in lines if f"Python {version}" in line]
        assert len(of_version) in {1, len(matrix.POSTGRES)}


def test_the_pythons_are_those_of_the_project() -> None:
    """From `requires-python` on, and each one of the classifiers."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [text.rpartition(" ")[2] for text in project["classifiers"] if ":: 3." in text]
    assert project["requires-python"] == f">={matrix.PYTHONS[0]}"
    assert set(named) <= set(matrix.PYTHONS)

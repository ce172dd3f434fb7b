"""The pytest plugin, in a pytest of its own: another process, in a folder that is not this project."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

PLAYBOOK = """
apiVersion: noetl.io/v1
kind: Playbook
metadata: {name: parent, path: shop/parent}
workflow:
  - {step: start, next: ask}
  - {step: ask, type: playbook, path: shop/child, args: {n: 2}, next: end}
  - {step: end, result: "{{ ask }}"}
"""
CHILD = """
apiVersion: noetl.io/v1
kind: Playbook
metadata: {name: child, path: shop/child}
workflow:
  - {step: start, next: double}
  - {step: double, type: teleport, args: {n: "{{ workload.n }}"}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with two playbooks and a setting."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "parent.yaml").write_text(PLAYBOOK)
    (tmp_path / "flows" / "child.yaml").write_text(CHILD)
    (tmp_path / "pytest.ini").write_text("[pytest]\nnoetl_playbooks = flows\nnoetl_step_types = teleport\n")
    return tmp_path


def run(folder: Path, test: str) -> tuple[int, str]:
    """Run pytest on one test file; gives its exit code and its output."""
    (folder / "test_shop.py").write_text(dedent(test))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist"]
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=600)
    return answer.returncode, answer.stdout + answer.stderr


def test_one_simulation_may_know_more_step_types(folder: Path) -> None:
    """Beside those of the settings; without them the playbook does not compile."""
    (folder / "flows" / "wide.yaml").write_text(
        "apiVersion: noetl.io/v1\nkind: Playbook\nmetadata: {path: shop/wide}\n"
        "workflow: [{step: start, next: [a, b]}, {step: a, type: teleport}, {step: b, type: resize}]\n"
    )
    code, output = run(
        folder,
        """
        import pytest

        def test_wide(playbooks):
            with pytest.raises(Exception, match="the type `resize` is not known"):
                playbooks.simulate("shop/wide")
            assert playbooks.simulate("shop/wide", {"a": 1, "b": 2}, extra_step_types=["resize"]).status == "COMPLETED"
        """,
    )
    assert (code, "1 passed" in output) == (0, True), output


def test_the_fixture_simulates_a_playbook_with_those_that_it_calls(folder: Path) -> None:
    """By its path or its file name."""
    code, output = run(
        folder,
        """
        import pytest

        @pytest.mark.parametrize("name", ["shop/parent", "parent", "parent.yaml"])
        def test_parent(playbooks, name):
            story = playbooks.simulate(name, {"double": lambda job: job.args["n"] * 2})
            assert story.result == 4
        """,
    )
    assert (code, "3 passed" in output) == (0, True), output


def test_a_failed_test_shows_the_story(folder: Path) -> None:
    """The heading says how the execution ended."""
    code, output = run(
        folder,
        """
        def test_parent(playbooks):
            assert playbooks.simulate("shop/parent", {"ask": 5}).result == 4
        """,
    )
    assert code == 1
    assert "story of shop/parent: COMPLETED" in output
    assert "event execution_complete 5" in output


def test_an_unknown_playbook_is_an_error_that_lists_the_known_ones(folder: Path) -> None:
    """An unknown playbook is an error that lists the known ones."""
    code, output = run(
        folder,
        """
        def test_parent(playbooks):
            playbooks.simulate("shop/elsewhere")
        """,
    )
    assert code == 1
    assert "has no playbook 'shop/elsewhere'; it has shop/child, shop/parent" in output

"""The pytest plugin, in a pytest of its own: another process, in a folder that knows nothing of this project."""

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
    """Run pytest on one test file; gives how it ended and what it printed."""
    (folder / "test_shop.py").write_text(dedent(test))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist"]
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    return answer.returncode, answer.stdout + answer.stderr


def test_a_playbook_of_the_folder_is_played_with_those_that_it_calls(folder: Path) -> None:
    """By its path, or the name of its file."""
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


def test_the_story_is_shown_where_a_test_fails(folder: Path) -> None:
    """Under a heading that says how the execution ended."""
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


def test_a_playbook_that_is_not_there_is_said(folder: Path) -> None:
    """With those that are."""
    code, output = run(
        folder,
        """
        def test_parent(playbooks):
            playbooks.simulate("shop/elsewhere")
        """,
    )
    assert code == 1
    assert "has no playbook 'shop/elsewhere'; it has shop/child, shop/parent" in output

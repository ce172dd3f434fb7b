"""The pytest plugin, in a pytest of its own: another process, in a folder that is not this project."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


TESTS = """
import pytest

@pytest.mark.parametrize("name", ["shop/parent", "parent", "parent.yaml"])
def test_parent(playbooks, name):
    story = playbooks.simulate(name, {"double": lambda job: job.args["n"] * 2})
    assert story.result == 4

def test_failing(playbooks):
    assert playbooks.simulate("shop/parent", {"ask": 5}).result == 4

def test_unknown(playbooks):
    playbooks.simulate("shop/elsewhere")

def test_more_step_types(playbooks):
    open("flows/wide.yaml", "w").write(WIDE)
    with pytest.raises(Exception, match="the type `resize` is not known"):
        playbooks.simulate("shop/wide")
    assert playbooks.simulate("shop/wide", {"a": 1, "b": 2}, extra_step_types=["resize"]).status == "COMPLETED"
"""


def test_the_fixture_simulates_a_playbook_with_those_that_it_calls(tmp_path: Path) -> None:
    """By its path or its file name, with the step types of the settings and of the call.

    A failed test shows the story, and how the execution ended. An unknown playbook is an error with the known ones.
    """
    wide = CHILD.partition("workflow")[0].replace("child", "wide")
    wide += "workflow: [{step: start, next: [a, b]}, {step: a, type: teleport}, {step: b, type: resize}]\n"
    (tmp_path / "flows").mkdir()
    for name, text in {"parent": PLAYBOOK, "child": CHILD}.items():
        (tmp_path / "flows" / f"{name}.yaml").write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\nnoetl_playbooks = flows\nnoetl_step_types = teleport\n")
    (tmp_path / "test_shop.py").write_text(f"WIDE = {wide!r}\n{TESTS}")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
    output = answer.stdout + answer.stderr
    assert (answer.returncode, "2 failed, 4 passed" in output) == (1, True), output
    assert "story of shop/parent: COMPLETED" in output
    assert "event execution_complete 5" in output
    assert "has no playbook 'shop/elsewhere'; it has shop/child, shop/parent" in output

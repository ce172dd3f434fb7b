"""Golden histories: the core decides what it decided when they were recorded (docs/explanation/architecture.md)."""

from __future__ import annotations

import pytest

from tests.golden_histories import FOLDER, RECORDED, decide, read


@pytest.mark.parametrize("name", RECORDED)
def test_the_core_decides_as_it_did(name: str) -> None:
    """With the recorded playbook, not the current example."""
    document = read(name)
    texts = {path: "\n".join(lines) + "\n" for path, lines in document["playbooks"].items()}
    for number, execution in enumerate(document["executions"], 1):
        again = decide(execution, texts, number)
        for turn, recorded in enumerate(execution["decisions"]):
            assert again["decisions"][turn] == recorded, f"execution {number}, turn {turn + 1}"
        assert again["state"] == execution["state"]


def test_each_recorded_run_has_its_file() -> None:
    """And no other file is there; `make golden` records missing ones."""
    assert sorted(file.stem for file in FOLDER.glob("*.json")) == sorted(RECORDED)

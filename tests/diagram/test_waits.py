"""Waits and approvals in a diagram: what they wait for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from noetl_broker.diagram.build import picture_of_execution, picture_of_playbook
from noetl_broker.diagram.labels import step_texts
from noetl_broker.diagram.tooltips import status_line
from noetl_broker.history.path import ExecutionPath, StepStatus
from tests.stories import playbook

BODY = """
workflow:
- {step: start, next: [cool, ask]}
- {step: cool, type: wait, for: 3d}
- {step: ask, type: approval, timeout: 24h}
"""
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_step_that_waits_says_for_what() -> None:
    """As the playbook says it."""
    kinds = {node.step: step_texts(node).kind for node in picture_of_playbook(playbook(BODY)).nodes}
    assert kinds == {"start": "", "cool": "for 3d", "ask": "a person, within 24h"}


def test_an_open_wait_is_not_running() -> None:
    """It waits for a person, or for its moment."""
    running = StepStatus(status="RUNNING", visits=1, started_at=NOW)
    path = ExecutionPath(
        execution_id=1, version=1, status="RUNNING", started_at=NOW, ended_at=None, read_at=NOW,
        steps={"cool": running, "ask": running},
    )  # fmt: skip
    nodes = picture_of_execution(playbook(BODY), path).nodes
    assert [node.progress.state for node in nodes if node.progress is not None] == ["pending", "due_later", "asking"]


@pytest.mark.parametrize(
    "status, expected",
    [("RUNNING", "▶ running for 1 min 0 s"), ("PAUSED", "‖ paused"), ("QUEUED", "◔ queued")],
)
def test_the_title_says_that_an_execution_is_paused_or_queued(status: str, expected: str) -> None:
    """Such an execution does not run."""
    path = ExecutionPath(
        execution_id=1, version=1, status=status, started_at=NOW, ended_at=None, read_at=NOW + timedelta(minutes=1),
        steps={},
    )  # fmt: skip
    assert status_line(path) == f"execution 1: {expected}"

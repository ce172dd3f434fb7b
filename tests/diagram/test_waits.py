"""Waits and approvals in a diagram: what they wait for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from noetl_broker.diagram.build import picture_of_execution, picture_of_playbook
from noetl_broker.diagram.labels import step_texts
from noetl_broker.diagram.tooltips import status_line
from noetl_broker.history.path import ExecutionPath, StepJob, StepStatus
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


def test_a_step_says_when_it_is_tried_again() -> None:
    """If its action failed; a job that is leased has no such moment."""
    body = playbook(
        "workflow: [{step: start, next: [a, b]}, {step: a, type: http, url: u}, {step: b, type: http, url: u}]"
    )
    jobs = {"a": StepJob("retry", None, NOW + timedelta(minutes=5)), "b": StepJob("leased", "w", NOW)}
    path = ExecutionPath(
        execution_id=1, version=1, status="RUNNING", started_at=NOW, ended_at=None, read_at=NOW,
        steps={name: StepStatus(status="RUNNING", visits=1, started_at=NOW, job=job) for name, job in jobs.items()},
    )  # fmt: skip
    nodes = picture_of_execution(body, path).nodes
    again = {node.step: node.progress.again_at for node in nodes if node.progress is not None}
    assert (again["a"], again["b"]) == (NOW + timedelta(minutes=5), None)


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

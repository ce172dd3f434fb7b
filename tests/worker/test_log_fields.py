"""What the worker's log lines say about their job."""

from __future__ import annotations

import pytest
import structlog

from noetl_broker.store.worker.jobs import LeasedJob
from noetl_broker.worker.logger import Log, job_fields


def job(node: str) -> LeasedJob:
    """Return the second lease of a job of execution 7."""
    return LeasedJob(
        queue_id=5, attempt=2, execution_id=7, node_id=node, node_name="fetch", node_type="python", action="{}",
        context=None, priority=5,
    )  # fmt: skip


@pytest.mark.parametrize("node, more", [("7:fetch", {}), ("7:fetch#1.3", {"node_id": "7:fetch#1.3"})])
def test_a_line_names_execution_step_and_attempt(node: str, more: dict[str, str]) -> None:
    """And the node of an item or of a later visit."""
    expected = {"queue_id": 5, "execution_id": 7, "step": "fetch", "type": "python", "attempt": 2}
    assert job_fields(job(node)) == {**expected, **more}


def test_a_line_within_a_job_names_it_without_structlog(caplog: pytest.LogCaptureFixture) -> None:
    """Also where the program has not configured structlog."""
    structlog.reset_defaults()
    with structlog.contextvars.bound_contextvars(execution_id=7, step="fetch", attempt=2):
        Log("noetl_broker.test").warning("answers_wait", answers=1)
    [line] = caplog.messages
    assert sorted(line.split()) == ["answers=1", "answers_wait", "attempt=2", "execution_id=7", "step='fetch'"]

"""Executions that have undone what they did: forks, retries, replay."""

from __future__ import annotations

from dataclasses import replace

import pytest

from noetl_broker.broker.core import Session
from noetl_broker.errors import OperatorFault
from noetl_broker.history.fork_plan import plan_fork
from noetl_broker.history.record import History
from noetl_broker.history.recovery_plan import plan_recovery
from noetl_broker.history.story import STORY_START, read_events
from tests.forks import fork_story, history_of
from tests.stories import dedented, playbook

PAY = """
    workflow:
    - {step: start, next: charge}
    - step: charge
      type: http
      args: {order: "{{ workload.order }}"}
      compensate:
        type: http
        args: {order: "{{ order }}", id: "{{ result.id }}", why: "{{ error.message }}", of: "{{ execution_id }}"}
      next: ship
    - {step: ship, type: http}
    """
UNDONE = """
    > execution_start {"order": 7}
    > action_completed charge {"id": 5}
    > action_failed ship {"message": "no"}
    > action_completed charge!undo
    """


def undone() -> History:
    """Return an execution that was refunded."""
    return replace(history_of(playbook(PAY), UNDONE), undone={("charge", 1, None): "done"})


def test_no_fork_takes_over_a_result_that_was_undone() -> None:
    """The error names the step and what to do; a fork from the step itself is fine."""
    with pytest.raises(
        OperatorFault, match="execution 1 undid charge, or tried to, so no fork takes over its result; fork"
    ):
        plan_fork(undone(), "ship")
    assert plan_fork(undone(), "charge").taken == ()
    assert plan_fork(undone(), "ship", values={"charge": {"id": 6}}).steps == ("ship",)


def test_a_retry_of_a_compensated_execution_starts_anew() -> None:
    """With the same payload."""
    plan = plan_recovery(undone())
    assert (plan.steps, plan.taken, plan.document["anew"]) == (("start",), (), True)


def test_a_retry_of_an_execution_that_had_nothing_to_undo_continues() -> None:
    """It was COMPENSATING only until it was known that nobody had the job."""
    source = history_of(
        playbook(PAY, metadata="deadline: 60"),
        """
        > execution_start {"order": 7}
        > execution_deadline
        > action_failed charge {"message": "cancelled", "type": "cancelled"}
        """,
    )
    plan = plan_recovery(source)
    assert (plan.steps, "anew" in plan.document) == (("charge",), False)
    assert fork_story(source, plan) == dedented("""
        > fork
            event step_started charge
            job   charge {"order": 7}
        """)


def test_an_undo_without_a_result_says_so() -> None:
    """It is null where the outcome of the action is unknown."""
    story = """
        > execution_start {"order": 7}
        > action_failed charge {"message": "gone", "type": "timeout"}
        > execution_undo {"unknown": true}
        """
    session = Session(playbook(PAY))
    *_, last = [session.apply(event, STORY_START) for event in read_events(story)]
    assert (
        last.events[-1]
        .error["message"]
        .endswith(
            "`result.id` is undefined: there is no such key in a null; `result` is null here: give it a `default`; "
            "mend its `compensate`, register it, then undo with --version latest"
        )
    )
    assert last.events[-1].meta == {"turn": 3, "compensation": {"done": 0, "failed": 1, "unknown": 0, "left": 0}}

"""Executions that have undone what they did: forks, retries, undo executions, replay."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from noetl_broker.broker.core import Session
from noetl_broker.broker.draft.known import UndoRow, taken_over
from noetl_broker.broker.model.decision import Decision
from noetl_broker.broker.model.event import Event
from noetl_broker.errors import OperatorFault
from noetl_broker.history.fork_plan import plan_fork
from noetl_broker.history.record import History
from noetl_broker.history.recovery_plan import plan_recovery
from noetl_broker.history.story import STORY_START, format_story, read_events
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


def play(story: str, *rows: UndoRow) -> list[tuple[Event, Decision]]:
    """Return the turns of an undo execution that took over these rows."""
    session = Session(playbook(PAY), execution_id=2, answers=taken_over(rows))
    return [
        (event, session.apply(event, STORY_START + timedelta(seconds=number)))
        for number, event in enumerate(read_events(story), 1)
    ]


CHARGE = {"action": {"args": {"order": 7}}}
ROWS = (UndoRow("charge", 1, None, 1, inputs=CHARGE, result={"id": 5}), UndoRow("charge", 2, None, 2, 77))


def test_an_undo_execution_begins_compensating() -> None:
    """It undoes the rows that it took over, the last one first. The templates see the other execution's id."""
    turns = play(
        """
        > execution_start; undo rows 2
        > action_completed charge#2!undo
        > execution_cancel
        > action_completed charge!undo
        """,
        *ROWS,
    )
    assert format_story(turns) == dedented("""
        > execution_start; undo rows 2
            event execution_compensating "no"
            event compensation_started charge#2
            child charge#2!undo undo of 77
        > action_completed charge#2!undo
            event compensation_completed charge#2
            event compensation_started charge
            job   charge!undo {"order": 7, "id": 5, "why": "no", "of": 7}
        > execution_cancel  (recorded)
        > action_completed charge!undo
            event compensation_completed charge
            event execution_complete {"done": 2, "unknown": 0}
        """)


def test_an_undo_without_a_result_says_so() -> None:
    """It is null where the outcome of the action is unknown."""
    turns = play("> execution_start; undo rows 1", UndoRow("charge", 1, None, 1, inputs=CHARGE))
    error = turns[-1][1].events[-2].error
    assert isinstance(error, dict)
    assert error["message"] == (
        "`result.id` is undefined: there is no such key in a null; `result` is null here: give it a `default`"
    )


def test_an_undo_execution_that_fails_says_what_failed() -> None:
    """What is left can be undone by another one."""
    turns = play(
        """
        > execution_start; undo rows 2
        > action_failed charge#2!undo {"message": "gone"}
        """,
        *ROWS,
    )
    last = turns[-1][1]
    assert [event.type for event in last.events] == ["compensation_failed", "execution_failed"]
    assert last.events[-1].meta == {"turn": 2, "compensation": {"done": 0, "failed": 1, "unknown": 0, "left": 1}}
    assert last.ended is not None
    assert last.ended.error == {"step": "charge", "message": "the undo of charge failed: gone", "type": "compensation"}

"""A visit that is cancelled: what the turn writes, and what becomes of a late answer."""

from __future__ import annotations

from noetl_broker.broker.core import Session
from noetl_broker.broker.draft.draft import Draft
from noetl_broker.broker.draft.known import Known
from noetl_broker.broker.flow.cancel import cancel_visit
from noetl_broker.broker.model.decision import StepRow
from noetl_broker.broker.model.effects import VisitCancelled
from noetl_broker.broker.model.event import Event, Turn
from noetl_broker.history.story import STORY_START, read_events
from tests.stories import assert_story, playbook

BODY = """
workflow:
- {step: start, next: [a, b]}
- {step: a, type: python, code: x}
- {step: b, type: python, code: x}
"""


def test_a_spent_wait_whose_moment_has_passed_is_cancelled() -> None:
    """It has no result: nobody could read it."""
    assert_story(
        """
        workflow:
        - {step: start, next: [quick, slow]}
        - {step: quick, type: python, code: x, next: first}
        - {step: slow, type: python, code: x, next: late}
        - {step: late, type: wait, until: "2020-01-01T00:00:00Z", next: first}
        - {step: first, join: any, type: python, code: x, next: end}
        - {step: end}
        """,
        """
        > execution_start
            event step_started quick
            event step_started slow
            job   quick
            job   slow
        > action_completed quick 1
            event step_completed quick
            event step_started first
            job   first
        > action_completed slow 2
            event step_completed slow
            event step_started late
            event step_cancelled late
            cancel late
        > action_completed first 3
            event step_completed first
            event execution_complete 3
        """,
    )


def test_a_cancelled_visit_ends_without_a_result() -> None:
    """Its event names the joins. A late answer changes nothing."""
    session = Session(playbook(BODY))
    (begin,) = read_events("> execution_start")
    session.apply(begin, STORY_START)
    draft = Draft(playbook(BODY), session.state, Event("test"), Turn(1, 2, STORY_START), Known())
    cancel_visit(draft, ("a", 1), ["j"])
    state, decision = draft.seal()
    assert [(event.type, event.status, event.step, event.meta) for event in decision.events] == [
        ("step_cancelled", "CANCELLED", "a", {"turn": 2, "spent": ["j"]})
    ]
    assert decision.of(VisitCancelled) == [("a", 1)]
    assert decision.rows == (StepRow("a", "CANCELLED", 1, None, 0),)
    assert [*state.tokens] == [("b", 1)]
    late = Session(playbook(BODY), after=(state, 2)).apply(Event("action_completed", "a", 1, 5), STORY_START)
    assert late.outcome == "duplicate"

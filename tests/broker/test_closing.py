"""A visit that is closed: what the turn writes, and what becomes of a late answer."""

from __future__ import annotations

from noetl_broker.broker.closing import close_visit
from noetl_broker.broker.context import Known
from noetl_broker.broker.core import Session
from noetl_broker.broker.draft import Draft
from noetl_broker.broker.model import Event, StepRow, Turn
from noetl_broker.history.story import STORY_START, read_events
from tests.stories import playbook

BODY = """
workflow:
- {step: start, next: [a, b]}
- {step: a, type: python, code: x}
- {step: b, type: python, code: x}
"""


def test_a_closed_visit_ends_without_a_result() -> None:
    """Its event names the joins. A late answer changes nothing."""
    session = Session(playbook(BODY))
    (begin,) = read_events("> execution_start")
    session.apply(begin, STORY_START)
    draft = Draft(playbook(BODY), session.state, Event("test"), Turn(1, 2, STORY_START), Known())
    close_visit(draft, ("a", 1), ["j"])
    state, decision = draft.seal()
    assert [(event.type, event.status, event.step, event.meta) for event in decision.events] == [
        ("step_cancelled", "CANCELLED", "a", {"turn": 2, "spent": ["j"]})
    ]
    assert decision.closed == (("a", 1),)
    assert decision.rows == (StepRow("a", "CANCELLED", 1, None, 0),)
    assert [*state.tokens] == [("b", 1)]
    late = Session(playbook(BODY), after=(state, 2)).apply(Event("action_completed", "a", 1, 5), STORY_START)
    assert late.outcome == "duplicate"

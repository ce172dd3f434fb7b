"""Lines of stories are read as events."""

from __future__ import annotations

import pytest

from noetl_broker.broker.model.decision import Decision
from noetl_broker.broker.model.event import Event
from noetl_broker.broker.model.values import JSON
from noetl_broker.history.story import format_story, read_events

EVENTS = [
    Event("execution_start", context={"workload": {"n": 1}}),
    Event("execution_start", context={"workload": [1]}),
    Event("execution_start", context={"workload": {}}, meta={"parent": {"depth": 2, "attempt": 1}}),
    Event("execution_start", context={"workload": {}}, broken=True),
    Event("execution_cancel", context={"reason": "no (more)"}),
    Event("action_completed", "a", 1, {"text": 'one "two"; attempt 2', "more": "; stale"}),
    Event("action_completed", "a", 2, -1),
    Event("action_completed", "a", 3, "line ends: \n \x85 \u2028 \u2029 end"),
    Event("action_completed", "step 2 {x} [1] true", 1, [True, None]),
    Event("action_completed", "step 2 {x} [1] true", 7, result=False),
    Event("action_completed", "true", 1, None),
    Event("action_completed", "Größe.2-b", 1, 2.5),
    Event("action_failed", "a", 1, error={"message": "no"}, attempt=3),
    Event("action_failed", "a", 1, error={"message": "no"}, retryable=False, stale=True),
    Event("execution_complete", "my items", 2, {"n": 1}, item_index=12),
    Event("execution_failed", "a", 1, error={"message": "x"}, item_index=0),
    Event("ein-wort!", "a", 1, 5),
]


@pytest.mark.parametrize("event", EVENTS, ids=str)
def test_a_formatted_event_is_read_back_unchanged(event: Event) -> None:
    """With any name, data and mark; the outcome after it is ignored."""
    for outcome in ("decided", "duplicate"):
        assert [*read_events(format_story([(event, Decision(outcome))]))] == [event]


@pytest.mark.parametrize("line,data", [("> action_completed my step {}", {}), ("> action_completed my step", None)])
def test_a_step_name_of_several_words_needs_no_backticks(line: str, data: JSON) -> None:
    """Unless a word of it starts like data."""
    assert [*read_events(line)] == [Event("action_completed", "my step", 1, data)]


@pytest.mark.parametrize(
    "line,complaint", [("> ", "cannot read the line"), ("> action_completed a {}; late", "unknown mark 'late'")]
)
def test_an_unreadable_line_is_refused(line: str, complaint: str) -> None:
    """The error names the line or the mark."""
    with pytest.raises(ValueError, match=complaint):
        [*read_events(line)]

"""The undo of an execution that has ended: stories, event by event."""

from __future__ import annotations

import pytest

from noetl_broker.broker.core import Session
from noetl_broker.broker.model.effects import ChildUndone, UndoEnded, UndoStatusChanged
from noetl_broker.history.story import STORY_START, read_events
from tests.stories import assert_story, playbook

TWO = """
    workflow:
    - {step: start, next: a}
    - {step: a, type: http, url: x, compensate: {type: http, args: {id: "{{ result.id }}"}}, next: b}
    - {step: b, type: http, url: x, compensate: {type: http, args: {why: "{{ error.message }}"}}, next: end}
    - {step: end}
"""
BY_CHILD = """
    workflow:
    - {step: start, next: sub}
    - {step: sub, type: playbook, path: child, retry: {max_attempts: 2, jitter: false}, catch: [{step: end}], next: end}
    - {step: end}
"""
DONE = """
        > execution_start
            event step_started a
            job   a
        > action_completed a {"id": 5}
            event step_completed a
            event step_started b
            job   b
            undo  a
        > action_completed b {"id": 6}
            event step_completed b
            event execution_complete {"id": 6}
            undo  b
"""


def test_a_completed_execution_is_undone() -> None:
    """The last success first; its templates see the error of the event. Then nothing is left."""
    assert_story(
        TWO,
        DONE
        + """\
        > execution_undo {"error": {"message": "by hand", "type": "undo"}}
            event compensation_started b
            job   b!undo {"why": "by hand"}
        > execution_undo  (duplicate)
        > execution_cancel  (after_end)
        > action_completed b!undo
            event compensation_completed b
            event compensation_started a
            job   a!undo {"id": 5}
        > action_completed a!undo
            event compensation_completed a
            event execution_undone
        > execution_undo  (nothing_left)
        > action_completed a!undo  (after_end)
        """,
    )


FAILED = """
    > execution_start
    > action_completed a {"id": 5}
    > action_completed b {"id": 6}
"""


def session_after(story: str, body: str = TWO) -> Session:
    """Return a session after the events of a story."""
    session = Session(playbook(body))
    for event in read_events(story):
        session.apply(event, STORY_START)
    return session


def turn(session: Session, line: str) -> tuple[str, list[str], list[str]]:
    """Take a turn; return its outcome, the types of its events, and the statuses of the undo."""
    [event] = read_events(line)
    decision = session.apply(event, STORY_START)
    types = [f"{one.type} {one.step or ''}".strip() for one in decision.events]
    return decision.outcome, types, [change.status for change in decision.of(UndoStatusChanged)]


def test_an_undo_that_fails_is_left_and_tried_again() -> None:
    """The execution keeps its status, and the undo that failed comes first again."""
    session = session_after(FAILED)
    assert turn(session, "> execution_undo") == ("decided", ["compensation_started b"], ["undoing"])
    assert turn(session, '> action_failed b!undo {"message": "gone"}') == (
        "decided", ["compensation_failed b", "execution_undo_failed"], ["left"],
    )  # fmt: skip
    assert (session.state.status, session.state.undo) == ("COMPLETED", 2)
    assert turn(session, "> execution_undo") == ("decided", ["compensation_started b"], ["undoing"])
    assert turn(session, "> action_completed b!undo")[1] == ["compensation_completed b", "compensation_started a"]
    assert turn(session, "> action_completed a!undo") == (
        "decided", ["compensation_completed a", "execution_undone"], ["undone"],
    )  # fmt: skip


def test_a_second_undo_uses_the_job_of_the_first_one_again() -> None:
    """The queue has one job a node."""
    session = session_after(FAILED)
    again = []
    for line in ("> execution_undo", '> action_failed b!undo {"message": "gone"}', "> execution_undo"):
        [event] = read_events(line)
        again += [job.again for job in session.apply(event, STORY_START).jobs]
    assert again == [False, True]


def test_an_undo_that_was_abandoned_is_left_as_unknown() -> None:
    """A later undo leaves it out, unless it is asked for the unknown, too."""
    session = session_after(FAILED + "> execution_undo\n> execution_abandon")
    assert (session.state.undo, session.state.unknown) == (1, 1)
    assert turn(session, "> execution_undo")[1] == ["compensation_started a"]
    assert turn(session, "> action_completed a!undo") == (
        "decided", ["compensation_completed a", "execution_undone"], ["left"],
    )  # fmt: skip
    assert turn(session, "> execution_undo")[0] == "nothing_left"
    assert turn(session, '> execution_undo {"unknown": true}')[1] == ["compensation_started b"]


def test_a_late_success_of_an_abandoned_undo_counts() -> None:
    """It happened, so no later undo does it again. A second one changes nothing."""
    session = session_after(FAILED + "> execution_undo\n> execution_abandon")
    assert turn(session, "> action_completed b!undo") == ("late", ["compensation_completed b"], ["left"])
    assert turn(session, "> action_completed b!undo")[0] == "after_end"
    assert (session.state.undo, session.state.unknown) == (1, 0)


def test_what_was_undone_by_hand_is_settled() -> None:
    """Rows that failed or are unknown close; a row that is done stays."""
    session = session_after(FAILED + '> execution_undo\n> action_failed b!undo {"message": "gone"}')
    assert turn(session, "> undo_settled b!undo") == ("decided", [], ["left"])
    assert turn(session, "> undo_settled a!undo") == ("decided", [], ["undone"])
    assert turn(session, "> undo_settled a!undo")[0] == "not_open"
    assert turn(session, "> execution_undo")[0] == "nothing_left"


@pytest.mark.parametrize("status", ["> execution_start", "> execution_start\n> execution_pause"])
def test_a_live_execution_is_not_undone(status: str) -> None:
    """The functions refuse it before; an event of anybody else is only recorded."""
    assert turn(session_after(status), "> execution_undo")[0] == "recorded"


def answers(session: Session, line: str) -> list[UndoEnded]:
    """Take a turn; return what it answers to the parent."""
    [event] = read_events(line)
    return session.apply(event, STORY_START).of(UndoEnded)


def test_a_parent_is_always_answered_once() -> None:
    """At the end; at once where nothing is left; and also where somebody else had begun the undo."""
    session = session_after(FAILED)
    assert answers(session, "> execution_undo") == []
    assert answers(session, '> execution_undo {"answer": 7}') == []
    assert answers(session, "> action_completed b!undo") == []
    assert answers(session, "> action_completed a!undo") == [UndoEnded(7)]
    assert answers(session, '> execution_undo {"answer": 9}') == [UndoEnded(9)]


def test_a_failed_child_that_left_something_is_asked_by_its_parent() -> None:
    """Also where the failure was caught; the child of the last attempt is asked first."""
    session = session_after(
        """
        > execution_start
        > action_failed sub {"message": "no"}; attempt 1, undo child 71
        > child_due sub
        > action_failed sub {"message": "no"}; attempt 2, undo child 72
        """,
        BY_CHILD,
    )
    assert session.state.status == "COMPLETED"
    asked = []
    answers = [f"> action_completed sub!undo; attempt {number}" for number in (5, 6)]
    for line in ("> execution_undo", *answers):
        [event] = read_events(line)
        asked += session.apply(event, STORY_START).of(ChildUndone)
    assert [(child.child_execution_id, child.context["answer"]) for child in asked] == [(72, 5), (71, 6)]
    assert (session.state.undo, session.state.compensation) == (0, None)


def test_an_answer_to_an_earlier_undo_changes_nothing() -> None:
    """Its number is another one."""
    story = """
        > execution_start
        > action_completed sub 1; attempt 1, undo child 71
        > execution_undo
        > execution_abandon
        > execution_undo {"unknown": true}
    """
    session = session_after(story, BY_CHILD)
    assert turn(session, '> action_failed sub!undo {"message": "abandoned"}; attempt 3')[0] == "duplicate"
    ends = ["compensation_completed sub", "execution_undone"]
    assert turn(session, "> action_completed sub!undo; attempt 5")[1] == ends

"""Children that complete when nobody wants their success any more: stories, event by event."""

from __future__ import annotations

import pytest

from tests.stories import assert_story

BESIDE = """
    workflow:
    - {step: start, next: [p, z]}
    - {step: p, type: playbook, path: sub, retry: {max_attempts: 2, jitter: false}, next: end}
    - {step: z, type: http, url: x, next: end}
    - {step: end}
"""
ITEMS = """
    workflow:
    - {step: start, next: it}
    - step: it
      type: iterator
      collection: [1, 2]
      element: item
      task: {type: playbook, path: sub, retry: {max_attempts: 2, jitter: false}}
"""
WITH_COMPENSATE = """
    workflow:
    - {step: start, next: p}
    - {step: p, type: playbook, path: sub, compensate: {type: http, url: x}}
"""


@pytest.mark.parametrize(
    "fault, end", [("execution_cancel", "cancelled"), ('action_failed z {"message": "cancelled"}', "failed")]
)
def test_a_child_that_completed_as_its_parent_ended_is_undone(fault: str, end: str) -> None:
    """The parent had nothing to undo, so it did not wait. A cancel of the child comes too late."""
    failed = '    event step_failed z "cancelled"' if end == "failed" else ""
    dead = "    dead  z" if end == "failed" else ""
    story = f"""
> execution_start
    event step_started p
    event step_started z
    job   z
    child p sub
> {fault}
{failed}
    event execution_{end} "cancelled"
{dead}
    cancel all work
> action_completed p 1; attempt 1, undo child 77  (after_end)
    undo execution 77
> action_completed p 1; attempt 1  (after_end)
> action_failed p {{"message": "no"}}; attempt 1  (after_end)
"""
    assert_story(BESIDE, "\n".join(line for line in story.splitlines() if line))


def test_a_child_that_completed_after_it_was_given_up_is_undone() -> None:
    """It timed out and was started again. The parent uses the second one, which is undone if the parent fails."""
    assert_story(
        BESIDE,
        """
        > execution_start
            event step_started p
            event step_started z
            job   z
            child p sub
        > action_failed p {"message": "too late", "type": "timeout"}; attempt 1
            event action_retry p "too late"
            delegated p 1 s
            cancel items of p
        > action_completed p 1; attempt 1, undo child 77  (duplicate)
            undo execution 77
        > child_due p
            child p sub
        > action_completed p 1; attempt 1, undo child 77  (duplicate)
            undo execution 77
        > action_completed p 2; attempt 2, undo child 78
            event step_completed p
            undo  p child 78
        > action_completed z 3
            event step_completed z
            event execution_complete {"p": 2, "z": 3}
        > action_completed p 2; attempt 2, undo child 78  (after_end)
        """,
    )


def test_the_child_of_an_item_that_was_given_up_is_undone() -> None:
    """The item goes on with another child."""
    assert_story(
        ITEMS,
        """
        > execution_start
            event step_started it
            event iterator_started it {"total": 2}
            event iteration_started it {"index": 0}
            child it[0] sub
        > action_failed it[0] {"message": "too late", "type": "timeout"}; attempt 1
            event action_retry it "too late"
            delegated it[0] 1 s
            cancel child of it[0]
        > execution_complete it[0] 1; attempt 1, undo child 77  (duplicate)
            undo execution 77
        """,
    )


def test_the_whole_is_not_undone_beside_its_inside() -> None:
    """The visit is listed as unknown, and an operator decides. The child is not undone beside that."""
    assert_story(
        WITH_COMPENSATE,
        """
        > execution_start
            event step_started p
            child p sub
        > execution_cancel
            event execution_compensating "cancelled"
            cancel all work
            drain p
        > execution_abandon
            event execution_failed "the undo was abandoned"
            cancel all work
            undo  p unknown
        > action_completed p 1; attempt 1, undo child 77  (after_end)
        """,
    )

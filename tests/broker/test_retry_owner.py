"""With `retry_owner: worker` the end of the job decides, not an error event."""

from __future__ import annotations

import pytest

from noetl_broker.broker.model.rules import Rules
from noetl_broker.history.story import play_story
from tests.stories import dedented, playbook

ONE = """
- {step: start, next: a}
- {step: a, type: python, code: x, retry: {max_attempts: 2, initial_delay: 3, jitter: false}}
"""
CHILD = """
- {step: start, next: a}
- {step: a, type: playbook, path: child}
"""
ITEMS = """
- {step: start, next: a}
- step: a
  type: iterator
  collection: [1, 2]
  element: n
  distribute: true
  mode: parallel
  task: {type: python, code: x}
"""
STORIES = {
    "an error event does not fail a step that its worker retries": (
        ONE, "worker",
        """
        > execution_start
            event step_started a
            job   a
        > action_error a "boom"; beside its job  (recorded)
        > action_failed a "boom"; beside its job  (recorded)
        > action_retry a  (recorded)
        > action_completed a 1
            event step_completed a
            event execution_complete 1
        """,
    ),
    "a dead job fails a step that its worker retries": (
        ONE, "worker",
        """
        > execution_start
            event step_started a
            job   a
        > action_error a "boom"; beside its job  (recorded)
        > action_failed a {"message": "boom"}; not retryable
            event step_failed a "boom"
            event execution_failed "boom"
            dead  a
            cancel all work
        > action_error a "boom"  (after_end)
        """,
    ),
    "the broker retries timeouts and lost leases": (
        ONE, "worker",
        """
        > execution_start
            event step_started a
            job   a
        > action_failed a {"message": "timeout", "type": "timeout"}
            event action_retry a "timeout"
            retry a 3 s
        > action_failed a {"message": "timeout", "type": "timeout"}
            event step_failed a "timeout"
            event execution_failed "timeout"
            dead  a
            cancel all work
        """,
    ),
    "no worker has a job of a child": (
        CHILD, "worker",
        """
        > execution_start
            event step_started a
            child a child
        > action_failed a {"message": "no"}; beside its job
            event step_failed a "no"
            event execution_failed "no"
            dead  a
            cancel items of a
            cancel all work
        """,
    ),
    "the job of an item decides too": (
        ITEMS, "worker",
        """
        > execution_start
            event step_started a
            event iterator_started a {"total": 2}
            event iteration_started a {"index": 0}
            event iteration_started a {"index": 1}
            job   a[0]
            job   a[1]
        > action_error a[0] "boom"; beside its job  (recorded)
        > action_completed a[0] 1
            event iteration_completed a {"index": 0}
        > action_failed a[1] {"message": "boom"}; not retryable
            event iteration_failed a "boom"
            event step_failed a "boom"
            event execution_failed "boom"
            dead  a[1]
            dead  a
            cancel items of a
            cancel all work
        """,
    ),
    "an error event is an attempt if the broker retries": (
        ONE, "broker",
        """
        > execution_start
            event step_started a
            job   a
        > action_error a "boom"; beside its job
            event action_retry a "boom"
            retry a 3 s
        """,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", STORIES)
def test_the_owner_of_retries_decides(what: str) -> None:
    """The worker retries its errors; the broker retries what no worker can."""
    steps, owner, story = STORIES[what]
    body = f"workflow:\n{steps}"
    told = play_story(playbook(body), dedented(story), rules=Rules(retry_owner=owner))
    assert told.splitlines() == dedented(story).strip().replace("; beside its job\n", "\n").splitlines()

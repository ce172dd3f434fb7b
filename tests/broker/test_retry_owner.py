"""With `retry_owner: worker` the end of the job decides, not an error event."""

from __future__ import annotations

import pytest

from noetl_broker.broker.model import Rules
from noetl_broker.history.story import play_story
from tests.stories import assert_story, playbook

WORKER = Rules(retry_owner="worker")
ONE = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, retry: 5, next: end}
- {step: end}
"""


@pytest.mark.parametrize("kind", ["action_error", "action_failed"])
def test_an_error_event_does_not_fail_a_step_that_its_worker_retries(kind: str) -> None:
    """The visit stays open, and a later attempt completes it."""
    assert_story(
        ONE,
        f"""
        > execution_start
            event step_started a
            job   a
        > {kind} a "boom"; beside its job  (recorded)
        > {kind} a "boom"; beside its job  (recorded)
        > action_retry a  (recorded)
        > action_completed a 1
            event step_completed a
            event execution_complete 1
        """,
        rules=WORKER,
    )


def test_a_dead_job_fails_a_step_that_its_worker_retries() -> None:
    """The `retry` of the step does not count."""
    assert_story(
        ONE,
        """
        > execution_start
            event step_started a
            job   a
        > action_error a "boom"; beside its job  (recorded)
        > action_failed a {"message": "boom"}; not retryable
            event step_failed a "boom"
            event execution_failed "boom"
            dead  a
            withdraw
        > action_error a "boom"  (after_end)
        """,
        rules=WORKER,
    )


def test_the_broker_retries_timeouts_and_lost_leases() -> None:
    """The `retry` of the step counts."""
    assert_story(
        ONE.replace("retry: 5", "retry: {max_attempts: 2, initial_delay: 3, jitter: false}"),
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
            withdraw
        """,
        rules=WORKER,
    )


def test_the_broker_retries_a_failed_child() -> None:
    """No worker has a job of the step."""
    body = """
        workflow:
        - {step: start, next: c}
        - {step: c, type: playbook, path: child, next: end}
        - {step: end}
        """
    story = """
> execution_start
    event step_started c
    child c child
> action_failed c {"message": "no"}
    event step_failed c "no"
    event execution_failed "no"
    dead  c
    abandon c
    withdraw
"""
    assert play_story(playbook(body), story.replace('"no"}', '"no"}; beside its job'), rules=WORKER) == story.strip()


def test_an_error_event_does_not_fail_an_item_that_its_worker_retries() -> None:
    """Its job decides too."""
    assert_story(
        """
        workflow:
        - {step: start, next: each}
        - step: each
          type: iterator
          collection: [1, 2]
          element: n
          distribute: true
          mode: parallel
          task: {type: python, code: x}
          next: end
        - {step: end}
        """,
        """
        > execution_start
            event step_started each
            event iterator_started each {"total": 2}
            event iteration_started each {"index": 0}
            event iteration_started each {"index": 1}
            job   each[0]
            job   each[1]
        > action_error each[0] "boom"; beside its job  (recorded)
        > action_completed each[0] 1
            event iteration_completed each {"index": 0}
        > action_failed each[1] {"message": "boom"}; not retryable
            event iteration_failed each "boom"
            event step_failed each "boom"
            event execution_failed "boom"
            dead  each[1]
            dead  each
            abandon each
            withdraw
        """,
        rules=WORKER,
    )


def test_an_error_event_is_an_attempt_if_the_broker_retries() -> None:
    """This is the default."""
    story = """
> execution_start
    event step_started a
    job   a
> action_error a "boom"
    event action_retry a "boom"
    retry a 3 s
"""
    body = ONE.replace("retry: 5", "retry: {max_attempts: 2, initial_delay: 3, jitter: false}")
    assert play_story(playbook(body), story.replace('"boom"\n', '"boom"; beside its job\n', 1)) == story.strip()

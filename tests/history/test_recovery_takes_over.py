"""What a retry takes over: visits, failures, spent tokens; and which executions cannot be retried."""

from __future__ import annotations

import pytest

from noetl_broker.errors import BrokerError
from noetl_broker.history.recovery_plan import plan_recovery
from tests.forks import DIAMOND, fork_story, history_of
from tests.stories import dedented, playbook


def test_a_retry_makes_the_failed_visit_again() -> None:
    """It sees the result of the visit before it."""
    source = history_of(
        playbook("""
        workflow:
        - {step: start, next: a}
        - step: a
          type: python
          code: x
          args: {last: "{{ a.n | default(0) }}"}
          next: [{when: "{{ a.n < 3 }}", step: a}]
        """),
        """
        > execution_start
        > action_completed a {"n": 1}
        > action_failed a#2 {"message": "boom"}
        """,
    )
    assert fork_story(
        source,
        plan_recovery(source),
        """
        > action_completed a#2 {"n": 2}
        > action_completed a#3 {"n": 3}
        """,
    ) == dedented("""
        > fork
            event step_started a#2
            job   a#2 {"last": 1}
        > action_completed a#2 {"n": 2}
            event step_completed a#2
            event step_started a#3
            job   a#3 {"last": 2}
        > action_completed a#3 {"n": 3}
            event step_completed a#3
            event execution_complete {"n": 3}
    """)


def test_a_running_visit_with_a_spent_token_stays_spent() -> None:
    """The join ran at the first arrival."""
    source = history_of(
        playbook("""
        workflow:
        - {step: start, next: [a, b]}
        - {step: a, type: python, code: x, next: j}
        - {step: b, type: python, code: x, next: j}
        - {step: j, type: python, code: x, join: any, next: k}
        - {step: k, type: python, code: x}
        """),
        """
        > execution_start
        > action_completed a 1
        > action_completed j 2
        > action_failed k {"message": "boom"}
        """,
    )
    story = """
        > action_completed b 3
        > action_completed k 4
        """
    assert fork_story(source, plan_recovery(source), story) == dedented("""
        > fork
            event step_started b
            event step_started k
            job   b
            job   k
        > action_completed b 3
            event step_completed b
        > action_completed k 4
            event step_completed k
            event execution_complete 4
    """)


@pytest.mark.parametrize("story", ["> execution_start", "> execution_start\n> execution_cancel"])
def test_an_execution_that_did_not_fail_is_not_retried(story: str) -> None:
    """It is running or was cancelled."""
    source = history_of(playbook(DIAMOND), story)
    with pytest.raises(BrokerError, match="has not failed"):
        plan_recovery(source)

"""Steps of type `fail`."""

from __future__ import annotations

from tests.stories import assert_story


def test_a_fail_step_fails_with_its_error() -> None:
    """Its parts are templates."""
    body = """
        workflow:
          - {step: start, next: a}
          - step: a
            type: fail
            error: {type: "{{ workload.t }}", message: "order {{ workload.n }}", status_code: 409}
    """
    assert_story(
        body,
        """
        > execution_start {"t": "declined", "n": 7}
            event step_started a
            event step_failed a "order 7"
            event execution_failed "order 7"
            cancel all work
        """,
    )


def test_a_fail_step_may_continue() -> None:
    """As a failed action would."""
    body = """
        workflow:
          - {step: start, next: a}
          - {step: a, type: fail, on_error: continue, next: b}
          - {step: b, type: http, url: x, args: {e: "{{ a.error }}"}}
    """
    assert_story(
        body,
        """
        > execution_start
            event step_started a
            event step_failed a "the playbook fails here"
            event step_started b
            job   b {"e": {"step": "a", "type": "fail", "attempt": 1, "message": "the playbook fails here"}}
        """,
    )

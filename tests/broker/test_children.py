"""Playbooks in playbooks: children, their answers, and another try."""

from tests.stories import assert_story


def test_a_failed_child_is_started_again_after_a_pause() -> None:
    """By the step's own `retry`; its answer is the step's result, and its inputs are seen by `next`."""
    assert_story(
        """
        workload: {city: Rome}
        workflow:
        - {step: start, next: a}
        - step: a
          type: playbook
          path: examples/{{ workload.city }}
          version: 3
          return_step: fetch
          args: {city: "{{ workload.city }}"}
          retry: {max_attempts: 2, jitter: false}
          next: [{step: b, args: {t: "{{ a.temp }}", city: "{{ city }}"}}]
        - {step: b, type: python, code: x}
        """,
        """
        > execution_start
            event step_started a
            child a examples/Rome {"city": "Rome"}
        > action_failed a {"message": "child failed"}
            event action_retry a "child failed"
            delegated a 1 s
            abandon a
        > child_due a
            child a examples/Rome {"city": "Rome"}
        > child_due a  (duplicate)
        > child_due b  (not_open)
        > action_completed a {"temp": 3}
            event step_completed a
            event step_started b
            job   b {"t": 3, "city": "Rome"}
        """,
    )


def test_a_step_waits_for_its_childs_answer() -> None:
    """Success or failure, as of any action; `on_error` decides as for any."""
    assert_story(
        """
        workflow:
        - {step: start, next: a}
        - {step: a, type: playbook, path: p, on_error: continue, next: b}
        - {step: b, type: playbook, path: q, args: {x: "{{ a.status }}"}}
        """,
        """
        > execution_start
            event step_started a
            child a p
        > action_failed a {"message": "no such playbook"}
            event step_failed a "no such playbook"
            event step_started b
            child b q {"x": "FAILED"}
            dead  a
            abandon a
        > action_completed b {"n": 1}
            event step_completed b
            event execution_complete {"n": 1}
        """,
    )

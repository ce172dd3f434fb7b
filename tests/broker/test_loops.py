"""Loops: visits and their limit."""

from tests.stories import assert_story


def test_a_transition_back_makes_a_new_visit() -> None:
    """Visits have numbers. `next` of a visit reads the inputs of that visit."""
    assert_story(
        """
        workflow:
        - {step: start, next: [{step: a, args: {n: 0}}]}
        - step: a
          type: python
          code: x
          next:
          - {when: "a.n < 2", step: a, args: {n: "{{ a.n }}", seen: "{{ n }}"}}
          - {else: end}
        - {step: end, result: "{{ a.n }}"}
        """,
        """
        > execution_start
            event step_started a
            job   a {"n": 0}
        > action_completed a {"n": 1}
            event step_completed a
            event step_started a#2
            job   a#2 {"n": 1, "seen": 0}
        > action_completed a {"n": 1}  (duplicate)
        > action_completed a#2 {"n": 2}
            event step_completed a#2
            event execution_complete 2
        """,
    )


def test_a_step_that_is_entered_again_in_the_turn_of_its_end_keeps_its_result() -> None:
    """Its tracking row shows the result of the ended visit and a running visit."""
    assert_story(
        """
        workflow:
        - {step: start, next: [a, c]}
        - {step: a, type: python, code: x, next: [{when: "result.n == 1", step: a}]}
        - {step: c, type: python, code: x, next: {step: d, args: {a: "{{ a.n }}"}}}
        - {step: d, type: python, code: x}
        """,
        """
        > execution_start
            event step_started c
            event step_started a
            job   c
            job   a
        > action_completed a {"n": 1}
            event step_completed a
            event step_started a#2
            job   a#2
        > action_completed c {"n": 1}
            event step_completed c
            event step_started d
            job   d {"a": 1}
        """,
    )


def test_an_execution_over_the_visit_limit_fails() -> None:
    """The error names the step and the loop."""
    assert_story(
        """
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: b}
        - {step: b, type: python, code: x, next: a}
        """,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a 1
            event step_completed a
            event step_started b
            job   b
        > action_completed b 1
            event step_completed b
            event step_failed a#2 "step a in the loop a → b would be visit 4; the limit max_visits is 3"
            event execution_failed "step a in the loop a → b would be visit 4; the limit max_visits is 3"
            cancel all work
        """,
        metadata="max_visits: 3",
    )

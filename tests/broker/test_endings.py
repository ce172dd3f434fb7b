"""Ends of executions: results, cancel, deadline, and late or unknown events."""

from noetl_broker.template.durations import TIMEOUT_FORMS
from tests.stories import assert_story


def test_a_start_and_an_end_may_carry_an_action() -> None:
    """The data of an `end` with an action are the result."""
    assert_story(
        """
        workflow:
        - {step: start, type: python, code: x, next: end}
        - {step: end, type: python, code: x}
        """,
        """
        > execution_start
            event step_started start
            job   start
        > action_completed start {"a": 1}
            event step_completed start
            event step_started end
            job   end
        > action_completed end {"b": 1}
            event step_completed end
            event execution_complete {"b": 1}
        """,
    )


def test_several_branch_ends_give_a_mapping_by_step() -> None:
    """A control step gives the data of the step before it. Envelopes are unwrapped once."""
    assert_story(
        """
        workflow:
        - {step: start, next: [a, b, c]}
        - {step: a, type: python, code: x, next: end}
        - {step: b, type: python, code: x}
        - {step: c, type: python, code: x, next: r}
        - {step: r, next: [{when: "false", step: end}]}
        - {step: end}
        """,
        """
        > execution_start
            event step_started a
            event step_started b
            event step_started c
            job   a
            job   b
            job   c
        > action_completed a 1
            event step_completed a
        > action_completed b {"data": 2, "status": "success"}
            event step_completed b
        > action_completed c 3
            event step_completed c
            event step_started r
            event step_completed r
            event execution_complete {"b": 2, "c": 3, "a": 1}
        """,
    )


def test_the_data_of_a_branch_end_are_those_of_its_last_visit() -> None:
    """In whatever order the visits end."""
    assert_story(
        """
        workflow:
        - {step: start, next: [a, b]}
        - {step: a, type: python, code: x, next: k}
        - {step: b, type: python, code: x, next: k}
        - {step: k, join: each, type: python, code: x}
        """,
        """
        > execution_start
            event step_started a
            event step_started b
            job   a
            job   b
        > action_completed a 1
            event step_completed a
            event step_started k
            job   k
        > action_completed b 1
            event step_completed b
            event step_started k#2
            job   k#2
        > action_completed k#2 "two"
            event step_completed k#2
        > action_completed k "one"
            event step_completed k
            event execution_complete "two"
        """,
    )


def test_a_playbook_with_only_a_start_completes_at_once() -> None:
    """Its result is null."""
    assert_story(
        """
        workflow:
        - {step: start}
        """,
        """
        > execution_start {"x": 1}
            event execution_complete
        """,
    )


def test_a_cancelled_execution_cancels_its_jobs() -> None:
    """Later events are recorded and change nothing."""
    assert_story(
        """
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x}
        """,
        """
        > execution_start
            event step_started a
            job   a
        > execution_cancel {"reason": "enough"}
            event execution_cancelled "enough"
            cancel all work
        > action_completed a {}  (after_end)
        > execution_cancel {}  (after_end)
        """,
    )


def test_a_deadline_that_is_no_duration_fails_the_execution_at_its_start() -> None:
    """A template is rendered once, from the workload."""
    assert_story(
        """
        workload: {limit: 5}
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x}
        """,
        f"""
        > execution_start {{"limit": "soon"}}
            event execution_failed "`deadline` must be {TIMEOUT_FORMS}, it is \\"soon\\""
            cancel all work
        """,
        metadata='deadline: "{{ workload.limit }}"',
    )


def test_unknown_and_duplicate_events_are_recorded_and_ignored() -> None:
    """Each with its reason. Types may have any case and any alias."""
    assert_story(
        """
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x}
        """,
        """
        > action_completed a 1  (unknown_execution)
        > execution_start
            event step_started a
            job   a
        > PLAYBOOK_STARTED  (duplicate)
        > action_completed b {}  (unknown_step)
        > action_completed a#2 {}  (not_open)
        > step_result a {}  (recorded)
        > something_else {}  (unknown_type)
        > Action_Completed a {}
            event step_completed a
            event execution_complete {}
        """,
    )

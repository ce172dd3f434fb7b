"""`output`: what is kept of the result of an action."""

from __future__ import annotations

from tests.stories import assert_story


def test_an_output_is_kept_in_place_of_the_result() -> None:
    """`next` and later steps read it."""
    body = """
        workflow:
          - {step: start, next: a}
          - step: a
            type: http
            url: x
            output: {id: "{{ result.id }}", all: "{{ a.rows | length }}"}
            next: {when: "{{ a.all > 1 }}", step: b, args: {r: "{{ result }}"}}
          - {step: b, type: http, url: x, args: {id: "{{ a.id }}"}}
    """
    assert_story(
        body,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a {"id": 7, "rows": [1, 2], "junk": "long"}
            event step_completed a {"id": 7, "all": 2}
            event step_started b
            job   b {"id": 7, "r": {"id": 7, "all": 2}}
        """,
    )


def test_an_output_that_fails_leaves_the_result() -> None:
    """A `catch` reads what the action gave."""
    body = """
        workflow:
          - {step: start, next: a}
          - step: a
            type: http
            url: x
            output: "{{ result.nope }}"
            catch: {step: b, args: {id: "{{ a.id }}"}}
          - {step: b, type: http, url: x}
    """
    assert_story(
        body,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a {"id": 7}
            event step_failed a "`result.nope` is undefined: there is no such key in a mapping"
            event step_started b
            job   b {"id": 7}
        """,
    )


def test_the_output_of_a_wait_is_the_data_that_stays() -> None:
    """A typo in `next` is caught."""
    body = """
        workflow:
          - {step: start, next: a}
          - step: a
            type: wait
            signal: paid
            timeout: 1h
            output: "{{ result.sum }}"
            next: {when: "{{ a.x }}", step: b}
            catch: {step: c, args: {a: "{{ a }}", e: "{{ error.type }}"}}
          - {step: b, type: http, url: x}
          - {step: c, type: http, url: x}
    """
    assert_story(
        body,
        """
        > execution_start
            event step_started a
            wait  a signal paid 1
            timer a timeout 2026-01-01T01:00:01.000000Z
        > execution_signal {"name": "paid", "key": "1", "payload": {"sum": 7}}
            event step_failed a "`a.x` is undefined: there is no such key in a number"
            event step_started c
            job   c {"a": 7, "e": "template"}
        """,
    )

"""Failures: `retry`, `on_error`, retry conditions, and templates that fail."""

from tests.stories import assert_story


def test_an_action_is_retried_with_growing_delays() -> None:
    """After the last attempt step and execution fail, and queued jobs are withdrawn."""
    assert_story(
        """
        workflow:
        - {step: start, next: [a, b]}
        - step: a
          type: python
          code: x
          retry: {max_attempts: 3, initial_delay: 2, backoff_multiplier: 3, max_delay: 5, jitter: false}
        - {step: b, type: python, code: x}
        """,
        """
        > execution_start
            event step_started a
            event step_started b
            job   a
            job   b
        > action_failed a {"message": "one"}
            event action_retry a "one"
            retry a 2 s
        > action_failed a {"message": "two"}
            event action_retry a "two"
            retry a 5 s
        > action_failed a {"message": "three"}
            event step_failed a "three"
            event execution_failed "three"
            dead  a
            withdraw
        > action_completed b 1  (after_end)
        """,
    )


def test_the_words_of_a_retry_hide_inputs_of_their_names() -> None:
    """`args` still has these inputs. Other inputs are read as usual."""
    assert_story(
        """
        workflow:
        - {step: start, next: [{step: a, args: {error: none, attempt: 7, result: 1, status_code: 1, most: 2}}]}
        - step: a
          type: python
          code: x
          retry:
            jitter: false
            stop_when: "{{ status_code or result is not none or args.attempt != 7 }}"
            retry_when: "{{ 'boo' in error and attempt < most and args.error == 'none' }}"
        """,
        """
        > execution_start
            event step_started a
            job   a {"error": "none", "attempt": 7, "result": 1, "status_code": 1, "most": 2}
        > action_failed a {"message": "boo"}
            event action_retry a "boo"
            retry a 1 s
        > action_failed a {"message": "boo"}
            event step_failed a "boo"
            event execution_failed "boo"
            dead  a
            withdraw
        """,
    )


def test_stop_when_and_retry_when_decide_about_another_attempt() -> None:
    """`stop_when` comes first. An error in either means no retry."""
    assert_story(
        """
        workflow:
        - {step: start, next: [a, b, c, d]}
        - step: a
          type: python
          code: x
          on_error: continue
          retry: {jitter: false, stop_when: "status_code == 404", retry_when: "attempt < 2"}
        - step: b
          type: python
          code: x
          on_error: continue
          retry: {jitter: false, stop_when: "{{ 'fatal' in error }}"}
        - step: c
          type: python
          code: x
          on_error: continue
          retry: {jitter: false, retry_when: "nothing.here + 1"}
        - step: d
          type: python
          code: x
          on_error: continue
          retry: {max_attempts: 2, jitter: false, retry_when: "result is none"}
        """,
        """
        > execution_start
            event step_started a
            event step_started b
            event step_started c
            event step_started d
            job   a
            job   b
            job   c
            job   d
        > action_failed a {"message": "m", "status_code": 500}
            event action_retry a "m"
            retry a 1 s
        > action_failed a {"message": "m", "status_code": 500}
            event step_failed a "m"
            dead  a
        > action_failed b {"message": "fatal"}
            event step_failed b "fatal"
            dead  b
        > action_failed c {"message": "m"}
            event step_failed c "m"
            dead  c
        > action_failed d {"message": "m"}
            event action_retry d "m"
            retry d 1 s
        """,
    )


def test_a_failed_step_with_on_error_continue_counts_as_done() -> None:
    """Its status and error can be read, its data are null, and its `next` runs."""
    assert_story(
        """
        workflow:
        - {step: start, next: a}
        - step: a
          type: python
          code: x
          on_error: continue
          next:
          - {when: "a.status == 'FAILED'", step: b, args: {why: "{{ a.error.message }}", data: "{{ a }}"}}
        - {step: b, type: python, code: x}
        """,
        """
        > execution_start
            event step_started a
            job   a
        > action_error a {"message": "boom"}
            event step_failed a "boom"
            event step_started b
            job   b {"why": "boom", "data": null}
            dead  a
        > action_completed b {}
            event step_completed b
            event execution_complete {}
        """,
    )


def test_an_error_in_a_when_fails_the_step() -> None:
    """In place of `step_completed`; it does not count as false."""
    assert_story(
        """
        workflow:
        - {step: start, next: [a, b]}
        - {step: a, type: python, code: x, next: [{when: "a.x.y", step: c}]}
        - {step: b, type: python, code: x}
        - {step: c, type: python, code: x}
        """,
        """
        > execution_start
            event step_started a
            event step_started b
            job   a
            job   b
        > action_completed a {}
            event step_failed a "`a.x` is undefined: there is no such key in a mapping"
            event execution_failed "`a.x` is undefined: there is no such key in a mapping"
            withdraw
        """,
    )


def test_an_error_in_inputs_fails_the_step_without_a_job() -> None:
    """`step_started`, `step_failed`, `execution_failed`."""
    assert_story(
        """
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: b}
        - {step: b, type: python, code: x, args: {v: "{{ a.nope }}"}}
        """,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a {}
            event step_completed a
            event step_started b
            event step_failed b "`a.nope` is undefined: there is no such key in a mapping"
            event execution_failed "`a.nope` is undefined: there is no such key in a mapping"
            withdraw
        """,
    )


def test_inputs_that_are_one_template_must_give_a_mapping() -> None:
    """Stronger words are merged over it. Any other value is an error."""
    assert_story(
        """
        workload: {m: {x: 1, y: 2}}
        workflow:
        - {step: start, next: [a, b]}
        - {step: a, type: python, code: x, args: "{{ workload.m }}", data: {y: 3}}
        - {step: b, type: python, code: x, args: "{{ workload.m.x }}"}
        """,
        """
        > execution_start
            event step_started a
            event step_started b
            event step_failed b "the inputs must be a mapping, the template gives int"
            event execution_failed "the inputs must be a mapping, the template gives int"
            job   a {"y": 2, "x": 1}
            withdraw
        """,
    )


def test_an_error_in_the_result_of_end_fails_end() -> None:
    """step_failed of `end`, then execution_failed."""
    assert_story(
        """
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: end}
        - {step: end, result: {x: "{{ a.nope }}"}}
        """,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a {}
            event step_completed a
            event step_failed end "`a.nope` is undefined: there is no such key in a mapping"
            event execution_failed "`a.nope` is undefined: there is no such key in a mapping"
            withdraw
        """,
    )


def test_an_end_with_an_action_ends_once() -> None:
    """`step_failed` replaces `step_completed`."""
    assert_story(
        """
        workflow:
        - {step: start, next: end}
        - {step: end, type: python, code: x, result: "{{ nope }}"}
        """,
        """
        > execution_start
            event step_started end
            job   end
        > action_completed end 1
            event step_failed end "`nope` is undefined: no input, step with a result or workload key has that name"
            event execution_failed "`nope` is undefined: no input, step with a result or workload key has that name"
            withdraw
        """,
    )


def test_an_error_that_is_text_is_the_message() -> None:
    """A worker may send only a text."""
    assert_story(
        """
        workflow:
        - {step: start, next: [a]}
        - {step: a, type: python, code: x}
        """,
        """
        > execution_start
            event step_started a
            job   a
        > action_failed a "just text"
            event step_failed a "just text"
            event execution_failed "just text"
            dead  a
            withdraw
        """,
    )

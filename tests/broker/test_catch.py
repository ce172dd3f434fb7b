"""`catch`: what a step does when it failed for good."""

from __future__ import annotations

from tests.stories import assert_story

CHARGE = """
workflow:
  - {step: start, next: charge}
  - step: charge
    type: http
    url: "https://bank.example/charge"
    on_error: continue
    next: {when: "{{ charge.amount > workload.limit }}", step: big}
    catch:
      - {when: "{{ error.type == 'declined' }}", step: notify}
      - {when: "{{ error.type == 'template' }}", step: refund, args: {id: "{{ charge.id }}"}}
  - {step: big, type: python, code: "def main(): pass"}
  - {step: notify, type: python, code: "def main(): pass"}
  - {step: refund, type: http, url: "https://bank.example/refund/{{ id }}"}
"""


def test_a_template_error_in_next_is_caught_and_the_data_stays() -> None:
    """The card was charged, and then a typo failed `next`: the refund knows the charge."""
    assert_story(
        CHARGE,
        """
        > execution_start {"limit": 5}
            event step_started charge
            job   charge
        > action_completed charge {"id": "c1", "amonut": 7}
            event step_failed charge "`charge.amount` is undefined: there is no such key in a mapping"
            event step_started refund
            job   refund {"id": "c1"}
        > action_completed refund {"ok": true}
            event step_completed refund
            event execution_complete {"ok": true}
        """,
    )


def test_the_first_entry_that_is_true_is_taken() -> None:
    """A declined card is told to the customer; `on_error` is not asked."""
    assert_story(
        CHARGE,
        """
        > execution_start {"limit": 5}
            event step_started charge
            job   charge
        > action_failed charge {"message": "no", "type": "declined"}
            event step_failed charge "no"
            event step_started notify
            job   notify
            dead  charge
        > action_completed notify
            event step_completed notify
            event execution_complete
        """,
    )


def test_a_catch_reads_no_other_step_s_result_under_its_own_name() -> None:
    """`check` fails in the turn in which `fetch` completes: `check.x` is undefined, it is not that of `fetch`."""
    assert_story(
        """
        workflow:
          - {step: start, next: fetch}
          - {step: fetch, type: python, code: "def main(): pass", next: check}
          - step: check
            type: fail
            error: {type: bad, message: "no"}
            catch: {when: "{{ check.x is defined }}", step: end}
          - {step: end}
        """,
        """
        > execution_start
            event step_started fetch
            job   fetch
        > action_completed fetch {"x": 7}
            event step_completed fetch
            event step_started check
            event step_failed check "no"
            event execution_failed "no"
            withdraw
        """,
    )


def test_a_failure_that_no_entry_handles_is_left_to_on_error() -> None:
    """As if there were no `catch`."""
    body = """
        workflow:
          - {step: start, next: a}
          - step: a
            type: http
            url: x
            on_error: continue
            next: b
            catch: {when: "{{ error.type == 'x' }}", step: c}
          - {step: b, type: http, url: x}
          - {step: c, type: http, url: x}
    """
    assert_story(
        body,
        """
        > execution_start
            event step_started a
            job   a
        > action_failed a {"message": "no"}
            event step_failed a "no"
            event step_started b
            job   b
            dead  a
        """,
    )


def test_an_error_of_the_inputs_is_caught_in_the_turn() -> None:
    """The error has a type, the step and the attempt."""
    body = """
        workflow:
          - {step: start, next: a}
          - step: a
            type: http
            url: x
            args: {n: "{{ workload.nope }}"}
            catch: {step: c, args: {t: "{{ error.type }}", n: "{{ error.attempt }}", s: "{{ error.step }}"}}
          - {step: c, type: http, url: x}
    """
    assert_story(
        body,
        """
        > execution_start
            event step_started a
            event step_failed a "`workload.nope` is undefined: there is no such key in a mapping"
            event step_started c
            job   c {"t": "template", "n": 1, "s": "a"}
        """,
    )


def test_a_spent_token_that_failed_goes_on() -> None:
    """It ends at the join that has run."""
    body = """
        workflow:
          - {step: start, next: [a, b]}
          - {step: a, type: http, url: x, next: j}
          - {step: b, type: http, url: x, next: j, catch: {step: c}}
          - {step: c, type: http, url: x, next: j}
          - {step: j, type: http, url: x, join: any}
    """
    assert_story(
        body,
        """
        > execution_start
            event step_started a
            event step_started b
            job   a
            job   b
        > action_completed a
            event step_completed a
            event step_started j
            job   j
        > action_failed b {"message": "no"}
            event step_failed b "no"
            event step_started c
            job   c
            dead  b
        > action_completed c
            event step_completed c
        > action_completed j
            event step_completed j
            event execution_complete
        """,
    )


def test_a_join_that_got_too_few_arrivals_is_caught() -> None:
    """By the type of its error."""
    body = """
        workflow:
          - {step: start, next: [a, b]}
          - {step: a, type: http, url: x, next: [{when: "{{ a.ok }}", step: j}]}
          - {step: b, type: http, url: x, next: [{when: "{{ b.ok }}", step: j}]}
          - step: j
            type: http
            url: x
            join: {need: 2}
            catch: {when: "{{ error.type == 'need_not_met' }}", step: c}
          - {step: c, type: http, url: x}
    """
    assert_story(
        body,
        """
        > execution_start
            event step_started a
            event step_started b
            job   a
            job   b
        > action_completed a {"ok": true}
            event step_completed a
        > action_completed b {"ok": false}
            event step_completed b
            event step_failed j "join j needs 2 arrivals; 1 came, and no other token can reach it"
            event step_started c
            job   c
        """,
    )


def test_an_arc_of_a_catch_keeps_a_join_waiting() -> None:
    """The join has both arrivals in the end."""
    body = """
        workflow:
          - {step: start, next: [a, b]}
          - {step: a, type: http, url: x, next: j}
          - {step: b, type: http, url: x, next: k, catch: {step: j, args: {why: "{{ error.message }}"}}}
          - {step: k, type: http, url: x}
          - {step: j, type: http, url: x}
    """
    assert_story(
        body,
        """
        > execution_start
            event step_started a
            event step_started b
            job   a
            job   b
        > action_completed a
            event step_completed a
        > action_failed b {"message": "no"}
            event step_failed b "no"
            event step_started j
            job   j {"why": "no"}
            dead  b
        """,
    )


def test_a_join_runs_when_a_step_before_it_can_no_longer_fail() -> None:
    """Its `catch` was an arc to the join."""
    body = """
        workflow:
          - {step: start, next: [a, b]}
          - {step: a, type: http, url: x, next: j}
          - {step: b, type: http, url: x, next: k, catch: {step: j}}
          - {step: k, type: http, url: x}
          - {step: j, type: http, url: x}
    """
    assert_story(
        body,
        """
        > execution_start
            event step_started a
            event step_started b
            job   a
            job   b
        > action_completed a
            event step_completed a
        > action_completed b
            event step_completed b
            event step_started k
            event step_started j
            job   k
            job   j
        """,
    )


def test_a_step_that_fails_twice_in_one_turn_is_not_caught_again() -> None:
    """It would never end."""
    body = """
        workflow:
          - {step: start, next: a}
          - {step: a, type: fail, error: {type: oops, message: "again"}, catch: {step: a}}
    """
    assert_story(
        body,
        """
        > execution_start
            event step_started a
            event step_failed a "again"
            event step_started a#2
            event step_failed a#2 "a ring of steps that fail in one turn: a"
            event execution_failed "a ring of steps that fail in one turn: a"
            withdraw
        """,
    )


def test_a_ring_through_a_router_is_not_caught_again() -> None:
    """The token comes back in the same turn."""
    body = """
        workflow:
          - {step: start, next: a}
          - {step: a, type: fail, error: again, catch: {step: b}}
          - {step: b, next: a}
    """
    assert_story(
        body,
        """
        > execution_start
            event step_started a
            event step_failed a "again"
            event step_started b
            event step_completed b
            event step_started a#2
            event step_failed a#2 "a ring of steps that fail in one turn: a → b"
            event execution_failed "a ring of steps that fail in one turn: a → b"
            withdraw
        """,
    )


def test_a_router_catches_an_error_of_its_next() -> None:
    """Its condition reads nothing."""
    body = """
        workflow:
          - {step: start, next: r}
          - {step: r, next: {when: "{{ workload.x }}", step: b}, catch: {step: c}}
          - {step: b, type: http, url: x}
          - {step: c, type: http, url: x}
    """
    assert_story(
        body,
        """
        > execution_start
            event step_started r
            event step_failed r "`workload.x` is undefined: there is no such key in a mapping"
            event step_started c
            job   c
        """,
    )


def test_start_catches_an_error_of_its_next() -> None:
    """It has no action either."""
    body = """
        workflow:
          - step: start
            next: {when: "{{ workload.x }}", step: b}
            catch: {step: c, args: {m: "{{ error.message }}"}}
          - {step: b, type: http, url: x}
          - {step: c, type: http, url: x}
    """
    assert_story(
        body,
        """
        > execution_start
            event step_failed start "`workload.x` is undefined: there is no such key in a mapping"
            event step_started c
            job   c {"m": "`workload.x` is undefined: there is no such key in a mapping"}
        """,
    )


def test_a_failed_child_is_caught_by_the_type_of_its_cause() -> None:
    """With its status code, and the step that failed in it."""
    body = """
        workflow:
          - {step: start, next: a}
          - step: a
            type: playbook
            path: p
            catch: {when: "{{ error.status_code == 402 }}", step: c, args: {s: "{{ error.child_step }}"}}
          - {step: c, type: http, url: x}
    """
    assert_story(
        body,
        """
        > execution_start
            event step_started a
            child a p
        > action_failed a {"message": "no", "type": "declined", "status_code": 402, "child_step": "charge"}
            event step_failed a "no"
            event step_started c
            job   c {"s": "charge"}
            dead  a
            abandon a
        """,
    )


def test_a_failed_iterator_is_caught() -> None:
    """Its other items are cancelled."""
    body = """
        workflow:
          - {step: start, next: a}
          - step: a
            type: iterator
            collection: [1, 2]
            element: n
            task: {type: playbook, path: p}
            catch: {step: c, args: {i: "{{ error.index }}"}}
          - {step: c, type: http, url: x}
    """
    assert_story(
        body,
        """
        > execution_start
            event step_started a
            event iterator_started a {"total": 2}
            event iteration_started a {"index": 0}
            child a[0] p
        > action_failed a[0] {"message": "no"}
            event iteration_failed a "no"
            event step_failed a "no"
            event step_started c
            job   c {"i": 0}
            dead  a
            abandon a
            drop  a[0]
        """,
    )


def test_a_timeout_of_a_wait_is_caught() -> None:
    """Nobody pays."""
    body = """
        workflow:
          - {step: start, next: a}
          - step: a
            type: wait
            signal: paid
            timeout: 1h
            catch: {when: "{{ error.type == 'timeout' }}", step: c}
          - {step: c, type: http, url: x}
    """
    assert_story(
        body,
        """
        > execution_start
            event step_started a
            wait  a signal paid 1
            timer a timeout 2026-01-01T01:00:01.000000Z
        > timer_due a {"purpose": "timeout"}
            event step_failed a "no signal came in time"
            event step_started c
            job   c
        """,
    )


def test_a_signal_that_was_sent_stays_the_data() -> None:
    """A typo in `next` comes after it."""
    body = """
        workflow:
          - {step: start, next: a}
          - step: a
            type: signal
            signal: paid
            next: {when: "{{ a.x }}", step: c}
            catch: {step: c, args: {n: "{{ a.name }}"}}
          - {step: c, type: http, url: x}
    """
    assert_story(
        body,
        """
        > execution_start
            event step_started a
            event step_failed a "`a.x` is undefined: there is no such key in a mapping"
            event step_started c
            job   c {"n": "paid"}
            send  a paid 1
        """,
    )


def test_a_step_may_catch_its_failure_with_itself() -> None:
    """Each time is a new visit, which `max_visits` counts."""
    body = """
        workflow:
          - {step: start, next: a}
          - {step: a, type: http, url: x, catch: {step: a}}
    """
    assert_story(
        body,
        """
        > execution_start
            event step_started a
            job   a
        > action_failed a {"message": "no"}
            event step_failed a "no"
            event step_started a#2
            job   a#2
            dead  a
        > action_failed a#2 {"message": "no"}
            event step_failed a#2 "no"
            event step_started a#3
            job   a#3
            dead  a#2
        """,
    )


def test_the_attempt_is_that_of_the_action_also_if_a_template_fails_after_it() -> None:
    """The last attempt failed, `on_error` let the step go on, and then its `next` failed."""
    body = """
        workflow:
          - {step: start, next: a}
          - step: a
            type: http
            url: x
            retry: {max_attempts: 2, jitter: false}
            on_error: continue
            next: {when: "{{ a.x.y }}", step: c}
            catch: {when: "{{ error.type == 'template' }}", step: c, args: {n: "{{ error.attempt }}"}}
          - {step: c, type: http, url: x}
    """
    assert_story(
        body,
        """
        > execution_start
            event step_started a
            job   a
        > action_failed a {"message": "no"}
            event action_retry a "no"
            retry a 1 s
        > action_failed a {"message": "no"}
            event step_failed a "`a.x` is undefined: there is no such key in a null"
            event step_started c
            job   c {"n": 2}
            dead  a
        """,
    )


def test_the_error_says_which_attempt_failed() -> None:
    """The last one, from 1; what the worker says of it does not count."""
    body = """
        workflow:
          - {step: start, next: a}
          - step: a
            type: http
            url: x
            retry: {max_attempts: 2, jitter: false}
            catch: {step: c, args: {n: "{{ error.attempt }}"}}
          - {step: c, type: http, url: x}
    """
    assert_story(
        body,
        """
        > execution_start
            event step_started a
            job   a
        > action_failed a {"message": "no"}
            event action_retry a "no"
            retry a 1 s
        > action_failed a {"message": "no", "attempt": 7}
            event step_failed a "no"
            event step_started c
            job   c {"n": 2}
            dead  a
        """,
    )


def test_a_signal_whose_next_fails_twice_in_one_turn_is_not_caught_again() -> None:
    """Both visits have sent it."""
    body = """
        workflow:
          - {step: start, next: a}
          - {step: a, type: signal, signal: paid, next: {when: "{{ a.x }}", step: a}, catch: a}
    """
    assert_story(
        body,
        """
        > execution_start
            event step_started a
            event step_failed a "`a.x` is undefined: there is no such key in a mapping"
            event step_started a#2
            event step_failed a#2 "a ring of steps that fail in one turn: a"
            event execution_failed "a ring of steps that fail in one turn: a"
            send  a paid 1
            send  a#2 paid 1
            withdraw
        """,
    )

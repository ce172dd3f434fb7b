"""`catch`: what a step does when it failed for good."""

from __future__ import annotations

import pytest

from tests.stories import assert_story, last_turn, lines_of

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


# The workflow, the events after the start, and what the last one decides.
CAUGHT = {
    "the first entry that is true is taken": (
        CHARGE.removeprefix("\nworkflow:\n"),
        '> action_failed charge {"message": "no", "type": "declined"}',
        """
        event step_failed charge "no"
        event step_started notify
        job   notify
        dead  charge
        """,
    ),
    "its own name reads no other step's result": (
        """
        - {step: start, next: fetch}
        - {step: fetch, type: http, url: x, next: a}
        - {step: a, type: fail, error: {type: bad, message: "no"}, catch: {when: "{{ a.x is defined }}", step: end}}
        - {step: end}
        """,
        '> action_completed fetch {"x": 7}',
        """
        event step_completed fetch
        event step_started a
        event step_failed a "no"
        event execution_failed "no"
        cancel all work
        """,
    ),
    "what no entry handles is left to on_error": (
        """
        - {step: start, next: a}
        - {step: a, type: http, url: x, on_error: continue, next: b, catch: {when: "{{ error.type == 'x' }}", step: c}}
        - {step: b, type: http, url: x}
        - {step: c, type: http, url: x}
        """,
        '> action_failed a {"message": "no"}',
        """
        event step_failed a "no"
        event step_started b
        job   b
        dead  a
        """,
    ),
    "an error of the inputs, in its turn": (
        """
        - {step: start, next: a}
        - step: a
          type: http
          url: x
          args: {n: "{{ workload.nope }}"}
          catch: {step: c, args: {t: "{{ error.type }}", n: "{{ error.attempt }}", s: "{{ error.step }}"}}
        - {step: c, type: http, url: x}
        """,
        "",
        """
        event step_started a
        event step_failed a "`workload.nope` is undefined: there is no such key in a mapping"
        event step_started c
        job   c {"t": "template", "n": 1, "s": "a"}
        """,
    ),
    "a join with too few arrivals": (
        """
        - {step: start, next: [a, b]}
        - {step: a, type: http, url: x, next: [{when: "{{ a.ok }}", step: j}]}
        - {step: b, type: http, url: x, next: [{when: "{{ b.ok }}", step: j}]}
        - {step: j, type: http, join: {need: 2}, catch: {when: "{{ error.type == 'need_not_met' }}", step: c}}
        - {step: c, type: http, url: x}
        """,
        '> action_completed a {"ok": true}\n> action_completed b {"ok": false}',
        """
        event step_completed b
        event step_failed j "join j needs 2 arrivals; 1 came, and no other token can reach it"
        event step_started c
        job   c
        """,
    ),
    "not again a step that fails twice in one turn": (
        """
        - {step: start, next: a}
        - {step: a, type: fail, error: {type: oops, message: "again"}, catch: {step: a}}
        """,
        "",
        """
        event step_started a
        event step_failed a "again"
        event step_started a#2
        event step_failed a#2 "a cycle of steps that fail in one turn: a"
        event execution_failed "a cycle of steps that fail in one turn: a"
        cancel all work
        """,
    ),
    "not again a cycle through a router": (
        """
        - {step: start, next: a}
        - {step: a, type: fail, error: again, catch: {step: b}}
        - {step: b, next: a}
        """,
        "",
        """
        event step_started a
        event step_failed a "again"
        event step_started b
        event step_completed b
        event step_started a#2
        event step_failed a#2 "a cycle of steps that fail in one turn: a → b"
        event execution_failed "a cycle of steps that fail in one turn: a → b"
        cancel all work
        """,
    ),
    "not again a signal whose next fails twice in one turn": (
        """
        - {step: start, next: a}
        - {step: a, type: signal, signal: paid, next: {when: "{{ a.x }}", step: a}, catch: a}
        """,
        "",
        """
        event step_started a
        event step_failed a "`a.x` is undefined: there is no such key in a mapping"
        event step_started a#2
        event step_failed a#2 "a cycle of steps that fail in one turn: a"
        event execution_failed "a cycle of steps that fail in one turn: a"
        send  a paid 1
        send  a#2 paid 1
        cancel all work
        """,
    ),
    "a signal that was sent stays the data": (
        """
        - {step: start, next: a}
        - step: a
          type: signal
          signal: paid
          next: {when: "{{ a.x }}", step: c}
          catch: {step: c, args: {n: "{{ a.name }}"}}
        - {step: c, type: http, url: x}
        """,
        "",
        """
        event step_started a
        event step_failed a "`a.x` is undefined: there is no such key in a mapping"
        event step_started c
        job   c {"n": "paid"}
        send  a paid 1
        """,
    ),
    "a router whose next fails": (
        """
        - {step: start, next: r}
        - {step: r, next: {when: "{{ workload.x }}", step: c}, catch: {step: c}}
        - {step: c, type: http, url: x}
        """,
        "",
        """
        event step_started r
        event step_failed r "`workload.x` is undefined: there is no such key in a mapping"
        event step_started c
        job   c
        """,
    ),
    "a router hands on what came, also where its next is caught": (
        """
        - {step: start, next: a}
        - {step: a, type: http, url: x, next: r}
        - {step: r, next: {when: "{{ workload.x }}", step: c}, catch: {when: "{{ result == 7 }}", step: c}}
        - {step: c, type: http, url: x, args: {got: "{{ result }}", why: "{{ r.error.type }}"}}
        """,
        "> action_completed a 7",
        """
        event step_completed a
        event step_started r
        event step_failed r "`workload.x` is undefined: there is no such key in a mapping"
        event step_started c
        job   c {"got": 7, "why": "template"}
        """,
    ),
    "a start whose next fails": (
        """
        - {step: start, next: {when: "{{ workload.x }}", step: c}, catch: {step: c, args: {t: "{{ error.type }}"}}}
        - {step: c, type: http, url: x}
        """,
        "",
        """
        event step_failed start "`workload.x` is undefined: there is no such key in a mapping"
        event step_started c
        job   c {"t": "template"}
        """,
    ),
    "a failed child, by the error of its cause": (
        """
        - {step: start, next: a}
        - step: a
          type: playbook
          path: p
          catch: {when: "{{ error.status_code == 402 }}", step: c, args: {s: "{{ error.child_step }}"}}
        - {step: c, type: http, url: x}
        """,
        '> action_failed a {"message": "no", "type": "declined", "status_code": 402, "child_step": "charge"}',
        """
        event step_failed a "no"
        event step_started c
        job   c {"s": "charge"}
        dead  a
        cancel items of a
        """,
    ),
    "a failed iterator, whose other items are cancelled": (
        """
        - {step: start, next: a}
        - step: a
          type: iterator
          collection: [1, 2]
          element: n
          task: {type: playbook, path: p}
          catch: {step: c, args: {i: "{{ error.index }}"}}
        - {step: c, type: http, url: x}
        """,
        '> action_failed a[0] {"message": "no"}',
        """
        event iteration_failed a "no"
        event step_failed a "no"
        event step_started c
        job   c {"i": 0}
        dead  a
        cancel items of a
        cancel child of a[0]
        """,
    ),
    "the timeout of a wait": (
        """
        - {step: start, next: a}
        - {step: a, type: wait, signal: paid, timeout: 1h, catch: {when: "{{ error.type == 'timeout' }}", step: c}}
        - {step: c, type: http, url: x}
        """,
        '> timer_due a {"purpose": "timeout"}',
        """
        event step_failed a "no signal came in time"
        event step_started c
        job   c
        """,
    ),
    "with itself, in a new visit that max_visits counts": (
        """
        - {step: start, next: a}
        - {step: a, type: http, url: x, catch: {step: a}}
        """,
        '> action_failed a {"message": "no"}\n> action_failed a#2 {"message": "no"}',
        """
        event step_failed a#2 "no"
        event step_started a#3
        job   a#3
        dead  a#2
        """,
    ),
    "the attempt is that of the action, also if a template fails after it": (
        """
        - {step: start, next: a}
        - step: a
          type: http
          retry: {max_attempts: 2, jitter: false}
          on_error: continue
          next: {when: "{{ a.x.y }}", step: c}
          catch: {when: "{{ error.type == 'template' }}", step: c, args: {n: "{{ error.attempt }}"}}
        - {step: c, type: http, url: x}
        """,
        '> action_failed a {"message": "no"}\n> action_failed a {"message": "no"}',
        """
        event step_failed a "`a.x` is undefined: there is no such key in a null"
        event step_started c
        job   c {"n": 2}
        dead  a
        """,
    ),
    "what the worker says of the attempt does not count": (
        """
        - {step: start, next: a}
        - step: a
          type: http
          retry: {max_attempts: 2, jitter: false}
          catch: {step: c, args: {n: "{{ error.attempt }}"}}
        - {step: c, type: http, url: x}
        """,
        '> action_failed a {"message": "no"}\n> action_failed a {"message": "no", "attempt": 7}',
        """
        event step_failed a "no"
        event step_started c
        job   c {"n": 2}
        dead  a
        """,
    ),
    "its arc keeps a join waiting": (
        """
        - {step: start, next: [a, b]}
        - {step: a, type: http, url: x, next: j}
        - {step: b, type: http, url: x, next: k, catch: {step: j, args: {why: "{{ error.message }}"}}}
        - {step: k, type: http, url: x}
        - {step: j, type: http, url: x}
        """,
        '> action_completed a\n> action_failed b {"message": "no"}',
        """
        event step_failed b "no"
        event step_started j
        job   j {"why": "no"}
        dead  b
        """,
    ),
    "its join runs when the step before it can no longer fail": (
        """
        - {step: start, next: [a, b]}
        - {step: a, type: http, url: x, next: j}
        - {step: b, type: http, url: x, next: k, catch: {step: j}}
        - {step: k, type: http, url: x}
        - {step: j, type: http, url: x}
        """,
        "> action_completed a\n> action_completed b",
        """
        event step_completed b
        event step_started k
        event step_started j
        job   k
        job   j
        """,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CAUGHT)
def test_a_failure_is_caught(what: str) -> None:
    """The failed step's token goes on in the same turn, or the failure counts as without a `catch`."""
    steps, events, decided = CAUGHT[what]
    assert last_turn(f"workflow:\n{steps}", f"> execution_start\n{events}".strip()) == lines_of(decided)


def test_a_spent_token_that_failed_goes_on() -> None:
    """It ends at the join that has run."""
    assert_story(
        """
        workflow:
          - {step: start, next: [a, b]}
          - {step: a, type: http, url: x, next: j}
          - {step: b, type: http, url: x, next: j, catch: {step: c}}
          - {step: c, type: http, url: x, next: j}
          - {step: j, type: http, url: x, join: any}
        """,
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

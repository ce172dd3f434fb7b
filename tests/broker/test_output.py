"""`output`: what is kept of the result of an action."""

from __future__ import annotations

import pytest

from tests.stories import last_turn, lines_of

KEPT = {
    "in place of the result; `next` and later steps read it": (
        """
        - step: a
          type: http
          output: {id: "{{ result.id }}", all: "{{ a.rows | length }}"}
          next: {when: "{{ a.all > 1 }}", step: b, args: {r: "{{ result }}"}}
        - {step: b, type: http, args: {id: "{{ a.id }}"}}
        """,
        '> action_completed a {"id": 7, "rows": [1, 2], "junk": "long"}',
        """
        event step_completed a {"id": 7, "all": 2}
        event step_started b
        job   b {"id": 7, "r": {"id": 7, "all": 2}}
        """,
    ),
    "the result, where the output fails": (
        """
        - {step: a, type: http, output: "{{ result.nope }}", catch: {step: b, args: {id: "{{ a.id }}"}}}
        - {step: b, type: http}
        """,
        '> action_completed a {"id": 7}',
        """
        event step_failed a "`result.nope` is undefined: there is no such key in a mapping"
        event step_started b
        job   b {"id": 7}
        """,
    ),
    "of a wait, also where its `next` fails": (
        """
        - step: a
          type: wait
          signal: paid
          output: "{{ result.sum }}"
          next: {when: "{{ a.x }}", step: b}
          catch: {step: b, args: {a: "{{ a }}", e: "{{ error.type }}"}}
        - {step: b, type: http}
        """,
        '> execution_signal {"name": "paid", "key": "1", "payload": {"sum": 7}}',
        """
        event step_failed a "`a.x` is undefined: there is no such key in a number"
        event step_started b
        job   b {"a": 7, "e": "template"}
        """,
    ),
}


@pytest.mark.parametrize("what", KEPT)
def test_an_output_is_kept(what: str) -> None:
    """A `catch` reads what the action gave."""
    steps, event, decided = KEPT[what]
    body = f"workflow:\n        - {{step: start, next: a}}{steps}"
    assert last_turn(body, f"> execution_start\n{event}") == lines_of(decided)

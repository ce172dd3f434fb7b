"""Joins: `all`, `any`, `each`, joins that reach each other, and `end`."""

from tests.stories import assert_story


def test_a_join_does_not_wait_for_a_branch_that_was_not_taken() -> None:
    """No other token can reach the join."""
    assert_story(
        """
        workflow:
        - {step: start, next: a}
        - step: a
          type: python
          code: x
          next:
          - {when: "a.left", step: l}
          - {else: [r]}
        - {step: l, type: python, code: x, next: j}
        - {step: r, type: python, code: x, next: j}
        - {step: j, type: python, code: x, next: end}
        - {step: end}
        """,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a {"left": true}
            event step_completed a
            event step_started l
            job   l
        > action_completed l {"v": 1}
            event step_completed l
            event step_started j
            job   j
        > action_completed j {"v": 2}
            event step_completed j
            event execution_complete {"v": 2}
        """,
    )


def test_an_all_join_merges_inputs_in_the_order_of_its_transitions() -> None:
    """Inputs of transitions win over own keys. `result` is the last transition's."""
    assert_story(
        """
        workflow:
        - {step: start, next: [l, r]}
        - {step: l, type: python, code: x, next: [{step: j, args: {from_l: "{{ l.v }}", both: l}}]}
        - {step: r, type: python, code: x, next: [{step: j, args: {from_r: "{{ r.v }}", both: r}}]}
        - {step: j, type: python, code: x, args: {both: own, last: "{{ result.v }}"}}
        """,
        """
        > execution_start
            event step_started l
            event step_started r
            job   l
            job   r
        > action_completed r {"v": 2}
            event step_completed r
        > action_completed l {"v": 1}
            event step_completed l
            event step_started j
            job   j {"last": 2, "from_l": 1, "both": "r", "from_r": 2}
        > action_completed j 5
            event step_completed j
            event execution_complete 5
        """,
    )


def test_arrivals_of_one_turn_at_an_any_join_make_one_visit() -> None:
    """Two transitions to it and one through a router: the first runs, the others are spent."""
    assert_story(
        """
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: [j, j, r]}
        - {step: r, next: j}
        - {step: j, join: any, type: python, code: x}
        """,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a {"v": 2}
            event step_completed a
            event step_started j
            event step_started r
            event step_completed r
            job   j
        > action_completed j {"v": 3}
            event step_completed j
            event execution_complete {"v": 3}
        """,
    )


def test_an_each_join_makes_a_visit_per_arrival() -> None:
    """The name of the step reads the latest visit with a result. `result` and inputs are the visit's."""
    assert_story(
        """
        workflow:
        - {step: start, next: [l, r]}
        - {step: l, type: python, code: x, next: [{step: j, args: {who: l}}]}
        - {step: r, type: python, code: x, next: [{step: j, args: {who: r}}]}
        - {step: j, join: each, type: python, code: x, next: k}
        - {step: k, type: python, code: x, args: {got: "{{ j.v }}", r: "{{ result.v }}"}}
        """,
        """
        > execution_start
            event step_started l
            event step_started r
            job   l
            job   r
        > action_completed r {"v": 2}
            event step_completed r
            event step_started j
            job   j {"who": "r"}
        > action_completed l {"v": 1}
            event step_completed l
            event step_started j#2
            job   j#2 {"who": "l"}
        > action_completed j#2 {"v": "second"}
            event step_completed j#2
            event step_started k
            job   k {"got": "second", "r": "second"}
        > action_completed j {"v": "first"}
            event step_completed j
            event step_started k#2
            job   k#2 {"got": "second", "r": "first"}
        > action_completed k 1
            event step_completed k
        > action_completed k#2 1
            event step_completed k#2
            event execution_complete 1
        """,
    )


def test_joins_that_reach_each_other_are_released_in_document_order() -> None:
    """A group is ready when no token outside the group can reach it."""
    assert_story(
        """
        workflow:
        - {step: start, next: [p, q]}
        - {step: p, type: python, code: x, next: j1}
        - {step: q, type: python, code: x, next: j2}
        - step: j1
          join: all
          type: python
          code: x
          next: [{when: "j1.again", step: j2}]
        - step: j2
          join: all
          type: python
          code: x
          next: [{when: "j2.again", step: j1}]
        """,
        """
        > execution_start
            event step_started p
            event step_started q
            job   p
            job   q
        > action_completed q {}
            event step_completed q
        > action_completed p {}
            event step_completed p
            event step_started j1
            job   j1
        > action_completed j1 {"again": false}
            event step_completed j1
            event step_started j2
            job   j2
        > action_completed j2 {"again": false}
            event step_completed j2
            event execution_complete {"j1": {"again": false}, "j2": {"again": false}}
        """,
    )


def test_tokens_that_wait_at_one_step_are_spent_together_or_not_at_all() -> None:
    """`c` merges a spent token and another one. The merged token can reach `b` through `a`."""
    assert_story(
        """
        workflow:
        - {step: start, next: [a, c]}
        - {step: a, join: any, type: python, code: x, next: [c, b]}
        - {step: b, join: any, type: python, code: x}
        - {step: c, type: python, code: x, next: {step: a, when: "{{ c.again }}"}}
        """,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a 1
            event step_completed a
            event step_started b
            event step_started c
            job   b
            job   c
        > action_completed b 2
            event step_completed b
        > action_completed c {"again": true}
            event step_completed c
            event step_started a#2
            job   a#2
        > action_completed a#2 3
            event step_completed a#2
            event step_started c#2
            job   c#2
        > action_completed c#2 {"again": false}
            event step_completed c#2
            event execution_complete 2
        """,
    )


def test_joins_that_reach_each_other_ignore_spent_tokens() -> None:
    """A waiting token that is spent for an `any` join reaches no join through it."""
    assert_story(
        """
        workflow:
        - {step: start, next: [l, r, t]}
        - {step: l, type: python, code: x, next: m}
        - {step: r, type: python, code: x, next: p}
        - {step: t, type: python, code: x, next: q}
        - {step: m, join: any, type: python, code: x, next: [{when: "m.again", step: q}]}
        - {step: p, join: all, type: python, code: x, next: m}
        - {step: q, join: all, type: python, code: x, next: p}
        """,
        """
        > execution_start
            event step_started l
            event step_started r
            event step_started t
            job   l
            job   r
            job   t
        > action_completed l 1
            event step_completed l
            event step_started m
            job   m
        > action_completed m {"again": false}
            event step_completed m
        > action_completed r 1
            event step_completed r
        > action_completed t 1
            event step_completed t
            event step_started q
            job   q
        > action_completed q 1
            event step_completed q
            event step_started p
            job   p
        """,
    )


def test_a_cycle_of_routers_through_a_join_fails() -> None:
    """What the merged tokens passed in this turn counts, so that the turn ends."""
    assert_story(
        """
        workflow:
        - {step: start, next: [l, r]}
        - {step: l, join: each, next: j}
        - {step: r, join: each, next: j}
        - {step: j, join: all, next: [l, r]}
        """,
        """
        > execution_start
            event step_started l
            event step_completed l
            event step_started r
            event step_completed r
            event step_started j
            event step_completed j
            event step_started l#2
            event step_failed l#2 "a cycle of routers that no step leaves: l → j"
            event execution_failed "a cycle of routers that no step leaves: l → j"
            cancel all work
        """,
    )

"""Which entries of `next` fire: the four rules, aliases, `next_mode` and routers."""

from tests.stories import assert_story


def test_unconditional_entries_before_the_first_condition_always_fire() -> None:
    """With every true condition; `otherwise` does not fire."""
    assert_story(
        """
        workflow:
        - {step: start, next: a}
        - step: a
          type: python
          code: x
          next:
          - always
          - {when: "{{ a.ok }}", step: yes_}
          - otherwise
        - {step: always, type: python, code: x}
        - {step: yes_, type: python, code: x}
        - {step: otherwise, type: python, code: x}
        """,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a {"ok": true}
            event step_completed a
            event step_started always
            event step_started yes_
            job   always
            job   yes_
        """,
    )


def test_without_a_true_condition_else_and_later_entries_fire() -> None:
    """Entries with `else` only, and unconditional entries after a condition."""
    assert_story(
        """
        workflow:
        - {step: start, next: a}
        - step: a
          type: python
          code: x
          next:
          - always
          - {when: "{{ a.ok }}", step: yes_}
          - otherwise
          - else: [none_of_them]
        - {step: always, type: python, code: x}
        - {step: yes_, type: python, code: x}
        - {step: otherwise, type: python, code: x}
        - {step: none_of_them, type: python, code: x}
        """,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a {"ok": "no"}
            event step_completed a
            event step_started always
            event step_started otherwise
            event step_started none_of_them
            job   always
            job   otherwise
            job   none_of_them
        """,
    )


def test_every_true_condition_fires_with_all_its_targets() -> None:
    """With any alias of `when`, and beside an `else` that does not fire."""
    assert_story(
        """
        workflow:
        - {step: start, next: a}
        - step: a
          type: python
          code: x
          next:
          - {when: "a.n > 1", then: [b, c]}
          - {condition: "a.n > 2", step: d}
          - {pass: "{{ a.n > 100 }}", then: b, else: e}
        - {step: b, type: python, code: x}
        - {step: c, type: python, code: x}
        - {step: d, type: python, code: x}
        - {step: e, type: python, code: x}
        """,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a {"n": 3}
            event step_completed a
            event step_started c
            event step_started d
            event step_started e
            event step_started b
            job   c
            job   d
            job   e
            job   b
        """,
    )


def test_an_exclusive_step_stops_at_its_first_true_condition() -> None:
    """`next_mode: exclusive` does not evaluate later conditions."""
    assert_story(
        """
        workflow:
        - {step: start, next: a}
        - step: a
          type: python
          code: x
          next_mode: exclusive
          next:
          - always
          - {when: "a.n > 1", step: b}
          - {when: "a.missing.deep + 1", step: c}
          - {else: [d]}
        - {step: always, type: python, code: x}
        - {step: b, type: python, code: x}
        - {step: c, type: python, code: x}
        - {step: d, type: python, code: x}
        """,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a {"n": 3}
            event step_completed a
            event step_started always
            event step_started b
            job   always
            job   b
        """,
    )


def test_a_token_ends_if_no_entry_fires() -> None:
    """The data of the branch are the result."""
    assert_story(
        """
        workflow:
        - {step: start, next: a}
        - step: a
          type: python
          code: x
          next:
          - {when: "a.n > 1", step: b}
        - {step: b, type: python, code: x}
        """,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a {"n": 0}
            event step_completed a
            event execution_complete {"n": 0}
        """,
    )


def test_a_start_without_an_action_is_a_router() -> None:
    """It evaluates conditions and writes no event of its own."""
    assert_story(
        """
        workload: {mode: fast}
        workflow:
        - step: start
          next:
          - {when: "workload.mode == 'fast'", step: fast}
          - {else: [slow]}
        - {step: fast, type: python, code: x}
        - {step: slow, type: python, code: x}
        """,
        """
        > execution_start {"mode": "slow"}
            event step_started slow
            job   slow
        > action_completed slow 1
            event step_completed slow
            event execution_complete 1
        """,
    )


def test_routers_are_passed_in_the_same_turn_and_pass_the_result_on() -> None:
    """A router reads `result` and its inputs, and has no result."""
    assert_story(
        """
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: route}
        - step: route
          next:
          - {when: "{{ result.n > 1 }}", step: second, args: {n: "{{ result.n }}"}}
        - {step: second, type: router, next: [{step: b, args: {m: "{{ n }}", r: "{{ result.n }}"}}]}
        - {step: b, type: python, code: x}
        """,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a {"n": 2}
            event step_completed a
            event step_started route
            event step_completed route
            event step_started second
            event step_completed second
            event step_started b
            job   b {"m": 2, "r": 2}
        > action_completed b {"done": true}
            event step_completed b
            event execution_complete {"done": true}
        """,
    )


def test_a_loop_of_routers_fails_the_execution() -> None:
    """One token enters a router twice in a turn."""
    assert_story(
        """
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: r1}
        - {step: r1, next: r2}
        - {step: r2, next: r1}
        """,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a {}
            event step_completed a
            event step_started r1
            event step_completed r1
            event step_started r2
            event step_completed r2
            event step_started r1#2
            event step_failed r1#2 "a ring of routers that no step leaves: r1 → r2"
            event execution_failed "a ring of routers that no step leaves: r1 → r2"
            withdraw
        > action_completed a {}  (after_end)
        """,
    )

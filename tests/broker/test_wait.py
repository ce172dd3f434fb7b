"""Waits for a moment: no job and no worker."""

from tests.stories import assert_story, last_turn


def test_a_wait_ends_when_its_moment_comes() -> None:
    """The result is the moment. A doubled timer changes nothing."""
    assert_story(
        """
        workflow:
        - {step: start, next: cool}
        - {step: cool, type: wait, for: 3d, next: {step: go, args: {since: "{{ cool.waited_until }}"}}}
        - {step: go, type: python, code: x}
        """,
        """
        > execution_start
            event step_started cool
            wait  cool timer
            timer cool wait 2026-01-04T00:00:01.000000Z
        > timer_due cool {"purpose": "wait", "due_at": "2026-01-04T00:00:01.000000Z"}
            event step_completed cool {"waited_until": "2026-01-04T00:00:01.000000Z"}
            event step_started go
            job   go {"since": "2026-01-04T00:00:01.000000Z"}
        > timer_due cool {"purpose": "wait", "due_at": "2026-01-04T00:00:01.000000Z"}  (duplicate)
        > action_completed go 1
            event step_completed go
            event execution_complete 1
        """,
    )


def test_a_moment_that_has_passed_completes_in_the_same_turn() -> None:
    """Several in a row too; `result` and the step's name give each its own."""
    assert_story(
        """
        workload: {at: "2025-01-01T00:00:00Z"}
        workflow:
        - {step: start, next: a}
        - {step: a, type: wait, until: "{{ at }}", next: b}
        - step: b
          type: wait
          for: 0
          next: {step: go, args: {a: "{{ a.waited_until }}", b: "{{ result.waited_until }}"}}
        - {step: go, type: python, code: x}
        """,
        """
        > execution_start
            event step_started a
            event step_completed a {"waited_until": "2025-01-01T00:00:00.000000Z"}
            event step_started b
            event step_completed b {"waited_until": "2026-01-01T00:00:01.000000Z"}
            event step_started go
            job   go {"a": "2025-01-01T00:00:00.000000Z", "b": "2026-01-01T00:00:01.000000Z"}
        > action_completed go 1
            event step_completed go
            event execution_complete 1
        """,
    )


def test_a_bad_duration_fails_the_step() -> None:
    """The error names the value and the forms."""
    forms = "a number of seconds, 90s, 15m, 2h30m, 3d, 2w or P3DT12H"
    message = f'"`for` must be {forms}, it is \\"many days\\""'
    assert_story(
        """
        workload: {days: many}
        workflow:
        - {step: start, next: cool}
        - {step: cool, type: wait, for: "{{ days }} days"}
        """,
        f"""
        > execution_start
            event step_started cool
            event step_failed cool {message}
            event execution_failed {message}
            cancel all work
        """,
    )


def test_a_timer_of_another_purpose_changes_nothing() -> None:
    """Nor one without, or of a step that waits for no timer."""
    assert_story(
        """
        workflow:
        - {step: start, next: [cool, work]}
        - {step: cool, type: wait, for: 3d}
        - {step: work, type: python, code: x}
        """,
        """
        > execution_start
            event step_started cool
            event step_started work
            job   work
            wait  cool timer
            timer cool wait 2026-01-04T00:00:01.000000Z
        > timer_due cool {"purpose": "timeout"}  (recorded)
        > timer_due cool  (recorded)
        > timer_due work {"purpose": "wait"}  (not_open)
        > timer_due cool#2 {"purpose": "wait"}  (not_open)
        """,
    )


def test_a_moment_of_long_ago_has_a_year_of_four_digits() -> None:
    """It is RFC 3339 as every other one."""
    assert_story(
        """
        workflow:
        - {step: start, next: a}
        - {step: a, type: wait, until: "0001-01-01T00:00:00Z"}
        """,
        """
        > execution_start
            event step_started a
            event step_completed a {"waited_until": "0001-01-01T00:00:00.000000Z"}
            event execution_complete {"waited_until": "0001-01-01T00:00:00.000000Z"}
        """,
    )


def test_a_timer_without_its_moment_ends_the_wait_at_that_turn() -> None:
    """Somebody else may have written it."""
    body = "workflow: [{step: start, next: a}, {step: a, type: wait, for: 3d}]"
    assert last_turn(body, '> execution_start\n> timer_due a {"purpose": "wait"}') == [
        'event step_completed a {"waited_until": "2026-01-01T00:00:02.000000Z"}',
        'event execution_complete {"waited_until": "2026-01-01T00:00:02.000000Z"}',
    ]

"""Items that are draining after their iterator failed in an unusual way: stories, event by event."""

from __future__ import annotations

from tests.stories import assert_story

BROKEN_ITEM = """
    workflow:
    - {step: start, next: it}
    - step: it
      type: iterator
      collection: [1, 2, 3, 4, 0]
      element: item
      mode: async
      concurrency: 3
      task: {type: http, url: x, args: {n: "{{ 12 // item }}"}, compensate: {type: http, args: {of: "{{ result }}"}}}
"""
ITEMS = """
    workflow:
    - {step: start, next: it}
    - step: it
      type: iterator
      collection: [1, 2, 3, 4]
      element: item
      mode: async
      concurrency: 3
      task: {type: http, url: x, args: {n: "{{ item }}"}, compensate: {type: http, args: {of: "{{ result }}"}}}
"""
BROKEN_CATCH = """
    workflow:
    - {step: start, next: it}
    - step: it
      type: iterator
      collection: [1, 2]
      element: item
      mode: async
      concurrency: 2
      on_error: continue
      task:
        type: http
        url: x
        compensate: {type: http, args: {of: "{{ result }}"}}
        catch: [{when: "{{ 1 / 0 }}", result: 1}]
"""
NEXT_CANNOT_START = """
    workflow:
    - {step: start, next: it}
    - step: it
      type: iterator
      collection: [1, 2, 0]
      element: item
      mode: async
      concurrency: 2
      task: {type: http, url: x, args: {n: "{{ 12 // item }}"}, compensate: {type: http, args: {of: "{{ result }}"}}}
      catch: [{step: c, args: {why: "{{ it.error.message }}", got: "{{ result }}"}}]
    - {step: c, type: http, url: y, args: {m: "{{ it.error.message }}", r: "{{ it.data | default('none') }}"}}
"""


def test_items_that_start_beside_one_that_cannot_are_draining_too() -> None:
    """Item 3 starts in the turn in which the inputs of item 4 fail. Its end does not stand for that of item 2."""
    assert_story(
        BROKEN_ITEM,
        """
        > execution_start
            event step_started it
            event iterator_started it {"total": 5}
            event iteration_started it {"index": 0}
            event iteration_started it {"index": 1}
            event iteration_started it {"index": 2}
            job   it[0] {"n": 12}
            job   it[1] {"n": 6}
            job   it[2] {"n": 4}
        > execution_pause
            event execution_paused
        > action_completed it[0] 7
            event iteration_completed it {"index": 0}
            undo  it[0]
        > action_completed it[1] 8
            event iteration_completed it {"index": 1}
            undo  it[1]
        > execution_resume
            event execution_resumed
            event iteration_started it {"index": 3}
            event step_failed it "it divides by zero"
            event execution_compensating "it divides by zero"
            job   it[3] {"n": 3}
            dead  it
            cancel items of it
            cancel all work
            drain it
        > action_failed it[3] {"message": "cancelled", "type": "cancelled"}
        > action_completed it[2] 9  (late)
            event compensation_started it {"index": 2}
            job   it[2]!undo {"of": 9}
            undo  it[2]
        > action_completed it[2]!undo
            event compensation_completed it {"index": 2}
            event compensation_started it {"index": 1}
            job   it[1]!undo {"of": 8}
        > action_completed it[1]!undo
            event compensation_completed it {"index": 1}
            event compensation_started it {"index": 0}
            job   it[0]!undo {"of": 7}
        > action_completed it[0]!undo
            event compensation_completed it {"index": 0}
            event execution_failed "it divides by zero"
        """,
    )


def test_an_item_whose_catch_fails_has_ended() -> None:
    """Nobody waits for it; the execution waits for the other one."""
    assert_story(
        BROKEN_CATCH,
        """
        > execution_start
            event step_started it
            event iterator_started it {"total": 2}
            event iteration_started it {"index": 0}
            event iteration_started it {"index": 1}
            job   it[0]
            job   it[1]
        > action_failed it[0] {"message": "no"}
            event iteration_failed it "it divides by zero"
            event step_failed it "it divides by zero"
            event execution_compensating "it divides by zero"
            dead  it[0]
            dead  it
            cancel items of it
            cancel all work
            drain it
        > action_completed it[1] 7  (late)
            event compensation_started it {"index": 1}
            job   it[1]!undo {"of": 7}
            undo  it[1]
        > action_completed it[1]!undo
            event compensation_completed it {"index": 1}
            event execution_failed "it divides by zero"
        """,
    )


def test_the_undo_of_an_item_sees_its_result_though_the_step_failed_in_its_turn() -> None:
    """The item succeeded, and the one after it could not start."""
    assert_story(
        NEXT_CANNOT_START,
        """
        > execution_start
            event step_started it
            event iterator_started it {"total": 3}
            event iteration_started it {"index": 0}
            event iteration_started it {"index": 1}
            job   it[0] {"n": 12}
            job   it[1] {"n": 6}
        > action_completed it[0] 7
            event iteration_completed it {"index": 0}
            event step_failed it "it divides by zero"
            event step_started c
            job   c {"m": "it divides by zero", "r": null, "why": "it divides by zero", "got": null}
            dead  it
            cancel items of it
            undo  it[0]
            drain it
        > action_completed it[1] 8  (late)
            undo  it[1]
        > action_failed c {"message": "no"}
            event step_failed c "no"
            event execution_compensating "no"
            event compensation_started it {"index": 1}
            job   it[1]!undo {"of": 8}
            dead  c
            cancel all work
        > action_completed it[1]!undo
            event compensation_completed it {"index": 1}
            event compensation_started it {"index": 0}
            job   it[0]!undo {"of": 7}
        > action_completed it[0]!undo
            event compensation_completed it {"index": 0}
            event execution_failed "no"
        """,
    )


def test_an_abandoned_undo_lists_each_item_that_was_draining() -> None:
    """The first one succeeded, the second one may have. The third one never began, and the iterator never succeeded."""
    for whole in ("", "      compensate: {type: http}\n"):
        assert_story(
            f"{ITEMS}{whole}",
            """
            > execution_start
                event step_started it
                event iterator_started it {"total": 4}
                event iteration_started it {"index": 0}
                event iteration_started it {"index": 1}
                event iteration_started it {"index": 2}
                job   it[0] {"n": 1}
                job   it[1] {"n": 2}
                job   it[2] {"n": 3}
            > action_completed it[1] 7
                event iteration_completed it {"index": 1}
                event iteration_started it {"index": 3}
                job   it[3] {"n": 4}
                undo  it[1]
            > execution_cancel
                event execution_compensating "cancelled"
                cancel all work
                drain it
            > action_failed it[3] {"message": "cancelled", "type": "cancelled"}
            > execution_abandon
                event execution_failed "the undo was abandoned"
                cancel all work
                undo  it[0] unknown
                undo  it[2] unknown
            """,
        )


def test_an_abandoned_undo_lists_no_children_that_undo_themselves() -> None:
    """They are cancelled. If one completes all the same, its actions are undone: the iterator never succeeded."""
    assert_story(
        """
        workflow:
        - {step: start, next: it}
        - step: it
          type: iterator
          collection: [1, 2]
          element: item
          mode: async
          concurrency: 2
          task: {type: playbook, path: sub}
          compensate: {type: http}
        """,
        """
        > execution_start
            event step_started it
            event iterator_started it {"total": 2}
            event iteration_started it {"index": 0}
            event iteration_started it {"index": 1}
            child it[0] sub
            child it[1] sub
        > execution_complete it[0] 1; undo child 70
            event iteration_completed it {"index": 0}
            undo  it[0] child 70
        > execution_cancel
            event execution_compensating "cancelled"
            cancel all work
            drain it
        > execution_abandon
            event execution_failed "the undo was abandoned"
            cancel all work
        > execution_complete it[1] 1; undo child 71  (after_end)
            undo execution 71
        """,
    )


def test_only_items_tell_what_an_iterator_that_is_draining_did() -> None:
    """A completion that somebody sent for the whole is no success of it; after a timeout, items still report theirs."""
    assert_story(
        f"{ITEMS}      compensate: {{type: http}}\n",
        """
        > execution_start
            event step_started it
            event iterator_started it {"total": 4}
            event iteration_started it {"index": 0}
            event iteration_started it {"index": 1}
            event iteration_started it {"index": 2}
            job   it[0] {"n": 1}
            job   it[1] {"n": 2}
            job   it[2] {"n": 3}
        > action_failed it {"message": "too late", "type": "timeout"}
            event step_failed it "too late"
            event execution_compensating "too late"
            dead  it
            cancel items of it
            cancel all work
            drain it
        > action_completed it 5  (recorded)
        > action_failed it {"message": "too late", "type": "timeout"}
        > action_completed it[0] 7  (late)
            undo  it[0]
        > action_failed it[1] {"message": "no"}
        > action_failed it[2] {"message": "too late", "type": "timeout"}
            event compensation_started it {"index": 0}
            job   it[0]!undo {"of": 7}
            undo  it[2] unknown
        > action_completed it[0]!undo
            event compensation_completed it {"index": 0}
            event execution_failed "too late"
        """,
    )


def test_an_item_that_is_due_while_it_is_draining_is_not_started_again() -> None:
    """Its moment came as the execution was cancelled. Nothing else ends it."""
    assert_story(
        """
        workflow:
        - {step: start, next: it}
        - step: it
          type: iterator
          collection: [1, 2]
          element: item
          task: {type: playbook, path: sub, retry: {max_attempts: 3, jitter: false}, compensate: {type: http}}
        """,
        """
        > execution_start
            event step_started it
            event iterator_started it {"total": 2}
            event iteration_started it {"index": 0}
            child it[0] sub
        > execution_failed it[0] {"message": "no"}; attempt 1
            event action_retry it "no"
            delegated it[0] 1 s
        > execution_cancel
            event execution_compensating "cancelled"
            cancel all work
            drain it
        > child_due it[0]; attempt 2
            event execution_cancelled "cancelled"
        > child_due it[0]; attempt 2  (after_end)
        """,
    )


def test_a_child_that_is_draining_and_leaves_nothing_to_undo_is_not_late() -> None:
    """It succeeded after its iterator was over, and nothing becomes of that."""
    assert_story(
        """
        workflow:
        - {step: start, next: it}
        - step: it
          type: iterator
          collection: [1, 2]
          element: item
          mode: async
          concurrency: 2
          task: {type: playbook, path: sub}
          compensate: {type: http}
        """,
        """
        > execution_start
            event step_started it
            event iterator_started it {"total": 2}
            event iteration_started it {"index": 0}
            event iteration_started it {"index": 1}
            child it[0] sub
            child it[1] sub
        > execution_complete it[0] 1; undo child 70
            event iteration_completed it {"index": 0}
            undo  it[0] child 70
        > execution_cancel
            event execution_compensating "cancelled"
            cancel all work
            drain it
        > execution_complete it[1] 1
            event compensation_started it {"index": 0}
            undo execution 70; answer 1
        """,
    )

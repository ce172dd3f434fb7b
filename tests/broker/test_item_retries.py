"""Items of iterators that fail: tried again, done with another result, tolerated."""

from noetl_broker.broker.model.event import Event
from noetl_broker.history.story import play_turns
from tests.stories import assert_story, playbook

EACH = """
workflow:
- {step: start, next: each}
- step: each
  type: iterator
  mode: async
  collection: COLLECTION
  element: n
  KEYS
"""
RETRY = "retry: {max_attempts: 2, jitter: false}"


def each(task: str, keys: str = "", collection: str = "[1, 2]") -> str:
    """Return a workflow of one iterator with this task."""
    body = EACH.replace("COLLECTION", collection)
    return body.replace("KEYS", f"{keys}\n  task: {{{task}}}" if keys else f"task: {{{task}}}")


def test_an_item_is_tried_again_by_itself() -> None:
    """Its job goes back to the queue after a delay; the other items go on. The last failure ends the item."""
    assert_story(
        each(f"type: python, code: x, {RETRY}", "on_error: continue"),
        """
        > execution_start
            event step_started each
            event iterator_started each {"total": 2}
            event iteration_started each {"index": 0}
            event iteration_started each {"index": 1}
            job   each[0]
            job   each[1]
        > action_failed each[1] {"message": "no"}; attempt 1
            event action_retry each "no"
            retry each[1] 1 s
        > action_completed each[0] 1
            event iteration_completed each {"index": 0}
        > action_failed each[1] {"message": "no"}; attempt 1  (duplicate)
        > action_failed each[1] {"message": "still no"}; attempt 2
            event iteration_failed each "still no"
            dead  each[1]
            post  iterator_completed each
        > iterator_completed each [1, null]
            event step_completed each
            event execution_complete [1, null]
        """,
    )


def test_an_item_that_is_tried_again_may_complete() -> None:
    """A late success of an attempt that failed counts."""
    assert_story(
        each(f"type: python, code: x, {RETRY}", collection="[1]"),
        """
        > execution_start
            event step_started each
            event iterator_started each {"total": 1}
            event iteration_started each {"index": 0}
            job   each[0]
        > action_failed each[0] {"message": "no"}; attempt 1
            event action_retry each "no"
            retry each[0] 1 s
        > action_completed each[0] 5; attempt 1
            event iteration_completed each {"index": 0}
            post  iterator_completed each
        > action_completed each[0] 5; attempt 2  (duplicate)
        > iterator_completed each [5]
            event step_completed each
            event execution_complete [5]
        """,
    )


def test_a_child_of_an_item_is_started_again() -> None:
    """After its delay. What the earlier child answers counts no more."""
    assert_story(
        each(f'type: playbook, path: p, args: {{n: "{{{{ n }}}}"}}, {RETRY}', collection="[7]"),
        """
        > execution_start
            event step_started each
            event iterator_started each {"total": 1}
            event iteration_started each {"index": 0}
            child each[0] p {"n": 7}
        > execution_failed each[0] {"message": "no"}; attempt 1
            event action_retry each "no"
            delegated each[0] 1 s
        > execution_complete each[0] 1; attempt 1  (duplicate)
        > child_due each[0]; attempt 2
            child each[0] p {"n": 7}
        > child_due each[0]; attempt 2  (duplicate)
        > execution_failed each[0] {"message": "late"}; attempt 1  (duplicate)
        > execution_complete each[0] 8; attempt 2
            event iteration_completed each {"index": 0}
            post  iterator_completed each
        > child_due each[0]; attempt 2  (duplicate)
        > iterator_completed each [8]
            event step_completed each
            event execution_complete [8]
        """,
    )


def test_a_child_that_timed_out_is_cancelled_before_the_next_one() -> None:
    """The time limit of a task is that of one attempt of one item; other items keep their children."""
    assert_story(
        each(f"type: playbook, path: p, timeout: 5, {RETRY}"),
        """
        > execution_start
            event step_started each
            event iterator_started each {"total": 2}
            event iteration_started each {"index": 0}
            event iteration_started each {"index": 1}
            child each[0] p
            child each[1] p
        > action_failed each[1] {"message": "timeout", "type": "timeout"}; attempt 1
            event action_retry each "timeout"
            delegated each[1] 1 s
            cancel child of each[1]
        > child_due each[1]; attempt 2
            child each[1] p
        > execution_complete each[0] 1; attempt 1
            event iteration_completed each {"index": 0}
        """,
    )


def test_a_paused_execution_keeps_an_item_whose_child_is_due() -> None:
    """It starts the child when it runs on, once."""
    assert_story(
        each(f"type: playbook, path: p, {RETRY}", collection="[7]"),
        """
        > execution_start
            event step_started each
            event iterator_started each {"total": 1}
            event iteration_started each {"index": 0}
            child each[0] p
        > execution_failed each[0] {"message": "no"}; attempt 1
            event action_retry each "no"
            delegated each[0] 1 s
        > execution_pause
            event execution_paused
        > child_due each[0]; attempt 2
        > child_due each[0]; attempt 2  (duplicate)
        > execution_resume
            event execution_resumed
            child each[0] p
        > child_due each[0]; attempt 2  (duplicate)
        """,
    )


def test_conditions_of_a_retry_read_the_item_and_its_inputs() -> None:
    """They find the element and the inputs of the item beside the words of a retry."""
    keys = "max_attempts: 5, jitter: false"
    assert_story(
        each(
            'type: python, code: x, args: {m: "{{ n * 10 }}"}, '
            f"retry: {{{keys}, retry_when: \"{{{{ n == 2 and m == 20 and error_type == 'busy' and attempt < 2 }}}}\"}}",
            "on_error: continue",
        ),
        """
        > execution_start
            event step_started each
            event iterator_started each {"total": 2}
            event iteration_started each {"index": 0}
            event iteration_started each {"index": 1}
            job   each[0] {"m": 10}
            job   each[1] {"m": 20}
        > action_failed each[0] {"message": "no", "type": "busy"}; attempt 1
            event iteration_failed each "no"
            dead  each[0]
        > action_failed each[1] {"message": "no", "type": "busy"}; attempt 1
            event action_retry each "no"
            retry each[1] 1 s
        > action_failed each[1] {"message": "no", "type": "busy"}; attempt 2
            event iteration_failed each "no"
            event step_failed each "all 2 items failed; item 1: no"
            event execution_failed "all 2 items failed; item 1: no"
            dead  each[1]
            dead  each
            cancel items of each
            cancel all work
        """,
    )


def test_an_item_that_is_caught_counts_as_done() -> None:
    """With the result of the first entry that fits; its error stays in the event, and it is not listed as failed."""
    assert_story(
        each(
            "type: python, code: x, catch: [{when: \"{{ error.type == 'bad' }}\", "
            'result: {bad: "{{ n }}", why: "{{ error.message }}"}}]',
            collection="[1, 2, 3]",
            keys='on_error: continue\n  next: {step: tell, args: {failed: "{{ each.failed }}"}}',
        )
        + "- {step: tell, type: python, code: x}\n",
        """
        > execution_start
            event step_started each
            event iterator_started each {"total": 3}
            event iteration_started each {"index": 0}
            event iteration_started each {"index": 1}
            event iteration_started each {"index": 2}
            job   each[0]
            job   each[1]
            job   each[2]
        > action_failed each[0] {"message": "no", "type": "bad"}
            event iteration_completed each "no" {"bad": 1, "why": "no"}
            dead  each[0]
        > action_failed each[1] {"message": "gone", "type": "other"}
            event iteration_failed each "gone"
            dead  each[1]
        > action_completed each[2] 3
            event iteration_completed each {"index": 2}
            post  iterator_completed each
        > iterator_completed each [{"bad": 1, "why": "no"}, null, 3]
            event step_completed each
            event step_started tell
            job   tell {"failed": [{"error": {"step": "each", "type": "other", "message": "gone"}, "index": 1}]}
        """,
    )


def test_an_error_in_the_catch_of_an_item_fails_the_step() -> None:
    """A template error is never ignored, whatever `on_error` says."""
    assert_story(
        each('type: python, code: x, catch: {result: "{{ 1 / 0 }}"}', "on_error: continue"),
        """
        > execution_start
            event step_started each
            event iterator_started each {"total": 2}
            event iteration_started each {"index": 0}
            event iteration_started each {"index": 1}
            job   each[0]
            job   each[1]
        > action_failed each[1] {"message": "no"}
            event iteration_failed each "it divides by zero"
            event step_failed each "it divides by zero"
            event execution_failed "it divides by zero"
            dead  each[1]
            dead  each
            cancel items of each
            cancel all work
        """,
    )


def test_an_iterator_fails_once_too_many_items_have_failed() -> None:
    """At once; the rest is given up."""
    assert_story(
        each("type: python, code: x", "distribute: true\n  tolerate: 25%", "[1, 2, 3, 4]"),
        """
        > execution_start
            event step_started each
            event iterator_started each {"total": 4}
            event iteration_started each {"index": 0}
            event iteration_started each {"index": 1}
            event iteration_started each {"index": 2}
            event iteration_started each {"index": 3}
            job   each[0]
            job   each[1]
            job   each[2]
            job   each[3]
        > action_failed each[2] {"message": "no"}
            event iteration_failed each "no"
            dead  each[2]
        > action_failed each[0] {"message": "gone"}
            event iteration_failed each "gone"
            event step_failed each "2 of 4 items failed, and tolerate is 25%; item 0: gone"
            event execution_failed "2 of 4 items failed, and tolerate is 25%; item 0: gone"
            dead  each[0]
            dead  each
            cancel items of each
            cancel all work
        """,
    )


def test_an_iterator_that_tolerates_all_failures_completes_without_a_result() -> None:
    """Any other iterator all of whose items failed fails."""
    assert_story(
        each("type: python, code: x", "distribute: true\n  tolerate: 100%"),
        """
        > execution_start
            event step_started each
            event iterator_started each {"total": 2}
            event iteration_started each {"index": 0}
            event iteration_started each {"index": 1}
            job   each[0]
            job   each[1]
        > action_failed each[1] {"message": "no"}
            event iteration_failed each "no"
            dead  each[1]
        > action_failed each[0] {"message": "no"}
            event iteration_failed each "no"
            dead  each[0]
            post  iterator_completed each
        > iterator_completed each [null, null]
            event step_completed each
            event execution_complete [null, null]
        """,
    )


def test_the_state_does_not_grow_with_items_that_are_tried_again() -> None:
    """How often an item failed is in its row."""
    compiled = playbook(each(f"type: python, code: x, {RETRY}", "concurrency: 50", "'{{ range(50) | list }}'"))
    failures = [Event("action_failed", "each", 1, error={"message": "no"}, item_index=index) for index in range(50)]
    states = [state for _, _, state in play_turns(compiled, [Event("execution_start", context={}), *failures])]
    assert states[0].tokens == states[-1].tokens

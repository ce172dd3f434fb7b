"""A retry of an execution whose iterator failed: only the items that did not complete are run again."""

from __future__ import annotations

from textwrap import dedent

from noetl_broker.history.fork_plan import plan_fork
from noetl_broker.history.recovery_plan import plan_recovery
from noetl_broker.history.replay import replay_history
from tests.forks import fork_history, fork_story, history_of
from tests.stories import playbook

EACH = playbook("""
workload: {k: 1}
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: it}
- step: it
  type: iterator
  collection: "{{ a }}"
  element: n
  mode: async
  concurrency: 2
  task: {type: python, code: x, args: {n: "{{ n }}"}, retry: {max_attempts: 2, jitter: false}}
  next: end
- {step: end, result: "{{ it }}"}
""")
FAILED = """
> execution_start
> action_completed a ["p", "q", "r", "s", "t"]
> action_completed it[0] "P"
> action_failed it[1] {"message": "no"}; attempt 1
> action_completed it[2] "R"
> action_failed it[1] {"message": "no"}; attempt 2
"""


def test_a_retry_runs_the_items_again_that_did_not_complete() -> None:
    """Those that failed, were open, or had not begun; their attempts count anew. The step gathers all results."""
    source = history_of(EACH, FAILED)
    events = """
    > action_failed it[1] {"message": "no"}; attempt 1
    > action_completed it[3] "S"
    > action_completed it[1] "Q"; attempt 2
    > action_completed it[4] "T"
    > iterator_completed it ["P", "Q", "R", "S", "T"]
    """
    assert (
        fork_story(source, plan_recovery(source), events)
        == dedent("""
        > fork
            event step_started it
            event iterator_started it {"total": 5, "taken": 2}
            event iteration_started it {"index": 1}
            event iteration_started it {"index": 3}
            job   it[1] {"n": "q"}
            job   it[3] {"n": "s"}
        > action_failed it[1] {"message": "no"}; attempt 1
            event action_retry it "no"
            retry it[1] 1 s
        > action_completed it[3] "S"
            event iteration_completed it {"index": 3}
            event iteration_started it {"index": 4}
            job   it[4] {"n": "t"}
        > action_completed it[1] "Q"; attempt 2
            event iteration_completed it {"index": 1}
        > action_completed it[4] "T"
            event iteration_completed it {"index": 4}
            post  iterator_completed it
        > iterator_completed it ["P", "Q", "R", "S", "T"]
            event step_completed it
            event execution_complete ["P", "Q", "R", "S", "T"]
        """).strip()
    )


def test_a_retry_of_a_retry_keeps_the_items_of_both() -> None:
    """It takes over what the first one took over, and what that completed."""
    source = history_of(EACH, FAILED)
    again = """
    > action_completed it[1] "Q"
    > action_failed it[3] {"message": "no"}; not retryable
    """
    first = fork_history(source, plan_recovery(source), again)
    assert (
        fork_story(first, plan_recovery(first))
        == dedent("""
        > fork
            event step_started it
            event iterator_started it {"total": 5, "taken": 3}
            event iteration_started it {"index": 3}
            event iteration_started it {"index": 4}
            job   it[3] {"n": "s"}
            job   it[4] {"n": "t"}
        """).strip()
    )


def test_a_retry_with_items_is_replayed() -> None:
    """Also if an event about an item comes that was taken over."""
    source = history_of(EACH, FAILED)
    fork = fork_history(source, plan_recovery(source), '> action_completed it[0] "P"\n> action_completed it[1] "Q"')
    assert [turn.decision.outcome for turn in replay_history(fork)[0]] == ["decided", "duplicate", "decided"]


def test_a_fork_from_the_iterator_chooses_its_items_anew() -> None:
    """Only a retry takes items over."""
    source = history_of(EACH, FAILED)
    assert "items" not in plan_fork(source, "it").document["state"]["hold"]["kept"][0]
    retried = fork_history(source, plan_recovery(source))
    assert "items" not in plan_fork(retried, "it").document["state"]["hold"]["kept"][0]


def test_an_iterator_without_completed_items_begins_anew() -> None:
    """There is nothing to take over."""
    source = history_of(
        EACH, '> execution_start\n> action_completed a ["p"]\n> action_failed it[0] {"message": "no"}; not retryable'
    )
    assert "items" not in plan_recovery(source).document["state"]["hold"]["kept"][0]


def test_the_items_to_be_run_again_take_little_room() -> None:
    """A bit each."""
    story = "> execution_start\n> action_completed a [{}]\n{}\n> action_failed it[1] {{}}; not retryable"
    numbers = ", ".join(map(str, range(2_000)))
    ends = "\n".join(f"> action_completed it[{index}] 1" for index in (0, *range(2, 1_000)))
    source = history_of(EACH, story.format(numbers, ends))
    assert len(plan_recovery(source).document["state"]["hold"]["kept"][0]["items"]["again"]) == 500

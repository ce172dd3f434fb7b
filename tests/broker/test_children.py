"""Playbooks in playbooks: children, their answers, and another try."""

import pytest

from noetl_broker.broker.story import play_turns, read_events
from tests.stories import assert_story, playbook


def test_a_failed_child_is_started_again_after_a_pause() -> None:
    """By the step's own `retry`; its answer is the step's result, and its inputs are seen by `next`."""
    assert_story(
        """
        workload: {city: Rome}
        workflow:
        - {step: start, next: a}
        - step: a
          type: playbook
          path: examples/{{ workload.city }}
          version: 3
          return_step: fetch
          args: {city: "{{ workload.city }}"}
          retry: {max_attempts: 2, jitter: false}
          next: [{step: b, args: {t: "{{ a.temp }}", city: "{{ city }}"}}]
        - {step: b, type: python, code: x}
        """,
        """
        > execution_start
            event step_started a
            child a examples/Rome {"city": "Rome"}
        > action_failed a {"message": "child failed"}
            event action_retry a "child failed"
            delegated a 1 s
            abandon a
        > child_due a
            child a examples/Rome {"city": "Rome"}
        > child_due a  (duplicate)
        > child_due b  (not_open)
        > action_completed a {"temp": 3}
            event step_completed a
            event step_started b
            job   b {"t": 3, "city": "Rome"}
        """,
    )


@pytest.mark.parametrize("version", ["3", "{{ workload.quoted }}", "{{ workload.whole }}"])
def test_a_version_may_be_quoted(version: str) -> None:
    """As NoETL's own playbooks have it; what a template gives may be text too."""
    source = f"""
        workload: {{quoted: "3", whole: 3}}
        workflow:
        - {{step: start, next: a}}
        - {{step: a, type: playbook, path: p, version: "{version}"}}
        """
    [(_, decision, _)] = play_turns(playbook(source), read_events("> execution_start"))
    assert [(child.path, child.version) for child in decision.children] == [("p", 3)]


def test_a_step_waits_for_its_childs_answer() -> None:
    """Success or failure, as of any action; `on_error` decides as for any."""
    assert_story(
        """
        workflow:
        - {step: start, next: a}
        - {step: a, type: playbook, path: p, on_error: continue, next: b}
        - {step: b, type: playbook, path: q, args: {x: "{{ a.status }}"}}
        """,
        """
        > execution_start
            event step_started a
            child a p
        > action_failed a {"message": "no such playbook"}
            event step_failed a "no such playbook"
            event step_started b
            child b q {"x": "FAILED"}
            dead  a
            abandon a
        > action_completed b {"n": 1}
            event step_completed b
            event execution_complete {"n": 1}
        """,
    )


def test_what_the_broker_finds_wrong_with_the_childrens_results_fails_the_step() -> None:
    """The worker has answered; nobody else would ever move the step again."""
    assert_story(
        """
        workflow:
        - {step: start, next: fan}
        - {step: fan, type: python, code: x, retry: 3, next: end}
        - {step: end}
        """,
        """
        > execution_start
            event step_started fan
            job   fan
        > iteration_started fan {"child_execution_id": 71}
            waits fan[0] child 71
        > action_completed fan
        > execution_complete fan[0] "a"
            event iteration_completed fan {"index": 0}
            post  iterator_completed fan
        > action_failed fan {"message": "they are too many"}; not retryable
            event step_failed fan "they are too many"
            event execution_failed "they are too many"
            dead  fan
            abandon fan
            withdraw
        """,
    )


def test_a_step_waits_for_the_children_that_its_worker_started() -> None:
    """When the worker is done and the last child has ended, the step completes with their results by index."""
    assert_story(
        """
        workflow:
        - {step: start, next: fan}
        - {step: fan, type: python, code: "def main(): pass", next: end}
        - {step: end, result: "{{ fan }}"}
        """,
        """
        > execution_start
            event step_started fan
            job   fan
        > iteration_started fan {"child_execution_id": 71, "index": 0}
            waits fan[0] child 71
        > iteration_started fan {"child_execution_id": "72", "index": 1}
            waits fan[1] child 72
        > iteration_started fan {"child_execution_id": 73, "index": 1}  (duplicate)
        > execution_complete fan[1] "b"
            event iteration_completed fan {"index": 1}
        > action_completed fan {"started": 2}
        > action_completed fan {"started": 2}  (duplicate)
        > action_failed fan {"message": "late"}; beside its job  (duplicate)
        > execution_complete fan[0] "a"
            event iteration_completed fan {"index": 0}
            post  iterator_completed fan
        > execution_complete fan[0] "a"  (duplicate)
        > iterator_completed fan ["a", "b"]
            event step_completed fan
            event execution_complete ["a", "b"]
        > iteration_started fan {"child_execution_id": 74}  (after_end)
        """,
    )


def test_a_child_without_a_place_has_the_one_above_all_that_are_taken() -> None:
    """However many there are, and wherever: one that is told of again has its place already."""
    assert_story(
        """
        workflow:
        - {step: start, next: fan}
        - {step: fan, type: python, code: "def main(): pass", next: end}
        - {step: end, result: "{{ fan }}"}
        """,
        """
        > execution_start
            event step_started fan
            job   fan
        > iteration_started fan {"child_execution_id": 71, "index": 1}
            waits fan[1] child 71
        > iteration_started fan {"child_execution_id": 72}
            waits fan[2] child 72
        > iteration_started fan {"child_execution_id": 73, "index": 0}
            waits fan[0] child 73
        > iteration_started fan {"child_execution_id": 72}  (duplicate)
        > iteration_started fan {"child_execution_id": 73, "index": 7}  (duplicate)
        > iteration_started fan {"child_execution_id": 74}
            waits fan[3] child 74
        > iteration_started fan {"child_execution_id": 75, "index": 1000000}
            waits fan[1000000] child 75
        > iteration_started fan {"child_execution_id": 76}
            waits fan[1000001] child 76
        > iteration_started fan {"child_execution_id": 77, "index": 2147483647}
            waits fan[1000002] child 77
        """,
    )


def test_an_iteration_without_a_child_is_a_note_of_the_worker() -> None:
    """Nothing waits for it; nor does a step that the broker runs itself wait for a stranger's child."""
    assert_story(
        """
        workflow:
        - {step: start, next: [fan, sub]}
        - {step: fan, type: python, code: "def main(): pass"}
        - {step: sub, type: playbook, path: p}
        """,
        """
        > execution_start
            event step_started fan
            event step_started sub
            job   fan
            child sub p
        > iteration_started fan {"index": 0}  (recorded)
        > iteration_started fan {"child_execution_id": "x", "index": 0}  (recorded)
        > iteration_started sub {"child_execution_id": 7, "index": 0}  (recorded)
        > iteration_started nowhere {"child_execution_id": 7, "index": 0}  (unknown_step)
        > action_completed fan 1
            event step_completed fan
        > iteration_started fan {"child_execution_id": 7, "index": 0}  (duplicate)
        """,
    )


def test_a_failed_child_of_a_worker_fails_the_step() -> None:
    """Its other children are given up, and the worker's answer comes too late."""
    assert_story(
        """
        workflow:
        - {step: start, next: fan}
        - {step: fan, type: python, code: "def main(): pass", retry: 3}
        """,
        """
        > execution_start
            event step_started fan
            job   fan
        > iteration_started fan {"child_execution_id": 71, "index": 0}
            waits fan[0] child 71
        > execution_failed fan[0] {"message": "no"}
            event iteration_failed fan "no"
            event step_failed fan "no"
            event execution_failed "no"
            dead  fan
            abandon fan
            withdraw
        > action_completed fan {}  (after_end)
        """,
    )


def test_a_worker_iterates_over_children_that_may_fail() -> None:
    """With `on_error: continue` on an iterator that a worker iterates, a failed child's place holds null."""
    assert_story(
        """
        workflow:
        - {step: start, next: each}
        - step: each
          type: iterator
          collection: [1, 2]
          element: n
          on_error: continue
          task: {type: python, code: "def main(n): pass", args: {n: "{{ n }}"}}
        """,
        """
        > execution_start
            event step_started each
            job   each
        > iteration_started each {"child_execution_id": 71}
            waits each[0] child 71
        > iteration_started each {"child_execution_id": 72}
            waits each[1] child 72
        > action_completed each {}
        > execution_failed each[0] {"message": "no"}
            event iteration_failed each "no"
        > execution_complete each[1] 2
            event iteration_completed each {"index": 1}
            post  iterator_completed each
        > iterator_completed each [null, 2]
            event step_completed each
            event execution_complete [null, 2]
        """,
    )

"""Child executions: answers, retries, and children that a worker starts."""

import pytest

from noetl_broker.broker.model.effects import ChildStarted
from noetl_broker.history.story import play_turns, read_events
from tests.stories import assert_story, playbook


def test_a_failed_child_is_started_again_after_a_delay() -> None:
    """The `retry` of the step counts. The answer is its result, and `next` reads its inputs."""
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
            cancel items of a
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
def test_the_version_of_a_child_may_be_text(version: str) -> None:
    """Playbooks of NoETL quote it, and a template may give text."""
    source = f"""
        workload: {{quoted: "3", whole: 3}}
        workflow:
        - {{step: start, next: a}}
        - {{step: a, type: playbook, path: p, version: "{version}"}}
        """
    [(_, decision, _)] = play_turns(playbook(source), read_events("> execution_start"))
    assert [(child.path, child.version) for child in decision.of(ChildStarted)] == [("p", 3)]


def test_too_large_results_of_children_fail_the_step() -> None:
    """The worker has already answered, so nothing else would end the step."""
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
            cancel items of fan
            cancel all work
        """,
    )


def test_a_step_waits_for_the_children_that_its_worker_started() -> None:
    """It completes after the worker and the last child, with results by index."""
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


def test_a_child_without_an_index_gets_the_next_one() -> None:
    """A child that is reported twice keeps its index."""
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


def test_an_iteration_started_without_a_child_is_only_recorded() -> None:
    """A step that the broker runs does not wait for a foreign child."""
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
    """Its other children are cancelled, and the answer of the worker is late."""
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
            cancel items of fan
            cancel all work
        > action_completed fan {}  (after_end)
        """,
    )


def test_a_block_is_a_child_of_the_same_version() -> None:
    """Version 0 says so. Its path is that of the playbook and the step."""
    source = """
        workflow:
        - {step: start, next: a}
        - {step: a, type: playbook, args: {n: 1}, workflow: [{step: start}]}
        """
    [(_, decision, _)] = play_turns(playbook(source), read_events("> execution_start"))
    assert [(child.path, child.version, child.payload) for child in decision.of(ChildStarted)] == [
        ("story#a", 0, {"n": 1})
    ]

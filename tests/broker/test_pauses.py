"""Pause and resume: what an execution that does not run keeps, and what it does when it runs on."""

from __future__ import annotations

import pytest

from noetl_broker.broker.model.rules import Rules
from noetl_broker.broker.state.state import PAUSED, decode, encode
from noetl_broker.history.story import play_turns, read_events
from tests.stories import assert_story, dedented, playbook

CHAIN = """
    workflow:
      - {step: start, next: [a, b]}
      - {step: a, type: python, code: "def main(): ...", next: join}
      - {step: b, type: python, code: "def main(): ...", next: join}
      - {step: join, type: python, code: "def main(): ...", next: end}
      - {step: end}
"""
FAILING = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: python, code: "def main(): ...", retry: {max_attempts: 2, jitter: false}, next: end}
      - {step: end}
"""
CHILD = """
    workflow:
      - {step: start, next: call}
      - {step: call, type: playbook, path: other, retry: {max_attempts: 2, jitter: false}, next: end}
      - {step: end}
"""
ITEMS = """
    workflow:
      - {step: start, next: each}
      - step: each
        type: iterator
        collection: [1, 2, 3]
        element: n
        task: {type: python, code: "def main(): ...", args: {n: "{{ n }}"}}
        distribute: true
        next: end
      - {step: end}
"""


def test_a_paused_execution_keeps_arrivals_and_delivers_them_in_order() -> None:
    """No step is entered and no join is released before the resume."""
    assert_story(
        CHAIN,
        """
        > execution_start
            event step_started a
            event step_started b
            job   a
            job   b
        > execution_pause {"reason": "disk full"}
            event execution_paused {"reason": "disk full"}
        > action_completed b {"n": 2}
            event step_completed b
        > action_completed a {"n": 1}
            event step_completed a
        > execution_resume
            event execution_resumed
            event step_started join
            job   join
        > action_completed join 3
            event step_completed join
            event execution_complete 3
        """,
    )


def test_no_item_starts_while_the_execution_is_paused() -> None:
    """The next items start at the resume; the results are gathered at any time."""
    assert_story(
        ITEMS,
        """
        > execution_start
            event step_started each
            event iterator_started each {"total": 3}
            event iteration_started each {"index": 0}
            job   each[0] {"n": 1}
        > execution_pause
            event execution_paused
        > action_completed each[0] 1
            event iteration_completed each {"index": 0}
        > execution_resume
            event execution_resumed
            event iteration_started each {"index": 1}
            job   each[1] {"n": 2}
        > action_completed each[1] 2
            event iteration_completed each {"index": 1}
            event iteration_started each {"index": 2}
            job   each[2] {"n": 3}
        > execution_pause
            event execution_paused
        > action_completed each[2] 3
            event iteration_completed each {"index": 2}
            post  iterator_completed each
        > iterator_completed each [1, 2, 3]
            event step_completed each
        > execution_resume
            event execution_resumed
            event execution_complete [1, 2, 3]
        """,
    )


def test_a_child_that_is_due_starts_at_the_resume() -> None:
    """Once, also where it is due twice."""
    assert_story(
        CHILD,
        """
        > execution_start
            event step_started call
            child call other
        > action_failed call {"message": "no"}
            event action_retry call "no"
            delegated call 1 s
            cancel items of call
        > execution_pause
            event execution_paused
        > child_due call
        > child_due call
        > execution_resume
            event execution_resumed
            child call other
        > child_due call  (duplicate)
        """,
    )


def test_a_second_pause_and_a_second_resume_are_recorded() -> None:
    """They change nothing."""
    assert_story(
        FAILING,
        """
        > execution_start
            event step_started a
            job   a
        > execution_pause; number 1
            event execution_paused
        > execution_pause; number 1  (recorded)
        > execution_pause  (recorded)
        > execution_pause; number 2
        > execution_resume; number 3
            event execution_resumed
        > execution_resume; number 3  (recorded)
        > execution_resume  (recorded)
        """,
    )


def test_a_pause_that_is_read_after_its_resume_is_late() -> None:
    """A claim may read the newest mail first."""
    assert_story(
        FAILING,
        """
        > execution_start
            event step_started a
            job   a
        > execution_resume; number 2
        > execution_pause; number 1  (recorded)
        > execution_pause; number 3
            event execution_paused
        """,
    )


def test_a_resume_before_the_last_pause_is_late() -> None:
    """Also if that pause was read first, by an execution that was paused already."""
    assert_story(
        FAILING,
        """
        > execution_start
            event step_started a
            job   a
        > execution_pause; number 1
            event execution_paused
        > execution_pause; number 3
        > execution_resume; number 2  (recorded)
        > execution_resume; number 4
            event execution_resumed
        """,
    )


def test_an_execution_paused_by_itself_stays_paused_when_its_parent_resumes() -> None:
    """A resume of its own ends every pause."""
    assert_story(
        FAILING,
        """
        > execution_start
            event step_started a
            job   a
        > execution_pause {"parent_execution_id": 7}; number 1
            event execution_paused {"parent_execution_id": 7}
        > execution_pause; number 1
        > execution_resume {"parent_execution_id": 7}; number 2
        > execution_resume {"parent_execution_id": 7}; number 3
        > execution_resume {"parent_execution_id": 7}; number 3  (recorded)
        > execution_resume; number 2
            event execution_resumed
        > execution_pause {"parent_execution_id": 7}; number 4
            event execution_paused {"parent_execution_id": 7}
        > execution_resume {"parent_execution_id": 7}; number 5
            event execution_resumed
        """,
    )


def test_a_start_of_a_paused_path_is_queued_until_a_slot_is_free() -> None:
    """The workload is rendered, and nothing is entered."""
    assert_story(
        FAILING,
        """
        > execution_start; path paused
            event execution_queued {"reason": "new executions of playbook story are paused"}
        > execution_deadline  (recorded)
        > place_free
            event execution_admitted
            event step_started a
            job   a
        > place_free  (recorded)
        """,
        metadata="deadline: 60",
    )


def test_a_queued_execution_that_was_paused_is_queued_again() -> None:
    """A free slot does not end the pause."""
    assert_story(
        FAILING,
        """
        > execution_start; path paused
            event execution_queued {"reason": "new executions of playbook story are paused"}
        > execution_pause
            event execution_paused
        > place_free  (recorded)
        > execution_resume
            event execution_resumed
        > place_free
            event execution_admitted
            event step_started a
            job   a
        """,
    )


def test_a_start_with_a_moment_waits_for_it_and_then_joins_the_line() -> None:
    """Its `place_free` asks the store for admission; the next one admits it. Its deadline counts from there."""
    assert_story(
        FAILING,
        """
        > execution_start; starts 60
            event execution_queued {"reason": "starts at 2026-01-01T00:01:00.000000Z"}
        > execution_deadline  (recorded)
        > place_free
        > place_free
            event execution_admitted
            event step_started a
            job   a
        """,
        metadata="deadline: 60",
    )


def test_a_resume_does_not_start_before_the_moment() -> None:
    """If the moment comes in the pause, the resume queues it as any other; a moment that is over delays nothing."""
    assert_story(
        FAILING,
        """
        > execution_start; starts 60
            event execution_queued {"reason": "starts at 2026-01-01T00:01:00.000000Z"}
        > execution_pause
            event execution_paused
        > execution_resume
            event execution_resumed
        > execution_pause
            event execution_paused
        > place_free
        > execution_resume
            event execution_resumed
        > place_free
            event execution_admitted
            event step_started a
            job   a
        """,
    )
    assert_story(FAILING, "> execution_start; starts 0\n    event step_started a\n    job   a")


@pytest.mark.parametrize("body", [CHAIN, ITEMS])
def test_the_state_of_a_paused_execution_survives_its_json(body: str) -> None:
    """With what is kept and due."""
    events = {
        CHAIN: '> execution_start\n> execution_pause; number 4\n> action_completed a {"n": 1}',
        ITEMS: "> execution_start\n> execution_pause\n> action_completed each[0] 1",
    }[body]
    *_, (_, _, state) = play_turns(playbook(body), read_events(dedented(events)))
    assert (state.status, decode(encode(state))) == (PAUSED, state)
    assert "hold" in encode(state)


def test_kept_transitions_count_for_the_turn_that_took_them() -> None:
    """A resume delivers more arrivals than max_fan_out allows one turn."""
    arms = [f"a{number}" for number in range(6)]
    steps = "\n".join(f"      - {{step: {arm}, type: python, code: 'def main(): ...', next: [b, c]}}" for arm in arms)
    body = f"""
    workflow:
      - {{step: start, next: [{", ".join(arms)}]}}
{steps}
      - {{step: b, join: each, type: python, code: "def main(): ..."}}
      - {{step: c, join: each, type: python, code: "def main(): ..."}}
"""
    events = "\n".join(["> execution_start", "> execution_pause", *(f"> action_completed {arm} 1" for arm in arms)])
    *_, (_, decision, state) = play_turns(
        playbook(body), read_events(events + "\n> execution_resume"), rules=Rules(max_fan_out=8)
    )
    assert (state.status, len(decision.jobs)) == ("RUNNING", 12)


@pytest.mark.parametrize(
    "event, ends",
    [
        (
            '> action_failed a {"message": "no"}',
            'event step_failed a "no"\n            event execution_failed "no"\n            dead  a',
        ),
        ("> execution_cancel", 'event execution_cancelled "cancelled"'),
        ("> execution_deadline", 'event execution_failed "the deadline of 60 s passed"'),
    ],
)
def test_failure_cancel_and_deadline_are_not_held(event: str, ends: str) -> None:
    """Nor a retry: a pause holds what would begin."""
    assert_story(
        FAILING,
        f"""
        > execution_start
            event step_started a
            job   a
        > execution_pause
            event execution_paused
        > action_failed a {{"message": "no"}}
            event action_retry a "no"
            retry a 1 s
        {event}
            {ends}
            cancel all work
        > execution_resume  (after_end)
        > execution_pause  (after_end)
        """,
        metadata="deadline: 60",
    )

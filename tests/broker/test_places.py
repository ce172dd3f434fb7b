"""Places: executions of one key that run, wait, are skipped, fail, or replace each other."""

from __future__ import annotations

import pytest

from noetl_broker.broker.core import Session
from noetl_broker.broker.model.effects import PlacesChanged
from noetl_broker.broker.model.event import Event
from noetl_broker.broker.state.state import decode, encode
from noetl_broker.history.story import STORY_START, play_turns, read_events
from tests.stories import assert_story, playbook

JOB = """
    workload: {customer: 7}
    workflow:
      - {step: start, next: a}
      - {step: a, type: python, code: "def main(): ...", next: end}
      - {step: end}
"""


def limit(rest: str = "") -> str:
    """Return the metadata of a playbook with a limit for each customer."""
    return f'concurrency: {{key: "{{{{ workload.customer }}}}"{rest}}}'


def test_an_execution_with_a_free_place_runs_and_frees_it_at_its_end() -> None:
    """The story has no line for a place: the facts of the turn have it."""
    assert_story(
        JOB,
        """
        > execution_start; place free
            event step_started a
            job   a
        > action_completed a 1
            event step_completed a
            event execution_complete 1
        """,
        metadata=limit(),
    )


def test_an_execution_without_a_free_place_is_queued_until_it_gets_one() -> None:
    """`queue` is the default. Only a `place_free` that brings the place admits it."""
    assert_story(
        JOB,
        """
        > execution_start; place busy
            event execution_queued {"reason": "waits for a place: customer 7"}
        > place_free  (recorded)
        > place_free; given
            event execution_admitted
            event step_started a
            job   a
        > place_free; given  (recorded)
        """,
        metadata=limit(),
    )


@pytest.mark.parametrize(
    "word, lines",
    [
        ("skip", 'execution_cancelled "skipped: no place is free: customer 7"'),
        ("fail", 'execution_failed "no place is free: customer 7"'),
    ],
)
def test_on_limit_may_end_the_execution_at_once(word: str, lines: str) -> None:
    """No step begins."""
    assert_story(
        JOB, f"> execution_start; place busy\n    event {lines}\n    withdraw", metadata=limit(f", on_limit: {word}")
    )


def test_cancel_running_queues_the_newcomer() -> None:
    """The store tells the old one to cancel; the newcomer is admitted when that has ended."""
    told = [
        *play_turns(
            playbook(JOB, metadata=limit(", on_limit: cancel_running")), read_events("> execution_start; place busy")
        )
    ]
    change = told[0][1].last(PlacesChanged)
    assert change is not None
    assert (change.what, change.places) == ("waiting", (("story", "7", 1, "cancel_running", 1, "customer"),))


def test_a_key_that_fails_fails_the_execution() -> None:
    """It names the template."""
    metadata = 'concurrency: {key: "{{ workload.nothing }}"}'
    [(_, decision, _)] = play_turns(playbook(JOB, metadata=metadata), read_events("> execution_start"))
    assert decision.ended is not None
    assert decision.ended.error == {
        "message": "`workload.nothing` is undefined: there is no such key in a mapping",
        "template": "{{ workload.nothing }}",
        "at": "metadata.concurrency.key",
    }


@pytest.mark.parametrize("customer", ["null", "[1]", '""'])
def test_a_key_is_a_text_a_number_or_a_boolean(customer: str) -> None:
    """Anything else fails the execution."""
    [(_, decision, state)] = play_turns(
        playbook(JOB, metadata=limit()), read_events(f'> execution_start {{"customer": {customer}}}')
    )
    assert decision.ended is not None
    assert decision.ended.error is not None
    assert (state.status, decision.ended.error["message"]) == (
        "FAILED",
        f"`key` must be a text of 1 to 1024 bytes, a number or a boolean, it is {customer}",
    )


def test_a_shared_place_is_neither_held_nor_freed() -> None:
    """An ancestor holds it."""
    [(_, _, state), (_, end, _)] = play_turns(
        playbook(JOB, metadata=limit()), read_events("> execution_start; place shared\n> action_completed a 1")
    )
    assert (state.places, end.last(PlacesChanged)) == ((), None)


def test_a_place_is_kept_while_the_execution_is_paused() -> None:
    """It runs on with it."""
    assert_story(
        JOB,
        """
        > execution_start; place free
            event step_started a
            job   a
        > execution_pause
            event execution_paused
        > place_free; given  (recorded)
        > execution_resume
            event execution_resumed
        """,
        metadata=limit(),
    )


def test_a_queued_execution_that_is_paused_gives_a_place_back_and_asks_again() -> None:
    """It has its old number."""
    body, story = (
        JOB,
        (
            """
        > execution_start; place busy
            event execution_queued {"reason": "waits for a place: customer 7"}
        > execution_pause
            event execution_paused
        > place_free; given
        > execution_resume; place busy
            event execution_resumed
            event execution_queued {"reason": "waits for a place: customer 7"}
        > execution_pause
            event execution_paused
        > execution_resume; place free
            event execution_resumed
            event execution_admitted
            event step_started a
            job   a
        """
        ),
    )
    assert_story(body, story, metadata=limit())
    turns = [*play_turns(playbook(body, metadata=limit()), read_events(story))]
    assert [[change.what for change in decision.of(PlacesChanged)] for _, decision, _ in turns] == [
        ["waiting"], [], ["returned"], ["waiting"], [], ["held"],
    ]  # fmt: skip


def test_an_execution_that_is_skipped_when_it_is_resumed_gives_its_numbers_up() -> None:
    """The place of its schedule was free at its start; another execution has got it since."""
    story = """
        > execution_start; overlap nightly skip, place free, place busy
            event execution_queued {"reason": "waits for a place: customer 7"}
        > execution_pause
            event execution_paused
        > execution_resume; place busy, place busy
            event execution_resumed
            event execution_cancelled "skipped: no place is free: schedule nightly"
            withdraw
        """
    assert_story(JOB, story, metadata=limit())
    turns = [*play_turns(playbook(JOB, metadata=limit()), read_events(story))]
    changes = [decision.last(PlacesChanged) for _, decision, _ in turns]
    assert [change and (change.what, len(change.places)) for change in changes] == [("waiting", 2), None, ("freed", 2)]
    assert turns[-1][2].places == ()


def test_a_queued_execution_that_is_cancelled_gives_its_number_up() -> None:
    """Nothing of it ran."""
    turns = [
        *play_turns(playbook(JOB, metadata=limit()), read_events("> execution_start; place busy\n> execution_cancel"))
    ]
    change = turns[-1][1].last(PlacesChanged)
    assert change is not None
    assert (turns[-1][2].status, turns[-1][2].places, change.what) == ("CANCELLED", (), "freed")


def test_an_execution_of_a_paused_playbook_asks_when_it_is_admitted() -> None:
    """It had no number before."""
    assert_story(
        JOB,
        """
        > execution_start; path paused
            event execution_queued {"reason": "new executions of playbook story are paused"}
        > place_free; place busy
            event execution_queued {"reason": "waits for a place: customer 7"}
        > place_free; given
            event execution_admitted
            event step_started a
            job   a
        """,
        metadata=limit(),
    )


def test_a_start_of_a_schedule_takes_the_place_of_the_schedule_first() -> None:
    """It is queued until both are free."""
    assert_story(
        JOB,
        """
        > execution_start; overlap nightly queue, place free, place busy
            event execution_queued {"reason": "waits for a place: customer 7"}
        """,
        metadata=limit(),
    )
    assert_story(
        JOB,
        """
        > execution_start; overlap nightly skip, place busy, place busy
            event execution_cancelled "skipped: no place is free: schedule nightly"
            withdraw
        """,
        metadata=limit(),
    )


def test_a_schedule_that_allows_overlap_asks_for_no_place() -> None:
    """Nor does its playbook."""
    [(_, _, state)] = play_turns(playbook(JOB), read_events("> execution_start; overlap nightly allow"))
    assert state.places == ()


def test_the_youngest_of_a_ring_fails() -> None:
    """Nobody else can end it."""
    assert_story(
        JOB,
        """
        > execution_start; place busy
            event execution_queued {"reason": "waits for a place: customer 7"}
        > place_ring {"executions": [5, 1]}
            event execution_failed "a ring of executions waits for places: this one for customer 7, with it 5"
            withdraw
        > place_ring {"executions": [5, 1]}  (after_end)
        """,
        metadata=limit(),
    )


def test_the_places_survive_the_store() -> None:
    """Encode and decode are inverse."""
    [(_, _, state)] = play_turns(playbook(JOB, metadata=limit()), read_events("> execution_start; place busy"))
    assert state.places == (("story", "7", 1, "queue", 1, "customer"),)
    assert decode(encode(state)) == state


def test_a_playbook_without_a_key_counts_all_its_executions() -> None:
    """A singleton."""
    assert_story(
        JOB,
        """
        > execution_start; place busy
            event execution_queued {"reason": "waits for a place: playbook story"}
        """,
        metadata="concurrency: {limit: 3}",
    )


def test_a_cancel_frees_the_place_also_where_the_playbook_is_gone() -> None:
    """The next one gets it."""
    [(_, _, running)] = play_turns(playbook(JOB, metadata=limit()), read_events("> execution_start; place free"))
    session = Session("its playbook is not in the catalog", after=(running, 1))
    decision = session.apply(Event("execution_cancel"), STORY_START)
    [change] = decision.of(PlacesChanged)
    assert (session.state.status, session.state.places, change.what) == ("CANCELLED", (), "freed")


@pytest.mark.parametrize("word", ["skip", "fail", "cancel_running"])
def test_a_fork_is_queued_whatever_on_limit_says(word: str) -> None:
    """A person asked for it."""
    fork = {"execution_id": 5, "turn": 1, "total": 0, "results": [], "visits": {}, "enter": []}
    meta = {"fork": fork | {"arrive": [{"arc": -1, "step": "start", "result": None}]}}
    start = Event("execution_start", context={"workload": {}}, meta=meta, places=[{"free": False, "number": 1}])
    session = Session(playbook(JOB, metadata=limit(f", on_limit: {word}")))
    decision = session.apply(start, STORY_START)
    [change] = decision.of(PlacesChanged)
    assert (session.state.status, change.places[0].on_limit) == ("QUEUED", "queue")

"""Slots: executions of one key that run, wait, are skipped, fail, or replace each other."""

from __future__ import annotations

import pytest

from noetl_broker.broker.core import Session
from noetl_broker.broker.model.effects import SlotsChanged
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


def test_an_execution_with_a_free_slot_runs_and_frees_it_at_its_end() -> None:
    """The story has no line for a slot: the facts of the turn have it."""
    assert_story(
        JOB,
        """
        > execution_start; slot free
            event step_started a
            job   a
        > action_completed a 1
            event step_completed a
            event execution_complete 1
        """,
        metadata=limit(),
    )


def test_an_execution_without_a_free_slot_is_queued_until_it_gets_one() -> None:
    """`queue` is the default. Only a `place_free` that brings the slot admits it."""
    assert_story(
        JOB,
        """
        > execution_start; slot busy
            event execution_queued {"reason": "waits for a slot: customer 7"}
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
        ("skip", 'execution_cancelled "skipped: no slot is free: customer 7"'),
        ("fail", 'execution_failed "no slot is free: customer 7"'),
    ],
)
def test_on_limit_may_end_the_execution_at_once(word: str, lines: str) -> None:
    """No step begins."""
    assert_story(
        JOB,
        f"> execution_start; slot busy\n    event {lines}\n    cancel all work",
        metadata=limit(f", on_limit: {word}"),
    )


def test_cancel_running_queues_the_newcomer() -> None:
    """The store tells the old one to cancel; the newcomer is admitted when that has ended."""
    told = [
        *play_turns(
            playbook(JOB, metadata=limit(", on_limit: cancel_running")), read_events("> execution_start; slot busy")
        )
    ]
    change = told[0][1].last(SlotsChanged)
    assert change is not None
    assert (change.what, change.slots) == ("waiting", (("story", "7", 1, "cancel_running", 1, "customer"),))


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


def test_a_shared_slot_is_neither_held_nor_freed() -> None:
    """An ancestor holds it."""
    [(_, _, state), (_, end, _)] = play_turns(
        playbook(JOB, metadata=limit()), read_events("> execution_start; slot shared\n> action_completed a 1")
    )
    assert (state.slots, end.last(SlotsChanged)) == ((), None)


def test_a_slot_is_kept_while_the_execution_is_paused() -> None:
    """It runs on with it."""
    assert_story(
        JOB,
        """
        > execution_start; slot free
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


def test_a_queued_execution_that_is_paused_gives_a_slot_back_and_asks_again() -> None:
    """It has its old number."""
    body, story = (
        JOB,
        (
            """
        > execution_start; slot busy
            event execution_queued {"reason": "waits for a slot: customer 7"}
        > execution_pause
            event execution_paused
        > place_free; given
        > execution_resume; slot busy
            event execution_resumed
            event execution_queued {"reason": "waits for a slot: customer 7"}
        > execution_pause
            event execution_paused
        > execution_resume; slot free
            event execution_resumed
            event execution_admitted
            event step_started a
            job   a
        """
        ),
    )
    assert_story(body, story, metadata=limit())
    turns = [*play_turns(playbook(body, metadata=limit()), read_events(story))]
    assert [[change.what for change in decision.of(SlotsChanged)] for _, decision, _ in turns] == [
        ["waiting"], [], ["returned"], ["waiting"], [], ["held"],
    ]  # fmt: skip


def test_an_execution_that_is_skipped_when_it_is_resumed_gives_its_numbers_up() -> None:
    """The slot of its schedule was free at its start; another execution has got it since."""
    story = """
        > execution_start; overlap nightly skip, slot free, slot busy
            event execution_queued {"reason": "waits for a slot: customer 7"}
        > execution_pause
            event execution_paused
        > execution_resume; slot busy, slot busy
            event execution_resumed
            event execution_cancelled "skipped: no slot is free: schedule nightly"
            cancel all work
        """
    assert_story(JOB, story, metadata=limit())
    turns = [*play_turns(playbook(JOB, metadata=limit()), read_events(story))]
    changes = [decision.last(SlotsChanged) for _, decision, _ in turns]
    assert [change and (change.what, len(change.slots)) for change in changes] == [("waiting", 2), None, ("freed", 2)]
    assert turns[-1][2].slots == ()


def test_a_queued_execution_that_is_cancelled_gives_its_number_up() -> None:
    """Nothing of it ran."""
    turns = [
        *play_turns(playbook(JOB, metadata=limit()), read_events("> execution_start; slot busy\n> execution_cancel"))
    ]
    change = turns[-1][1].last(SlotsChanged)
    assert change is not None
    assert (turns[-1][2].status, turns[-1][2].slots, change.what) == ("CANCELLED", (), "freed")


def test_an_execution_of_a_paused_playbook_asks_when_it_is_admitted() -> None:
    """It had no number before."""
    assert_story(
        JOB,
        """
        > execution_start; path paused
            event execution_queued {"reason": "new executions of playbook story are paused"}
        > place_free; slot busy
            event execution_queued {"reason": "waits for a slot: customer 7"}
        > place_free; given
            event execution_admitted
            event step_started a
            job   a
        """,
        metadata=limit(),
    )


def test_a_start_of_a_schedule_takes_the_slot_of_the_schedule_first() -> None:
    """It is queued until both are free."""
    assert_story(
        JOB,
        """
        > execution_start; overlap nightly queue, slot free, slot busy
            event execution_queued {"reason": "waits for a slot: customer 7"}
        """,
        metadata=limit(),
    )
    assert_story(
        JOB,
        """
        > execution_start; overlap nightly skip, slot busy, slot busy
            event execution_cancelled "skipped: no slot is free: schedule nightly"
            cancel all work
        """,
        metadata=limit(),
    )


def test_a_schedule_that_allows_overlap_asks_for_no_slot() -> None:
    """Nor does its playbook."""
    [(_, _, state)] = play_turns(playbook(JOB), read_events("> execution_start; overlap nightly allow"))
    assert state.slots == ()


def test_the_slots_survive_the_store() -> None:
    """Encode and decode are inverse."""
    [(_, _, state)] = play_turns(playbook(JOB, metadata=limit()), read_events("> execution_start; slot busy"))
    assert state.slots == (("story", "7", 1, "queue", 1, "customer"),)
    assert decode(encode(state)) == state


def test_a_playbook_without_a_key_counts_all_its_executions() -> None:
    """A singleton."""
    assert_story(
        JOB,
        """
        > execution_start; slot busy
            event execution_queued {"reason": "waits for a slot: playbook story"}
        """,
        metadata="concurrency: {limit: 3}",
    )


def test_a_cancel_frees_the_slot_also_where_the_playbook_is_gone() -> None:
    """The next one gets it."""
    [(_, _, running)] = play_turns(playbook(JOB, metadata=limit()), read_events("> execution_start; slot free"))
    session = Session("its playbook is not in the catalog", after=(running, 1))
    decision = session.apply(Event("execution_cancel"), STORY_START)
    [change] = decision.of(SlotsChanged)
    assert (session.state.status, session.state.slots, change.what) == ("CANCELLED", (), "freed")


@pytest.mark.parametrize("word", ["skip", "fail", "cancel_running"])
def test_a_fork_is_queued_whatever_on_limit_says(word: str) -> None:
    """A person asked for it."""
    fork = {"execution_id": 5, "turn": 1, "results": [], "visits": {}}
    kept = [{"arc": None, "step": "start", "result": None}]
    meta = {"fork": fork | {"state": {"total": 0, "hold": {"kept": kept}}}}
    start = Event("execution_start", context={"workload": {}}, meta=meta, slots=[{"free": False, "number": 1}])
    session = Session(playbook(JOB, metadata=limit(f", on_limit: {word}")))
    decision = session.apply(start, STORY_START)
    [change] = decision.of(SlotsChanged)
    assert (session.state.status, change.slots[0].on_limit) == ("QUEUED", "queue")

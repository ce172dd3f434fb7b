"""Waits for a signal, steps that send one, and signals that come before their wait."""

from __future__ import annotations

from datetime import timedelta

from noetl_broker.broker.core import Session
from noetl_broker.broker.model.effects import SignalConditionFailed, TimerSet, WaitOpened, WaitReopened
from noetl_broker.broker.model.event import Event
from noetl_broker.broker.model.rules import Rules
from noetl_broker.broker.state.state import decode, encode
from noetl_broker.history.story import STORY_START
from tests.stories import assert_story, playbook


def test_a_signal_completes_its_wait() -> None:
    """The result is the payload. A timeout that comes later changes nothing."""
    assert_story(
        """
        workload: {order: 42}
        workflow:
        - {step: start, next: paid}
        - {step: paid, type: wait, signal: payment, key: "{{ order }}", timeout: 24h, next: ship}
        - {step: ship, type: python, code: x, args: {amount: "{{ paid.amount }}"}}
        """,
        """
        > execution_start
            event step_started paid
            wait  paid signal payment 42
            timer paid timeout 2026-01-02T00:00:01.000000Z
        > execution_signal paid {"name": "payment", "key": "42", "payload": {"amount": 5}, "at": "now"}
            event step_completed paid {"amount": 5}
            event step_started ship
            job   ship {"amount": 5}
        > timer_due paid {"purpose": "timeout"}  (duplicate)
        > execution_signal {"name": "payment", "key": "42", "payload": {"amount": 6}, "at": "now"}
        > action_completed ship 1
            event step_completed ship
            event execution_complete 1
        > execution_signal {"name": "payment", "key": "42", "payload": {"amount": 7}, "at": "now"}  (after_end)
        """,
    )


def test_a_wait_for_several_names_says_which_came() -> None:
    """Also if the list has one name."""
    assert_story(
        """
        workflow:
        - {step: start, next: heard}
        - {step: heard, type: wait, signal: [paid, cancelled], next: {step: go, args: {heard: "{{ heard }}"}}}
        - {step: go, type: python, code: x}
        """,
        """
        > execution_start
            event step_started heard
            wait  heard signal paid or cancelled 1
        > execution_signal heard {"name": "cancelled", "key": "1", "payload": null, "at": "now"}
            event step_completed heard {"signal": "cancelled", "payload": null}
            event step_started go
            job   go {"heard": {"signal": "cancelled", "payload": null}}
        """,
    )


def test_a_signal_for_which_when_is_false_is_kept_and_the_wait_is_open_again() -> None:
    """The condition reads the signal and the inputs of the visit."""
    assert_story(
        """
        workflow:
        - {step: start, next: {step: paid, args: {total: 10}}}
        - {step: paid, type: wait, signal: payment, when: "{{ signal.payload.amount >= total }}"}
        """,
        """
        > execution_start
            event step_started paid
            wait  paid signal payment 1
        > execution_signal paid {"name": "payment", "key": "1", "payload": {"amount": 5}, "at": "now"}
            reopen paid
        > execution_signal paid {"name": "payment", "key": "1", "payload": {"amount": 15}, "at": "now"}
            event step_completed paid {"amount": 15}
            event execution_complete {"amount": 15}
        """,
    )


def test_an_error_in_when_means_that_the_signal_does_not_fit() -> None:
    """The turn notes the reason; the execution goes on waiting."""
    book = playbook("""
        workflow:
        - {step: start, next: paid}
        - {step: paid, type: wait, signal: payment, when: "{{ signal.payload.amount > 1 }}"}
        """)
    session = Session(book)
    session.apply(Event("execution_start"), STORY_START)
    signal = {"name": "payment", "key": "1", "payload": {"sum": 5}, "at": "now"}
    decision = session.apply(Event("execution_signal", "paid", 1, context=signal), STORY_START)
    assert (decision.outcome, decision.of(SignalConditionFailed), decision.of(WaitReopened)) == (
        "decided",
        [("paid", 1)],
        [("paid", 1)],
    )
    assert decision.note is not None
    assert decision.note.startswith("the `when` of paid failed, so signal payment does not fit: ")
    assert session.state.status == "RUNNING"


def test_a_kept_signal_completes_a_wait_that_begins_later() -> None:
    """The first kept one that fits, in the turn of the beginning: no row of a wait is written."""
    assert_story(
        """
        workflow:
        - {step: start, next: prepare}
        - {step: prepare, type: python, code: x, next: paid}
        - {step: paid, type: wait, signal: payment, when: "{{ signal.payload > 1 }}", next: ship}
        - {step: ship, type: python, code: x, args: {amount: "{{ paid }}", same: "{{ result }}"}}
        """,
        """
        > execution_start
            event step_started prepare
            job   prepare
        > execution_signal {"name": "payment", "key": "1", "payload": 1, "at": "now"}
        > execution_signal {"name": "refund", "key": "1", "payload": 2, "at": "now"}
        > execution_signal {"name": "payment", "key": "1", "payload": 3, "at": "now"}
        > execution_signal {"name": "payment", "key": "1", "payload": 4, "at": "now"}
        > action_completed prepare 1
            event step_completed prepare
            event step_started paid
            event step_completed paid 3
            event step_started ship
            job   ship {"amount": 3, "same": 3}
        """,
    )


def test_the_oldest_open_wait_takes_the_signal() -> None:
    """Of waits that began in one turn, the first in the document. The store may have told another one."""
    assert_story(
        """
        workflow:
        - {step: start, next: [{step: late}, {step: b}, {step: a}]}
        - {step: a, type: wait, signal: ping}
        - {step: b, type: wait, signal: ping}
        - {step: late, type: python, code: x, next: c}
        - {step: c, type: wait, signal: ping}
        """,
        """
        > execution_start
            event step_started late
            event step_started b
            event step_started a
            job   late
            wait  b signal ping 1
            wait  a signal ping 1
        > action_completed late 1
            event step_completed late
            event step_started c
            wait  c signal ping 1
        > execution_signal c {"name": "ping", "key": "1", "payload": 1, "at": "now"}
            event step_completed a 1
            reopen c
        > execution_signal b {"name": "ping", "key": "1", "payload": 2, "at": "now"}
            event step_completed b 2
        > execution_signal a {"name": "ping", "key": "1", "payload": 3, "at": "now"}
            event step_completed c 3
            event execution_complete {"a": 1, "b": 2, "c": 3}
        """,
    )


def test_a_signal_that_was_sent_before_since_does_not_count() -> None:
    """A kept one counts for a wait with an earlier `since`."""
    assert_story(
        """
        workflow:
        - {step: start, next: [{step: today}, {step: prepare}]}
        - {step: today, type: wait, signal: ping}
        - {step: prepare, type: python, code: x, next: week}
        - {step: week, type: wait, signal: ping, since: 1w}
        """,
        """
        > execution_start
            event step_started today
            event step_started prepare
            job   prepare
            wait  today signal ping 1
        > execution_signal {"name": "ping", "key": "1", "payload": 1, "at": "then", "before_start": 86400.5}
        > action_completed prepare 1
            event step_completed prepare
            event step_started week
            event step_completed week 1
        """,
    )


def test_a_doubled_signal_changes_nothing() -> None:
    """The store knows by its id that the execution has taken it."""
    assert_story(
        """
        workflow:
        - {step: start, next: paid}
        - {step: paid, type: wait, signal: payment}
        """,
        """
        > execution_start
            event step_started paid
            wait  paid signal payment 1
        > execution_signal paid {"name": "payment", "key": "1", "payload": 1, "at": "now"}; stale  (duplicate)
        """,
    )


def test_past_max_signals_the_oldest_goes() -> None:
    """The turn notes which one."""
    book = playbook("""
        workflow:
        - {step: start, next: work}
        - {step: work, type: python, code: x}
        """)
    session = Session(book, Rules(max_signals=2))
    session.apply(Event("execution_start"), STORY_START)
    notes = []
    for payload in (1, 2, 3):
        context = {"name": "n", "key": "1", "payload": payload, "at": "now"}
        notes.append(session.apply(Event("execution_signal", context=context), STORY_START).note)
    assert notes == [
        None,
        None,
        "signal n of turn 2 was dropped: 2 later ones fit no wait; the limit max_signals is 2",
    ]
    assert [kept.turn for kept in session.state.signals] == [3, 4]


def test_a_turn_tries_a_hundred_kept_signals() -> None:
    """A timer brings the next turn; the state between two turns is that of its JSON."""
    book = playbook("""
        workflow:
        - {step: start, next: prepare}
        - {step: prepare, type: python, code: x, next: paid}
        - {step: paid, type: wait, signal: payment, when: "{{ signal.payload == 150 }}"}
        """)
    session = Session(book)
    session.apply(Event("execution_start"), STORY_START)
    for payload in range(200):
        context = {"name": "payment", "key": "1", "payload": payload, "at": "now"}
        session.apply(Event("execution_signal", context=context), STORY_START + timedelta(seconds=payload))
    decision = session.apply(Event("action_completed", "prepare", 1, 1), STORY_START)
    assert ([timer.purpose for timer in decision.of(TimerSet)], len(decision.of(WaitOpened))) == (["signals"], 1)
    # a signal that arrives meanwhile is tried after those that are kept
    context = {"name": "payment", "key": "1", "payload": 150, "at": "later"}
    assert session.apply(Event("execution_signal", context=context), STORY_START).events == ()
    assert decode(encode(session.state)) == session.state
    due = Event("timer_due", "paid", 1, context={"purpose": "signals"})
    decision = session.apply(due, STORY_START)
    assert [event.type for event in decision.events] == ["step_completed", "execution_complete"]
    assert session.state.status == "COMPLETED"


def test_a_signal_step_sends_in_its_turn() -> None:
    """Its result is the name and the key; a number is its JSON text."""
    assert_story(
        """
        workload: {order: 42}
        workflow:
        - {step: start, next: tell}
        - {step: tell, type: signal, signal: paid, key: "{{ order }}", payload: {by: "{{ order + 1 }}"}, next: go}
        - {step: go, type: python, code: x, args: {told: "{{ tell }}"}}
        """,
        """
        > execution_start
            event step_started tell
            event step_completed tell {"name": "paid", "key": "42"}
            event step_started go
            job   go {"told": {"key": "42", "name": "paid"}}
            send  tell paid 42 {"by": 43}
        """,
    )


def test_a_key_that_is_null_fails_the_step() -> None:
    """Null, a list and a mapping are no keys."""
    message = '"`key` must be a text of up to 1024 bytes, a number or a boolean, it is null"'
    assert_story(
        """
        workload: {order: null}
        workflow:
        - {step: start, next: paid}
        - {step: paid, type: wait, signal: payment, key: "{{ order }}"}
        """,
        f"""
        > execution_start
            event step_started paid
            event step_failed paid {message}
            event execution_failed {message}
            cancel all work
        """,
    )

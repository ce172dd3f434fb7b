"""`metadata.on_failure`: a failed execution starts another one."""

from __future__ import annotations

from noetl_broker.broker.model.effects import ChildStarted
from noetl_broker.broker.model.event import Event
from noetl_broker.history.story import play_turns, read_events
from tests.stories import assert_story, playbook

ALARM = 'on_failure: {path: ops/alarm, args: {team: "{{ workload.team }}", what: "{{ error.message }}"}}'
FAILS = """
workload: {team: shop}
workflow:
- {step: start, next: a}
- {step: a, type: http, url: x}
"""
UNDOES = """
workflow:
- {step: start, next: charge}
- {step: charge, type: http, url: x, compensate: {type: http, url: y}, next: ship}
- {step: ship, type: http, url: z}
"""


def test_a_failed_execution_starts_its_playbook() -> None:
    """With what failed, and its args, whose templates read the workload and the error."""
    assert_story(
        FAILS,
        """
        > execution_start
            event step_started a
            job   a
        > action_failed a {"message": "no bank"}
            event step_failed a "no bank"
            event execution_failed "no bank"
            dead  a
            cancel all work
            start ops/alarm {"team": "shop", "what": "no bank", "execution_id": 1, "path": "story", "step": "a", "error": {"step": "a", "message": "no bank"}}
        """,  # noqa: E501 - one line of a story
        metadata=ALARM,
    )


def test_an_argument_that_fails_does_not_stop_the_alarm() -> None:
    """It is left out, and `args_error` has the first fault."""
    metadata = 'on_failure: {path: ops/alarm, args: {a: "{{ nothing }}", b: 1}}'
    [*_, (_, decision, _)] = play_turns(
        playbook(FAILS, metadata=metadata), read_events("> execution_start\n> action_failed a {}")
    )
    assert decision.ended is not None
    assert decision.ended.on_failure is not None
    payload = decision.ended.on_failure.payload
    assert (payload["b"], payload["args_error"]["at"], "a" in payload) == (1, "metadata.on_failure.args.a", False)


def test_a_cancelled_or_completed_execution_starts_nothing() -> None:
    """Only one that failed."""
    for last in ("> execution_cancel", "> action_completed a {}"):
        [*_, (_, decision, _)] = play_turns(playbook(FAILS, metadata=ALARM), read_events(f"> execution_start\n{last}"))
        assert decision.ended is not None
        assert decision.ended.on_failure is None


def test_what_a_failure_started_starts_nothing() -> None:
    """Nor do its children: their starts name the same failure."""
    source = """
    workflow:
    - {step: start, next: [a, b]}
    - {step: a, type: playbook, path: p}
    - {step: b, type: http, url: x}
    """
    events = [Event("execution_start", meta={"on_failure": 7}), *read_events("> action_failed b {}")]
    begun, failed = (decision for _, decision, _ in play_turns(playbook(source, metadata=ALARM), events))
    assert [child.meta["on_failure"] for child in begun.of(ChildStarted)] == [7]
    assert failed.ended is not None
    assert failed.ended.on_failure is None


def test_the_alarm_starts_after_the_undo() -> None:
    """With the error that began it, and how much was undone."""
    assert_story(
        UNDOES,
        """
        > execution_start
            event step_started charge
            job   charge
        > action_completed charge {"id": 1}
            event step_completed charge
            event step_started ship
            job   ship
            undo  charge
        > action_failed ship {"message": "no truck"}
            event step_failed ship "no truck"
            event execution_compensating "no truck"
            event compensation_started charge
            job   charge!undo
            dead  ship
            cancel all work
        > action_completed charge!undo {}
            event compensation_completed charge
            event execution_failed "no truck"
            start ops/alarm {"execution_id": 1, "path": "story", "step": "ship", "error": {"step": "ship", "message": "no truck"}, "compensation": {"done": 1, "failed": 0, "unknown": 0, "left": 0}}
        """,  # noqa: E501 - one line of a story
        metadata="on_failure: {path: ops/alarm}",
    )


def test_the_alarm_is_told_that_an_undo_failed() -> None:
    """As the event of the end has it."""
    story = "> execution_start\n> action_completed charge 1\n> action_failed ship {}\n> action_failed charge!undo {}"
    [*_, (_, decision, _)] = play_turns(playbook(UNDOES, metadata="on_failure: {path: ops/alarm}"), read_events(story))
    assert decision.ended is not None
    assert decision.ended.on_failure is not None
    told = {"done": 0, "failed": 1, "unknown": 0, "left": 0}
    assert decision.ended.on_failure.payload["compensation"] == told
    assert [(event.meta or {}).get("compensation") for event in decision.events][-1] == told

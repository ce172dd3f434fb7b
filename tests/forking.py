"""Histories and forks without a database: a story's turns as a history, and what a fork of it comes to."""

from __future__ import annotations

from textwrap import dedent
from typing import Any

from noetl_broker.broker.context import Found, Known, result_of, want_step, want_turn
from noetl_broker.broker.core import take_turn
from noetl_broker.broker.history import History, RecordedTurn
from noetl_broker.broker.memory import remember
from noetl_broker.broker.model import Ended, Event, Rules, Turn
from noetl_broker.broker.plans import Plan
from noetl_broker.broker.state import ExecutionState, encode
from noetl_broker.broker.story import STORY_START, read_events, tell
from noetl_broker.playbook.model import Playbook
from noetl_broker.template import StepResult

SOURCE = 1
FORK = 2
DIAMOND = """
workload: {n: 1}
workflow:
- {step: start, next: [a, b]}
- {step: a, type: python, code: x, next: r}
- {step: r, type: route, next: [{when: "{{ a.ok }}", step: c, args: {v: "{{ a.v }}", handed: "{{ result.v }}"}}]}
- {step: c, type: python, code: x, args: {mine: "{{ workload.n }}"}, next: j}
- {step: b, type: python, code: x, next: j}
- {step: j, type: python, code: x, args: {b: "{{ b.v }}", c: "{{ c.v }}"}, next: end}
- {step: end}
"""


def told(text: str) -> str:
    """The lines of a story as they are told."""
    return dedent(text).strip("\n")


def history_of(playbook: Playbook, story: str, *, rules: Rules | None = None) -> History:
    """The history that the events of a story make."""
    return _history(playbook, list(read_events(dedent(story))), {}, SOURCE, rules)[0]


def fork_history(source: History, plan: Plan, story: str = "", *, playbook: Playbook | None = None) -> History:
    """The history of a fork: its start as the store would write it, then the events of a story."""
    return _fork(source, plan, story, playbook)[0]


def fork_story(source: History, plan: Plan, story: str = "", *, playbook: Playbook | None = None) -> str:
    """The story that comes of a fork and the events after its start, which stands there as `> fork`."""
    return "> fork\n" + _fork(source, plan, story, playbook)[1].partition("\n")[2]


def _fork(source: History, plan: Plan, story: str, playbook: Playbook | None) -> tuple[History, str]:
    assert isinstance(source.playbook, Playbook)
    answers: dict[tuple[object, ...], object] = {}
    results: list[dict[str, Any]] = []
    for place, told in enumerate(plan.document["results"], 1):
        event_id = 100 + place
        result = _result(source, told)
        answers[want_turn(-event_id)] = result
        before = answers.get(want_step(told["step"]))
        if not isinstance(before, Found) or before.visit < told["visit"]:
            answers[want_step(told["step"])] = Found(told["visit"], result)
        results.append({key: told[key] for key in ("step", "visit", "status")} | {"event_id": event_id})
    meta = {"fork": {**plan.document, "results": results}}
    start = Event("execution_start", context={"workload": source.workload or {}}, meta=meta)
    events = [start, *read_events(dedent(story))]
    return _history(playbook or source.playbook, events, answers, FORK, source.rules)


def _result(source: History, told: dict[str, Any]) -> StepResult:
    if "set" in told:
        return result_of("step_result", told["set"], None)
    if "source" in told:
        carried = source.taken[want_turn(-told["source"])]
        assert isinstance(carried, StepResult)
        return carried
    turn = source.turns[told["turn"] - 1]
    if told["status"] == "FAILED":
        failed = next(event for event in turn.events if event.type == "step_failed" and event.step == told["step"])
        return result_of(failed.type, None, failed.error)
    return result_of(turn.event.type, turn.event.result, turn.event.error)


def _history(
    playbook: Playbook,
    events: list[Event],
    answers: dict[tuple[object, ...], object],
    execution_id: int,
    rules: Rules | None,
) -> tuple[History, str]:
    known, state = Known(rules, answers, complete=True), ExecutionState()
    turns, told = [], []
    workload, ended = None, None
    for number, event in enumerate(events, 1):
        turn = Turn(execution_id, number, STORY_START.replace(microsecond=number))
        state, decision = take_turn(playbook, state, event, turn, known)
        remember(known, event, turn, decision)
        turns.append(RecordedTurn(turn, event, decision.outcome, decision.note, decision.events))
        told.append((event, decision))
        workload = decision.begun.workload if decision.begun is not None else workload
        ended = decision.ended or ended
    history = History(
        execution_id=execution_id,
        playbook=playbook,
        rules=rules or Rules(),
        turns=tuple(turns),
        taken=answers,
        workload=workload,
        ended=Ended(*ended[:3]) if ended is not None else None,
        state=encode(state),
    )
    return history, tell(told)

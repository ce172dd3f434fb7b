"""Histories and forks of stories, without a database."""

from __future__ import annotations

from textwrap import dedent
from typing import Any

from noetl_broker.broker.core import Session
from noetl_broker.broker.draft.known import Found, result_of, taken_items
from noetl_broker.broker.draft.wants import want_all_items, want_step, want_turn
from noetl_broker.broker.model.decision import ExecutionEnd
from noetl_broker.broker.model.effects import ExecutionBegun
from noetl_broker.broker.model.event import Event, Turn
from noetl_broker.broker.model.rules import Rules
from noetl_broker.broker.state.state import encode
from noetl_broker.history.fork_plan import ForkPlan
from noetl_broker.history.record import History, RecordedTurn
from noetl_broker.history.replay import Replay
from noetl_broker.history.story import STORY_START, format_story, read_events
from noetl_broker.history.timeline import is_result_of
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


def history_of(playbook: Playbook, story: str, *, rules: Rules | None = None) -> History:
    """Return the history of a story."""
    return _history(playbook, list(read_events(dedent(story))), {}, SOURCE, rules)[0]


def fork_history(source: History, plan: ForkPlan, story: str = "", *, playbook: Playbook | None = None) -> History:
    """Return the history of a fork: the start that the store would write, then the events of a story."""
    return _fork(source, plan, story, playbook)[0]


def fork_story(source: History, plan: ForkPlan, story: str = "", *, playbook: Playbook | None = None) -> str:
    """Return the story of a fork, in which the start is written as `> fork`."""
    return "> fork\n" + _fork(source, plan, story, playbook)[1].partition("\n")[2]


def _fork(source: History, plan: ForkPlan, story: str, playbook: Playbook | None) -> tuple[History, str]:
    assert isinstance(source.playbook, Playbook)
    answers: dict[tuple[object, ...], object] = {}
    results: list[dict[str, Any]] = []
    for index, taken in enumerate(plan.document["results"], 1):
        event_id = 100 + index
        result = _result(source, taken)
        answers[want_turn(-event_id)] = result
        before = answers.get(want_step(taken["step"]))
        if not isinstance(before, Found) or before.visit < taken["visit"]:
            answers[want_step(taken["step"])] = Found(taken["visit"], result)
        results.append({key: taken[key] for key in taken if key != "set"} | {"event_id": event_id})
    for entered in plan.document["state"]["hold"]["kept"]:
        if "items" in entered:
            items = known_items(source, entered["step"], entered["repeats"])
            answers |= taken_items(entered["step"], entered["repeats"], items, entered["items"]["again"])
    meta = {"fork": {**plan.document, "results": results}}
    start = Event("execution_start", context={"workload": source.workload or {}}, meta=meta)
    events = [start, *read_events(dedent(story))]
    return _history(playbook or source.playbook, events, answers, FORK, source.rules)


def known_items(source: History, step: str, visit: int) -> list[Any]:
    """Return the items of an iterator, which its visit chose or took over."""
    replay = Replay(source)
    for turn in source.turns:
        replay.apply(turn)
        items = replay.known.answers.get(want_all_items(step, visit))
        if isinstance(items, list):
            return items
    raise AssertionError(f"{step}#{visit} chose no items")


def _result(source: History, taken: dict[str, Any]) -> StepResult:
    if "set" in taken:
        return result_of("step_result", taken["set"], None)
    if taken.get("name", 0) < 0:
        carried = source.taken[want_turn(taken["name"])]
        assert isinstance(carried, StepResult)
        return carried
    visit = (taken["step"], taken["visit"])
    for turn in source.turns[taken["name"] - 1 : taken["name"]] if "name" in taken else source.turns:
        for event in turn.events:
            failed = event.type == "step_failed" and event[2:4] == visit and taken["status"] == "FAILED"
            if failed or is_result_of(event, visit):
                return result_of(event.type, event.result, event.error)
    event = source.turns[taken["name"] - 1].event
    return result_of(event.type, event.result, event.error)


def _history(
    playbook: Playbook,
    events: list[Event],
    answers: dict[tuple[object, ...], object],
    execution_id: int,
    rules: Rules | None,
) -> tuple[History, str]:
    session = Session(playbook, rules, execution_id=execution_id, answers=answers)
    turns, decisions = [], []
    workload, ended = None, None
    for number, event in enumerate(events, 1):
        turn = Turn(execution_id, number, STORY_START.replace(microsecond=number))
        decision = session.apply(event, turn.at)
        turns.append(RecordedTurn(turn, event, decision.outcome, decision.note, decision.events, 100 + number))
        decisions.append((event, decision))
        for begun in decision.of(ExecutionBegun):
            workload = begun.workload
        ended = decision.ended or ended
    history = History(
        execution_id=execution_id,
        playbook=playbook,
        rules=rules or Rules(),
        turns=tuple(turns),
        taken=answers,
        workload=workload,
        ended=ExecutionEnd(*ended[:3]) if ended is not None else None,
        state=encode(session.state),
    )
    return history, format_story(decisions)

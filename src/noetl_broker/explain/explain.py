"""Explains an execution or one of its steps.

The store loads the history and the facts. It reads the past from the turns, decided again, and the
waits from the stored state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.state import COMPLETED, QUEUED, RUNNING, ExecutionState, decode, is_live
from noetl_broker.errors import UnknownStepFault
from noetl_broker.explain.conditions import evaluated_conditions
from noetl_broker.explain.error_text import error_text, step_text
from noetl_broker.explain.failed_items import explain_ended_items, explain_failed_items
from noetl_broker.explain.holds import explain_deadline, explain_hold, explain_late, kept_at
from noetl_broker.explain.never_ran import NeverRan
from noetl_broker.explain.outcomes import explain_end, explain_path, follow
from noetl_broker.explain.provenance import Provenance
from noetl_broker.explain.reason import Reason
from noetl_broker.explain.signals import explain_kept
from noetl_broker.explain.slots import explain_slots
from noetl_broker.explain.undo import explain_compensation, explain_token, explain_undo_of, late_success, undone_visits
from noetl_broker.explain.visits import VisitExplainer
from noetl_broker.explain.waiting import (
    explain_join,
    explain_no_broker,
    explain_unread,
)
from noetl_broker.history.fork_plan import find_step
from noetl_broker.node_ids import visit_name
from noetl_broker.text import short_json, span

if TYPE_CHECKING:
    from noetl_broker.broker.model.values import Visit
    from noetl_broker.explain.facts import Facts
    from noetl_broker.history.record import History
    from noetl_broker.history.timeline import Timeline
    from noetl_broker.playbook.model import Playbook, Step

ENDINGS = {"COMPLETED": "completed", "FAILED": "failed", "CANCELLED": "was cancelled"}
MOST_UNREAD = 5  # unread events that are named


def explain_execution(history: History | None, facts: Facts) -> Reason:
    """Why an execution is open or how it ended; `history` is None if no broker has read an event of it."""
    because: list[Reason] = []
    if history is not None:
        because += _waits(history, facts) if is_live(facts.status) else explain_end(history, facts)
    if facts.erased_at is not None:
        because.append(Reason("erased", _erased(facts)))
    because += _unread(facts, history)
    if is_live(facts.status) and not because:
        says = "nothing is open and no event is unread: noetl-broker replay shows what is wrong"
        because.append(Reason("nothing", says))
    because += explain_deadline(facts)
    if history is not None and is_live(facts.status) and history.state:
        because += explain_late(history, decode(history.state))
    return Reason("execution", _headline(facts), _facts(facts), tuple(because))


def explain_step(history: History | None, facts: Facts, name: str, number: int | None = None) -> Reason:
    """Why a step ran, did not run, or what it waits for; `number` of the visit (None: the latest).

    Raises UnknownStepFault for an unknown step or visit.
    """
    if history is None or isinstance(history.playbook, str):
        unread = "no broker has read its start yet" if facts.erased_at is None else _erased(facts)
        missing = history.playbook if history is not None else unread
        return Reason("step", f"{name} cannot be explained: {missing}", {"step": name}, tuple(_unread(facts)))
    step = find_step(history.playbook, name)
    timeline, _, disagreement = follow(history)
    state = decode(history.state) if history.state else ExecutionState()
    entered = [visit for visit in timeline.entered if visit[0] == name]
    chosen = _choose(name, entered, number)
    evaluated = evaluated_conditions(history, _related_visits(history.playbook, timeline, step, chosen))
    provenance = Provenance(history, timeline, facts)
    visits = VisitExplainer(history.playbook, provenance, evaluated)
    because = [*kept_at(state, name), *explain_hold(history, state, facts)] if is_live(facts.status) else []
    if name in state.waiting:
        because.append(explain_join(history.playbook, state, name))
    taken_over = [visit for visit in timeline.done_in if visit[0] == name]
    if chosen is not None:
        if chosen in state.tokens and is_live(facts.status):
            because.append(explain_token(state.tokens[chosen], history.playbook, history, facts))
        else:
            because += explain_ended_items(chosen, facts)
        because += explain_failed_items(chosen, facts)
        because.append(visits.of_visit(chosen))
    elif taken_over:
        result = provenance.of_result(taken_over[-1], None)
        because += [result] if result is not None else []
    elif name not in state.waiting and not kept_at(state, name):
        because += NeverRan(history.playbook, timeline, state, evaluated, visits).of_step(name)
    for visit in [chosen] if chosen is not None else undone_visits(name, history, facts):
        because += explain_undo_of(visit, history, facts)
    because += _unread(facts) if is_live(facts.status) else []
    because += disagreement
    about: dict[str, JSON] = {**_facts(facts), "step": name, "visits": len(entered)}
    return Reason("step", _step_headline(name, chosen, state, provenance), about, tuple(because))


def _waits(history: History, facts: Facts) -> list[Reason]:
    state, playbook = decode(history.state) if history.state else ExecutionState(), history.playbook
    if isinstance(playbook, str):
        return [Reason("no_playbook", f"it cannot continue: {playbook}")]
    if state.compensation is not None:
        timeline, _, disagreement = follow(history)
        undoing = explain_compensation(playbook, state, history, facts)
        return [*undoing, *explain_path(timeline), *disagreement]
    visits = [explain_token(token, playbook, history, facts) for token in state.tokens.values()]
    joins = [explain_join(playbook, state, name) for name in state.waiting]
    timeline, _, disagreement = follow(history)
    visits += explain_kept(state, visits)
    slots = [] if state.status == QUEUED else explain_slots(facts)  # else why it is queued has them
    return [*explain_hold(history, state, facts), *slots, *visits, *joins, *explain_path(timeline), *disagreement]


def _related_visits(playbook: Playbook, timeline: Timeline, step: Step, chosen: Visit | None) -> set[Visit]:
    """The visits whose conditions are explained: visits that led to the step or could have, and its own visits."""
    related = {chosen} if chosen is not None else set()
    pending = [step.name]
    seen: set[str] = set()
    while pending and chosen is None:
        target = pending.pop()
        for source in (arc.source for arc in playbook.arcs if arc.target == target):
            latest = timeline.latest(source)
            related |= {visit for visit in timeline.entered if visit[0] == source and playbook.steps[source].catch}
            if latest:
                related.add((source, latest))
            elif source not in seen:
                seen.add(source)
                pending.append(source)
    sources = [chosen] if chosen is not None else []
    while sources:
        for token in timeline.incoming.get(sources.pop(), ()):
            if token.source is not None and token.source not in related:
                related.add(token.source)
                if not playbook.steps[token.source[0]].has_action:
                    sources.append(token.source)
    return related


def _choose(name: str, visits: list[Visit], number: int | None) -> Visit | None:
    if number is None:
        return max(visits, key=lambda visit: visit[1], default=None)
    if (name, number) not in visits:
        made = f"it was visited {len(visits)} times" if visits else "it was never visited"
        raise UnknownStepFault(f"step {name} has no visit {number}: {made}")
    return name, number


def _step_headline(name: str, chosen: Visit | None, state: ExecutionState, provenance: Provenance) -> str:
    facts, timeline = provenance.facts, provenance.timeline
    of_execution = f"of execution {facts.execution_id} ({facts.path} version {facts.version}, {facts.status})"
    if chosen is not None:
        text = f"{visit_name(*chosen)} {of_execution} {_visit_status(chosen, state, provenance)}"
        number = sum(visit[0] == name for visit in timeline.entered)
        return text if number == 1 else f"{text}; it was entered {number} times ({name}#1 explains the first)"
    if name in state.waiting:
        return f"{name} {of_execution} has not run: its join is waiting"
    if name in {step for step, _ in timeline.done_in}:
        return f"{name} {of_execution} was done before the fork, in execution {facts.forked_from}"
    return f"{name} {of_execution} {'has not run' if is_live(facts.status) else 'never ran'}"


def _visit_status(visit: Visit, state: ExecutionState, provenance: Provenance) -> str:
    timeline, facts = provenance.timeline, provenance.facts
    if visit in state.tokens:
        return "is draining" if state.tokens[visit].draining else "is running"
    if (late := late_success(visit, provenance.history, live=is_live(facts.status))) is not None:
        return late
    events = (event for turn in provenance.history.turns for event in turn.events)
    failed = [event for event in events if event.type == "step_failed" and (event.step, event.visit) == visit]
    if failed:
        return "failed, and its catch handled that" if "caught" in (failed[-1].meta or {}) else "failed"
    if visit in timeline.cancelled:
        return f"was cancelled in turn {timeline.done_in[visit]}"
    if visit in timeline.done_in:
        return f"{'finished' if visit in timeline.results else 'was passed'} in turn {timeline.done_in[visit]}"
    return f"was still running when the execution {ENDINGS.get(facts.status, 'ended')}{_error_suffix(facts)}"


def _erased(facts: Facts) -> str:
    return (
        f"its values were erased at {facts.erased_at:%Y-%m-%d %H:%M} UTC; statuses, times and names of steps are kept"
    )


def _unread(facts: Facts, history: History | None = None) -> list[Reason]:
    """Reasons: unread events that no open visit explains, and no connected broker."""
    stored = None if history is None or isinstance(history.playbook, str) else history.state
    state = stored if isinstance(stored, dict) else {}
    open_visits = {(token["step"], token["visit"]) for token in state.get("tokens", ())}
    events = [
        one for one in (*facts.dead_letters, *facts.unread) if one.node is None or one.node[:2] not in open_visits
    ]
    reasons = [explain_unread(event, facts) for event in events[:MOST_UNREAD]]
    if len(events) > MOST_UNREAD:
        reasons.append(Reason("more", f"… and {len(events) - MOST_UNREAD} more events"))
    return [*reasons, *explain_no_broker(facts)] if is_live(facts.status) else reasons


def _headline(facts: Facts) -> str:
    version = "" if facts.version is None else f" version {facts.version}"
    seconds = ((facts.ended_at or facts.read_at) - facts.started_at).total_seconds()
    if facts.ended_at is None and facts.status != RUNNING:
        status = f"is {facts.status}; it started {span(seconds)} ago"
    elif facts.ended_at is None:
        status = f"has been RUNNING for {span(seconds)}"
    else:
        status = f"{ENDINGS[facts.status]} after {span(seconds)}{_error_suffix(facts)}"
    result = f", with the result {short_json(facts.result)}" if facts.status == COMPLETED else ""
    origin = f"; it continues {facts.forked_from}" if facts.forked_from is not None else ""
    if facts.schedule is not None:
        origin = f"; started by the schedule {facts.schedule.name} for {facts.schedule.at}"
    if facts.signal is not None:
        origin = f"; started by the signal {facts.signal.name} of {facts.signal.key}, sent at {facts.signal.at}"
    if facts.late_before is not None:
        origin = f"; started because {facts.late_before} was late"
    if facts.failed_before is not None:
        origin = f"; started because {facts.failed_before} failed"
    origin = f"; a child of {facts.parent}" if facts.parent is not None else origin
    return f"execution {facts.execution_id} ({facts.path}{version}) {status}{result}{origin}"


def _error_suffix(facts: Facts) -> str:
    error = facts.error if isinstance(facts.error, dict) else {}
    where = step_text(error)
    return f"{where and ','}{where}: {error_text(error)}" if error.get("message") else ""


def _facts(facts: Facts) -> dict[str, JSON]:
    return {
        "execution_id": facts.execution_id,
        "path": facts.path,
        "version": facts.version,
        "status": facts.status,
        "started_at": facts.started_at,
        "ended_at": facts.ended_at,
        "parent_execution_id": facts.parent,
        "forked_from": facts.forked_from,
        **({} if facts.schedule is None else {"schedule": facts.schedule._asdict()}),
        **({} if facts.signal is None else {"signal": facts.signal._asdict()}),
    }

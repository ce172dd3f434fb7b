"""Explains the end of an execution: its result, the step and event that failed it, or who cancelled it."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from noetl_broker.broker.arrivals.steps import MAX_VISITS, NEED_NOT_MET, visit_inputs
from noetl_broker.broker.initial import PAYLOAD
from noetl_broker.broker.model.event import Emitted
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.state import CANCELLED, COMPLETED
from noetl_broker.broker.state.trail import CatchEvaluated, Entered, NextEvaluated
from noetl_broker.errors import HistoryFault
from noetl_broker.explain.conditions import OUTCOMES, read_facts, read_text
from noetl_broker.explain.error_text import attempt_text, error_text
from noetl_broker.explain.failed_items import explain_went_on
from noetl_broker.explain.provenance import Provenance, event_facts, event_text, explain_failed_part
from noetl_broker.explain.reason import Reason, was
from noetl_broker.explain.undo import explain_undone
from noetl_broker.explain.waiting import explain_progress
from noetl_broker.history.timeline import Timeline, trace_turns
from noetl_broker.node_ids import visit_name
from noetl_broker.template import NotLoaded, TemplateError, compile_condition, compile_text
from noetl_broker.template.breakdown import Read, reads_of
from noetl_broker.text import join_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.model.values import Visit
    from noetl_broker.explain.facts import Facts
    from noetl_broker.history.record import History
    from noetl_broker.history.timeline import TracedTurn
    from noetl_broker.template import Scope, Template

COMPENSATING_EVENT = "execution_compensating"
# Events of the turn that decided the end; undos may have run since.
END_EVENTS = frozenset({"execution_complete", "execution_failed", "execution_cancelled", COMPENSATING_EVENT})
MOST_STEPS = 30  # that are named of the path


def explain_end(history: History, facts: Facts) -> list[Reason]:
    """Why an execution ended: in which turn, and what that turn read."""
    last = next((turn for turn in history.turns if any(_is_end(event) for event in turn.events)), None)
    if last is None:
        return [Reason("no_end", "no turn wrote its end: it ran before this broker, or turns are missing")]
    number = last.turn.number
    timeline, turn, disagreement = follow(history, number)
    draft = turn.draft if turn is not None else None
    details = (*disagreement, *_template_error(draft, Provenance(history, timeline, facts)))
    cause = facts.causes.get(number)
    by = f"on {event_text(cause, number)}"
    about: dict[str, JSON] = {"turn": number, **event_facts(cause)}
    undone = explain_undone(facts)
    if facts.status == COMPLETED:
        says = f"it completed when the broker read {event_text(cause, number)}: no step was left to run"
        because = (*_result(draft), *explain_went_on(facts), *details)
        return [Reason("completed", says, about, because), *undone, *explain_path(timeline)]
    about["error"] = facts.error
    if facts.status == CANCELLED:
        because = (*details, *_still_open(draft))
        return [Reason("cancelled", f"it was cancelled {by}", about, because), *undone, *explain_path(timeline)]
    harmless = {"spent", "caught"}  # words in the meta of a failure that did not end the execution
    failed = [event for event in last.events if event.type == "step_failed" and harmless.isdisjoint(event.meta or {})]
    says = f"it failed {by}"
    attempts: list[Reason] = []
    if failed:
        visit = (failed[-1].step or "", failed[-1].visit)
        attempt = facts.attempt_of(visit)
        says = f"{visit_name(*visit)} failed {by}{f', {attempt}' if attempt else ''}"
        attempts = [*_attempts(history, failed[-1], number), *explain_progress(visit, facts)]
        attempts += _not_caught(failed[-1])
    because = (*attempts, *details, *explain_failed_part(facts.error), *_still_open(draft))
    way = [*undone, *explain_path(timeline), *_alarm(facts)]
    mend = _what_to_mend(facts.error, failed[-1] if failed else None, timeline, number)
    return [Reason("failed", says, about, because), *way, *_recovery_reason(facts, mend)]


def follow(history: History, last: int | None = None) -> tuple[Timeline, TracedTurn | None, list[Reason]]:
    """The timeline up to turn `last`, that turn, and why the timeline ends earlier, if it does."""
    timeline = Timeline()
    try:
        for turn in trace_turns(history):
            number = turn.recorded.turn.number
            if not turn.agrees:
                says = f"this version decides turn {number} differently (noetl-broker replay shows how)"
                return timeline, None, [Reason("disagrees", says, {"turn": number})]
            timeline.add(turn)
            if number == last:
                return timeline, turn, []
    except HistoryFault as fault:
        return timeline, None, [Reason("disagrees", str(fault))]
    return timeline, None, []


def _is_end(event: Emitted) -> bool:
    return event.type in END_EVENTS and event.step is None


def _alarm(facts: Facts) -> list[Reason]:
    """The reason about the execution that started because this one failed."""
    alarm = facts.alarm
    if alarm is None:
        return []
    about: dict[str, JSON] = {"execution_id": alarm.execution_id, "path": alarm.path, "status": alarm.status}
    says = f"its on_failure started execution {alarm.execution_id} ({alarm.path}), which is {alarm.status}"
    if alarm.version is None:
        says = f"its on_failure starts {alarm.path}, which was not registered (execution {alarm.execution_id})"
    return [Reason("on_failure", says, about)]


def _what_to_mend(error: JSON, failed: Emitted | None, timeline: Timeline, number: int) -> str | None:
    """The remedy before a retry, where the same version fails again in the same way."""
    if not isinstance(error, dict):
        return None
    if error.get("type") == MAX_VISITS:
        return "raise `max_visits`"
    visit = (failed.step or "", failed.visit) if failed is not None else None
    # A visit that failed in the turn of its beginning has run nothing: its templates read what a retry keeps.
    ran = visit is not None and timeline.entered_in.get(visit, number) != number
    return "mend the template" if error.get("template") and not ran else None


def _recovery_reason(facts: Facts, mend: str | None) -> list[Reason]:
    """The execution that continues a failed one, or the command for it; nothing while something is left to undo.

    `mend` is to be done first.
    """
    retry = next((fork for fork in facts.forks if fork.retry), None)
    if retry is not None:
        says = f"it is continued as execution {retry.execution_id}, which is {retry.status}"
        return [Reason("recovered", says, {"execution_id": retry.execution_id, "status": retry.status})]
    if facts.parent is not None:
        says = f"its parent {facts.parent} does not wait for a retry of it"
        return [Reason("remedy", f"{says}: noetl-broker explain {facts.parent} says what helps")]
    if isinstance(facts.error, dict) and facts.error.get("type") == PAYLOAD and "step" not in facts.error:
        path = facts.path or "PATH"
        says = f"noetl-broker start {path} --payload … starts it with a payload that fits; a retry keeps the payload"
        return [Reason("remedy", says)]
    counts: Mapping[str, int] = facts.undo["counts"] if facts.undo is not None else {}
    if any(counts.get(status) for status in ("open", "running", "failed")):
        return []
    command = f"noetl-broker retry {facts.execution_id}"
    says = f"{command} continues it from the failure"
    if counts.get("done") or counts.get("settled"):
        says = f"{command} starts it again from the start, because what it did was undone"
    elif mend is not None:
        says = f"{mend}, register it, then {command} --version latest continues it"
    return [Reason("remedy", says)]


def explain_path(timeline: Timeline) -> list[Reason]:
    """The steps, in the order of their first visits."""
    visits = Counter(step for step, _ in timeline.entered)
    if not visits:
        return []
    names = [step if number == 1 else f"{step} ({number} times)" for step, number in visits.items()]
    return [Reason("way", f"it went through {join_names(names, most=MOST_STEPS)}", {"visits": dict(visits)})]


def _result(draft: Draft | None) -> list[Reason]:
    """The origin of the result of a completed execution."""
    if draft is None:
        return []
    end = draft.playbook.end if draft.state.end is not None else None
    names = [*draft.state.ends]
    if end is not None and end.result is not None:
        says, names = f"its result was rendered from `result` of the step {end.name}", [end.name]
    elif end is not None and end.has_action:
        says, names = f"its result is the result of the step {end.name}", [end.name]
    elif end is not None and end.save_data is not None:
        says, names = f"its result is the data that the step {end.name} saves", [end.name]
    elif names:
        says = f"its result is the data of {join_names(names)}{'' if len(names) == 1 else ', where branches ended'}"
    else:
        races = any(step.join == "any" for step in draft.playbook.steps.values())
        says = f"it has no result: no branch ended with data{' (spent tokens do not count)' if races else ''}"
    return [Reason("result", says, {"from": names})]


def _still_open(draft: Draft | None) -> list[Reason]:
    """The visits that were open when the execution ended."""
    if draft is None or draft.stopped_state is None:
        return []
    reasons = []
    running = [visit_name(*visit) for visit in draft.stopped_state.tokens]
    error = _error_of(draft) or {}
    short = error.get("step") if error.get("type") == NEED_NOT_MET else None
    waiting = [join for join in draft.stopped_state.waiting if join != short]
    if running:
        says = f"{join_names(running)} {was(running)} still running and {was(running)} cancelled"
        reasons.append(Reason("lost", says, {"visits": [*running]}))
    if waiting:
        reasons.append(Reason("lost", f"{join_names(waiting)} {was(waiting)} still waiting", {"waiting": [*waiting]}))
    return reasons


def _error_of(draft: Draft) -> dict[str, JSON] | None:
    """The error of an execution in the turn that failed it."""
    if draft.state.compensation is not None:
        return draft.state.compensation.error
    return None if draft.writes.ended is None else draft.writes.ended.error


def _not_caught(failed: Emitted) -> list[Reason]:
    """The conditions of a `catch` that did not handle the failure; nothing where the step has none with conditions."""
    read = (failed.meta or {}).get("catch") or ()
    because = tuple(
        Reason("condition", f"the condition {one['when']} {OUTCOMES[one['outcome']]}", {**one, "to": []})
        for one in read
    )
    return [Reason("not_caught", "its catch did not handle the failure", {}, because)] if because else []


def _attempts(history: History, failed: Emitted, last: int) -> list[Reason]:
    """The earlier attempts of the visit that failed in turn `last`."""
    reasons = []
    for turn in history.turns:
        number = turn.turn.number
        for event in turn.events if number < last else ():
            own = event.context is None and (event.step, event.visit) == (failed.step, failed.visit)  # else of an item
            if event.type == "action_retry" and own:
                meta = event.meta or {}
                attempt = attempt_text(meta.get("attempt"), meta.get("max_attempts"))
                says = f"{attempt} failed before: {error_text(event.error)}"
                reasons.append(Reason("attempt", says, {"turn": number, **meta, "error": event.error}))
    return reasons


def _template_error(draft: Draft | None, provenance: Provenance) -> list[Reason]:
    """The template that failed: its text, its place, and the values that it read."""
    error = None if draft is None else _error_of(draft)
    if draft is None or not error or not error.get("template"):
        return []
    template, at = str(error["template"]), str(error.get("at") or error.get("child_at"))
    scope, reader = _failed_scope(draft, str(error.get("step")), provenance.timeline)
    compiled = _compiled(template, at)
    because: list[Reason] = []
    if scope is not None and compiled is not None:
        with suppress(NotLoaded):  # its values are no longer known
            because = _reads(reads_of(compiled, scope), scope, reader, draft.turn.number, provenance)
    says = f"the template was {template} at {at}"
    return [Reason("template", says, {"template": template, "at": at}, tuple(because))]


def _reads(reads: tuple[Read, ...], scope: Scope, reader: Visit, turn: int, provenance: Provenance) -> list[Reason]:
    """The values that a template read, and where they came from."""
    values = [Reason("read", read_text(read), read_facts(read)) for read in reads]
    names = dict.fromkeys(name for read in reads for name in read.names)
    origins = (provenance.of_name(name, scope.origin(name), reader, turn) for name in names)
    return values + [origin for origin in origins if origin is not None]


def _failed_scope(draft: Draft, step: str, timeline: Timeline) -> tuple[Scope | None, Visit]:
    """The scope of the last template that failed in a turn: a `next`, an entered step, or the result of `end`."""
    trace = draft.trail[-1] if draft.trail else None
    end = draft.playbook.end
    if end is not None and draft.state.end is not None and step == end.name and getattr(trace, "step", None) != step:
        producers = (visit for visit, result in timeline.results.items() if result.name == draft.state.end.result)
        visit = next((visit for visit in producers if visit[0] == step), (step, draft.state.visits(end)))
        return draft.templates.scope(draft.state.end.inputs, draft.state.end.result), visit
    if isinstance(trace, NextEvaluated | CatchEvaluated):
        return trace.scope, (trace.step, trace.visit)
    if not isinstance(trace, Entered):
        return None, ("", 0)
    try:
        inputs = visit_inputs(draft, draft.playbook.steps[trace.step], trace.arrival).values
    except (TemplateError, NotLoaded):
        inputs = trace.arrival.inputs
    return draft.templates.scope(inputs, trace.arrival.result), (trace.step, trace.visit)


def _compiled(template: str, at: str) -> Template | None:
    try:
        return compile_text(template, at) if "{{" in template or "{%" in template else compile_condition(template, at)
    except TemplateError:
        return None

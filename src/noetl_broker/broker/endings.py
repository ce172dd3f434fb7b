"""Why an execution ended as it did: its result, the step and the event that failed it, or who cancelled it."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from noetl_broker.broker.conditions import read_facts, tell_read
from noetl_broker.broker.entering import visit_inputs
from noetl_broker.broker.journey import Journey, walk
from noetl_broker.broker.model import JSON, Emitted
from noetl_broker.broker.sources import Sources, event_facts, event_words, tell_part
from noetl_broker.broker.state import CANCELLED, COMPLETED
from noetl_broker.broker.trail import Entered, Left
from noetl_broker.broker.why import Why
from noetl_broker.broker.words import listed, visit_name
from noetl_broker.errors import HistoryFault
from noetl_broker.template import NotLoaded, TemplateError, compile_condition, compile_text
from noetl_broker.template.parts import Read, reads_of

if TYPE_CHECKING:
    from noetl_broker.broker.draft import Draft
    from noetl_broker.broker.facts import Facts
    from noetl_broker.broker.history import History, RecordedTurn
    from noetl_broker.broker.journey import Walked
    from noetl_broker.broker.state import Visit
    from noetl_broker.template import Scope, Template

END_EVENTS = frozenset({"execution_complete", "execution_failed", "execution_cancelled"})
MOST_STEPS = 30  # that are told of the way that an execution took


def tell_ending(history: History, facts: Facts) -> list[Why]:
    """Why an execution that is over ended: by which turn, and what that turn read."""
    last = next((turn for turn in history.turns if any(_is_end(event) for event in turn.events)), None)
    if last is None:
        return [Why("no_end", "no turn of it wrote its end: it ran before this broker took over, or turns are missing")]
    journey, walked, told = _to_the_end(history, last, facts)
    number = last.turn.number
    cause = facts.causes.get(number)
    by = f"on {event_words(cause, number)}"
    about: dict[str, JSON] = {"turn": number, **event_facts(cause)}
    if facts.status == COMPLETED:
        because = (*_whose_result(walked), *told)
        return [Why("completed", f"it completed {by}: nothing lived any more", about, because), *tell_way(journey)]
    if facts.status == CANCELLED:
        because = (*told, *_lost(walked))
        return [
            Why("cancelled", f"it was cancelled {by}", {**about, "error": facts.error}, because),
            *tell_way(journey),
        ]
    failed = [event for event in last.events if event.type == "step_failed" and "spent" not in (event.meta or {})]
    where = f"{visit_name(failed[-1].step or '', failed[-1].visit)} failed {by}" if failed else f"it failed {by}"
    because = (*_retries(history, failed, last), *told, *tell_part(facts.error), *_lost(walked))
    return [Why("failed", where, {**about, "error": facts.error}, because), *tell_way(journey), *_tell_forks(facts)]


def _to_the_end(history: History, last: RecordedTurn, facts: Facts) -> tuple[Journey, Walked | None, tuple[Why, ...]]:
    """The way up to the last turn, that turn (None where it is not reached), and the template that failed in it.

    Where the rules of this program would have a turn otherwise, that is told instead, and the way ends before it.
    """
    journey = Journey()
    with suppress(HistoryFault):
        for walked in walk(history):
            if not walked.agrees:
                return journey, None, (disagreement(walked),)
            journey.follow(walked)
            if walked.recorded.turn.number == last.turn.number:
                return journey, walked, _tell_fault(walked, Sources(history, journey, facts))
    return journey, None, ()


def disagreement(walked: Walked) -> Why:
    """That a turn, taken again, is another: nothing of it and of those after it can be told from the rules."""
    turn = walked.recorded.turn.number
    says = f"by the rules of this program turn {turn} would go otherwise (noetl-broker replay shows how)"
    return Why("disagrees", says, {"turn": turn})


def _is_end(event: Emitted) -> bool:
    return event.type in END_EVENTS and event.step is None


def _tell_forks(facts: Facts) -> list[Why]:
    """Who brings a failed execution back, or how it is brought back."""
    back = [fork for fork in facts.forks if fork.retry]
    if back:
        fork = back[0]
        says = f"it was brought back as execution {fork.execution_id}, which is {fork.status}"
        return [Why("brought_back", says, {"execution_id": fork.execution_id, "status": fork.status})]
    return [Why("remedy", f"noetl-broker retry {facts.execution_id} brings it back from where it failed")]


def tell_way(journey: Journey) -> list[Why]:
    """The steps in the order in which they were first entered."""
    visits = Counter(step for step, _ in journey.entered)
    if not visits:
        return []
    told = [step if number == 1 else f"{step} ({number} times)" for step, number in visits.items()]
    return [Why("way", f"it went through {listed(told, most=MOST_STEPS)}", {"visits": dict(visits)})]


def _whose_result(walked: Walked | None) -> tuple[Why, ...]:
    """What the result of a completed execution was made of (spec section 6)."""
    draft = walked.draft if walked is not None else None
    if draft is None:
        return ()
    end = draft.playbook.end
    if end is not None and draft.end is not None and (end.result is not None or end.kind != "control"):
        what = "what end.result says" if end.result is not None else "the data of end"
        return (Why("result", f"its result is {what}", {"from": ["end"]}),)
    if end is not None and draft.end is not None and end.save_data is not None:
        return (Why("result", "its result is the data that end saves", {"from": ["end"]}),)
    if not draft.ends:
        races = any(step.join == "any" for step in draft.playbook.steps.values())
        says = f"it has no result: no branch ended with data{', but for spent tokens' if races else ''}"
        return (Why("result", says, {"from": []}),)
    ends = [*draft.ends]
    what = f"the data of {listed(ends)}" if len(ends) == 1 else f"the data of {listed(ends)}, where branches ended"
    return (Why("result", f"its result is {what}", {"from": [*ends]}),)


def _lost(walked: Walked | None) -> tuple[Why, ...]:
    """What still lived when the execution ended."""
    draft = walked.draft if walked is not None else None
    if draft is None or draft.lost is None:
        return ()
    running = [visit_name(*visit) for visit in draft.lost.tokens]
    told = []
    if running:
        says = f"{listed(running)} still ran, and {'was' if len(running) == 1 else 'were'} cancelled"
        told.append(Why("lost", says, {"visits": [*running]}))
    if draft.lost.waiting:
        says = f"{listed(draft.lost.waiting)} waited for the others"
        told.append(Why("lost", says, {"waiting": [*draft.lost.waiting]}))
    return tuple(told)


def _retries(history: History, failed: list[Emitted], last: RecordedTurn) -> list[Why]:
    """The attempts of the visit that failed before."""
    if not failed:
        return []
    told = []
    for turn in history.turns:
        if turn.turn.number >= last.turn.number:
            break
        for event in turn.events:
            if event.type == "action_retry" and event[2:4] == failed[-1][2:4]:
                meta = event.meta or {}
                message = event.error.get("message") if isinstance(event.error, dict) else event.error
                says = f"attempt {meta.get('attempt')} of {meta.get('max_attempts')} had failed before: {message}"
                told.append(Why("attempt", says, {"turn": turn.turn.number, **meta}))
    return told


def _tell_fault(walked: Walked, sources: Sources) -> tuple[Why, ...]:
    """Of a template that failed: its text, its place, and the values that it read."""
    draft = walked.draft
    error = draft.ended.error if draft is not None and draft.ended is not None else None
    if draft is None or not error or not error.get("template"):
        return ()
    template, at = str(error["template"]), str(error.get("at"))
    scope, reader = _where_it_failed(draft, str(error.get("step")), sources.journey)
    compiled = _compiled(template, at)
    because: list[Why] = []
    if scope is not None and compiled is not None:
        try:
            because = _tell_reads(reads_of(compiled, scope), scope, reader, walked, sources)
        except NotLoaded:
            because = []  # what it read is not known any more
    return (Why("template", f"the template {template} at {at}", {"template": template, "at": at}, tuple(because)),)


def _tell_reads(reads: tuple[Read, ...], scope: Scope, reader: Visit, walked: Walked, sources: Sources) -> list[Why]:
    """The values that a template read, and where they came from."""
    told = [Why("read", tell_read(read), read_facts(read)) for read in reads]
    names = dict.fromkeys(name for read in reads for name in read.names)
    turn = walked.recorded.turn.number
    origins = (sources.of_name(name, scope.origin(name), reader, turn) for name in names)
    return told + [origin for origin in origins if origin is not None]


def _where_it_failed(draft: Draft, step: str, journey: Journey) -> tuple[Scope | None, Visit]:
    """What the template saw that failed last in a turn: a `next` that was read, or a step that was entered.

    Of an `end` that was reached before, its result.
    """
    trace = draft.trail[-1] if draft.trail else None
    end = draft.playbook.end
    if end is not None and draft.end is not None and step == end.name and getattr(trace, "step", None) != step:
        gave = (visit for visit, result in journey.results.items() if result.name == draft.end.result)
        visit = next((visit for visit in gave if visit[0] == step), (step, draft.visits(end)))
        return draft.scope(draft.end.inputs, draft.end.result), visit
    if isinstance(trace, Left):
        return trace.scope, (trace.step, trace.visit)
    if not isinstance(trace, Entered):
        return None, ("", 0)
    try:
        inputs = visit_inputs(draft, draft.playbook.steps[trace.step], trace.arrival).values
    except (TemplateError, NotLoaded):
        inputs = trace.arrival.inputs
    return draft.scope(inputs, trace.arrival.result), (trace.step, trace.visit)


def _compiled(template: str, at: str) -> Template | None:
    try:
        return compile_text(template, at) if "{{" in template or "{%" in template else compile_condition(template, at)
    except TemplateError:
        return None

"""Explains conditions: each `when` that a visit's `next` evaluated, its outcome, its parts and their values.

A scope is valid only until the next turn. So the visits are found first, and their conditions are evaluated again in a
second pass over the turns.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.trail import CatchEvaluated, NextEvaluated
from noetl_broker.errors import HistoryFault
from noetl_broker.explain.reason import Reason
from noetl_broker.history.timeline import TracedTurn, trace_turns
from noetl_broker.template import NotLoaded
from noetl_broker.template.breakdown import Part, Read, parts_of
from noetl_broker.text import short_json, shorten

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from noetl_broker.broker.model.values import Visit
    from noetl_broker.explain.provenance import Provenance
    from noetl_broker.history.record import History
    from noetl_broker.playbook.model import Entry

OUTCOMES = {True: "was true", False: "was false"}
NOT_EVALUATED = "could not be evaluated"


class EvaluatedCondition(NamedTuple):
    """A condition with its outcome (None: it failed), its parts, and where its names came from."""

    when: str
    outcome: bool | None
    part: Part | None  # None if its values are no longer known
    origins: dict[str, str]


class EvaluatedNext(NamedTuple):
    """The `next` of a visit: its evaluated conditions, by the index of their entry, and the arcs that fired.

    `catch` is the same of its `catch`; None: it was not read. `caught` is the entry that was taken.
    """

    visit: Visit
    turn: int
    conditions: dict[int, EvaluatedCondition]
    fired: frozenset[int]
    catch: dict[int, EvaluatedCondition] | None = None
    caught: int | None = None


def evaluated_conditions(history: History, visits: Collection[Visit]) -> dict[Visit, EvaluatedNext]:
    """The conditions of these visits, evaluated again part by part."""
    found: dict[Visit, EvaluatedNext] = {}
    with suppress(HistoryFault):
        for turn in trace_turns(history):
            found |= _evaluated_in(turn, visits)
    return found


def _evaluated_in(turn: TracedTurn, visits: Collection[Visit]) -> dict[Visit, EvaluatedNext]:
    """The conditions that this turn evaluated for these visits."""
    found: dict[Visit, EvaluatedNext] = {}
    draft = turn.draft
    if draft is not None:
        for trace in draft.trail:
            if not isinstance(trace, NextEvaluated | CatchEvaluated) or (trace.step, trace.visit) not in visits:
                continue
            step, visit = draft.playbook.steps[trace.step], (trace.step, trace.visit)
            before = found.get(visit, EvaluatedNext(visit, draft.turn.number, {}, frozenset()))
            fired = frozenset(arrival.arc for arrival in trace.arrivals)
            if isinstance(trace, NextEvaluated):
                conditions = _evaluate(step.next, trace, exclusive=step.exclusive)
                found[visit] = before._replace(conditions=conditions, fired=fired)
            else:
                catch = _evaluate(step.catch, trace, exclusive=True)
                found[visit] = before._replace(fired=fired, catch=catch, caught=trace.entry)
    return found


def _evaluate(
    entries: tuple[Entry, ...], left: NextEvaluated | CatchEvaluated, *, exclusive: bool
) -> dict[int, EvaluatedCondition]:
    found: dict[int, EvaluatedCondition] = {}
    conditional = [(index, entry.condition) for index, entry in enumerate(entries) if entry.condition is not None]
    for number, (index, condition) in enumerate(conditional):
        outcome = bool(left.conditions[number]["outcome"]) if number < len(left.conditions) else None
        if outcome is None and _is_decided(left, index, exclusive=exclusive):
            break  # not evaluated
        try:
            part = parts_of(condition, left.scope)
            names = sorted({name for read in reads_within(part) for name in read.names})
            origins: dict[str, str] = {name: left.scope.origin(name) for name in names}
        except NotLoaded:
            part, origins = None, {}
        found[index] = EvaluatedCondition(condition.source, outcome, part, origins)
        if outcome is None:
            break  # it failed, so the later ones were not evaluated
    return found


def _is_decided(left: NextEvaluated | CatchEvaluated, index: int, *, exclusive: bool) -> bool:
    """Whether an entry before this index was taken, so that its condition was not evaluated."""
    if isinstance(left, CatchEvaluated):
        return left.entry is not None and left.entry < index
    return exclusive and any(one["outcome"] for one in left.conditions)


def explain_condition(condition: EvaluatedCondition, read: EvaluatedNext, provenance: Provenance) -> Reason:
    """A condition with its outcome, its parts, and where its values came from."""
    part = condition.part
    outcome = NOT_EVALUATED if condition.outcome is None else OUTCOMES[condition.outcome]
    facts: dict[str, JSON] = {"when": condition.when, "outcome": condition.outcome, "turn": read.turn}
    if part is None:
        return Reason("condition", f"the condition {condition.when} {outcome}", facts)
    if part.parts:
        parts = tuple(map(explain_part, part.parts))
        why = f": {part.error}" if part.error else ""
    else:
        parts = ()
        facts["reads"] = [read_facts(one) for one in part.reads]
        expression = condition.when.strip().removeprefix("{{").removesuffix("}}").strip()
        why = f": {part.error}" if part.error else _reads_text(expression, part.reads, outcome=condition.outcome)
    because = (*parts, *_explain_origins(condition, read, provenance))
    return Reason("condition", f"the condition {condition.when} {outcome}{why}", facts, because)


def explain_part(part: Part) -> Reason:
    """A part of a condition: whether it was true, and what it read."""
    if part.holds is None and part.error is None:
        says = f"{part.text} was not evaluated"
    elif part.holds is None:
        says = f"{part.text} {NOT_EVALUATED}: {part.error}"
    else:
        says = f"{part.text} {OUTCOMES[part.holds]}"
        says += _reads_text(part.text, part.reads, outcome=part.holds)
    facts: dict[str, JSON] = {"expression": part.text, "holds": part.holds}
    if part.reads:
        facts["reads"] = [read_facts(read) for read in part.reads]
    return Reason("part", says, facts, tuple(map(explain_part, part.parts)))


def _reads_text(expression: str, reads: Sequence[Read], *, outcome: bool | None) -> str:
    """The values that an expression read; nothing if its only value is its outcome."""
    if not reads or (len(reads) == 1 and reads[0].text == expression and reads[0].value is outcome):
        return ""
    return f": {', '.join(map(read_text, reads))}"


def read_text(read: Read) -> str:
    """A value that was read, as text."""
    if read.undefined:
        return f"{read.text} was undefined"
    return f"{read.text} failed ({read.error})" if read.error else f"{read.text} was {short_json(read.value)}"


def read_facts(read: Read) -> dict[str, JSON]:
    """A value that was read, for a program."""
    if read.error is not None:
        return {"text": read.text, "undefined": read.undefined, "error": read.error}
    return {"text": read.text, "value": shorten(read.value)}


def reads_within(part: Part) -> Iterable[Read]:
    """The values that a part of a condition read, with its inner parts."""
    yield from part.reads
    for inner in part.parts:
        yield from reads_within(inner)


def _explain_origins(condition: EvaluatedCondition, read: EvaluatedNext, provenance: Provenance) -> list[Reason]:
    reasons = (provenance.of_name(name, origin, read.visit, read.turn) for name, origin in condition.origins.items())
    return [reason for reason in reasons if reason is not None]

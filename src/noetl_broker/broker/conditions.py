"""Conditions told: each `when` that a visit's `next` read, its outcome, its parts, and where their values came from.

A scope is true only while its turn is walked, so the visits that are asked about are found first, and their conditions
are taken apart on a second walk.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.journey import Walked, walk
from noetl_broker.broker.model import JSON
from noetl_broker.broker.trail import Left
from noetl_broker.broker.why import Why
from noetl_broker.broker.words import cut, shown
from noetl_broker.errors import HistoryFault
from noetl_broker.template import NotLoaded
from noetl_broker.template.parts import Part, Read, parts_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from noetl_broker.broker.history import History
    from noetl_broker.broker.sources import Sources
    from noetl_broker.broker.state import Visit
    from noetl_broker.playbook.model import Step

OUTCOMES = {True: "was true", False: "was false"}
NOT_EVALUATED = "could not be evaluated"


class Asked(NamedTuple):
    """One condition that was read: its outcome (None: it could not be evaluated), taken apart; `origins` by name."""

    when: str
    outcome: bool | None
    part: Part | None  # None where its values are not known any more
    origins: dict[str, str]


class NextRead(NamedTuple):
    """The `next` of one visit: its conditions that were read, by the place of their entry, and the arcs that fired."""

    visit: Visit
    turn: int
    asked: dict[int, Asked]
    fired: frozenset[int]


def read_conditions(history: History, visits: Collection[Visit]) -> dict[Visit, NextRead]:
    """Walk the turns again and take the conditions apart that these visits read."""
    found: dict[Visit, NextRead] = {}
    with suppress(HistoryFault):
        for walked in walk(history):
            found |= _read_in(walked, visits)
    return found


def _read_in(walked: Walked, visits: Collection[Visit]) -> dict[Visit, NextRead]:
    """Of those visits, what this turn read."""
    found: dict[Visit, NextRead] = {}
    draft = walked.draft
    if draft is not None:
        for trace in draft.trail:
            if isinstance(trace, Left) and (trace.step, trace.visit) in visits:
                step = draft.playbook.steps[trace.step]
                asked = _ask(step, trace)
                fired = frozenset(arrival.arc for arrival in trace.arrivals)
                visit = (trace.step, trace.visit)
                found[visit] = NextRead(visit, draft.turn.number, asked, fired)
    return found


def _ask(step: Step, left: Left) -> dict[int, Asked]:
    asked: dict[int, Asked] = {}
    conditional = [(place, entry.condition) for place, entry in enumerate(step.next) if entry.condition is not None]
    for number, (place, condition) in enumerate(conditional):
        outcome = bool(left.conditions[number]["outcome"]) if number < len(left.conditions) else None
        if outcome is None and (step.exclusive and any(one["outcome"] for one in left.conditions)):
            break  # it was not read
        try:
            part = parts_of(condition, left.scope)
            names = sorted({name for read in _reads(part) for name in read.names})
            origins: dict[str, str] = {name: left.scope.origin(name) for name in names}
        except NotLoaded:
            part, origins = None, {}
        asked[place] = Asked(condition.source, outcome, part, origins)
        if outcome is None:
            break  # it failed, and nothing after it was read
    return asked


def tell_condition(asked: Asked, read: NextRead, sources: Sources) -> Why:
    """One condition with its outcome, its parts, and where the values came from."""
    part = asked.part
    outcome = NOT_EVALUATED if asked.outcome is None else OUTCOMES[asked.outcome]
    facts: dict[str, JSON] = {"when": asked.when, "outcome": asked.outcome, "turn": read.turn}
    if part is None:
        return Why("condition", f"the condition {asked.when} {outcome}", facts)
    if part.parts:
        told = tuple(map(tell_part, part.parts))
        why = f": {part.error}" if part.error else ""
    else:
        told = ()
        facts["reads"] = [read_facts(one) for one in part.reads]
        why = f": {part.error or ', '.join(map(tell_read, part.reads))}" if part.error or part.reads else ""
    because = (*told, *_tell_origins(asked, read, sources))
    return Why("condition", f"the condition {asked.when} {outcome}{why}", facts, because)


def tell_part(part: Part) -> Why:
    """A part of a condition: whether it held, and what it read."""
    if part.holds is None and part.error is None:
        says = f"{part.text} was not read"
    elif part.holds is None:
        says = f"{part.text} {NOT_EVALUATED}: {part.error}"
    else:
        says = f"{part.text} {OUTCOMES[part.holds]}"
        says += f": {', '.join(map(tell_read, part.reads))}" if part.reads else ""
    facts: dict[str, JSON] = {"expression": part.text, "holds": part.holds}
    if part.reads:
        facts["reads"] = [read_facts(read) for read in part.reads]
    return Why("part", says, facts, tuple(map(tell_part, part.parts)))


def tell_read(read: Read) -> str:
    """A value that was read, in words."""
    if read.undefined:
        return f"{read.text} was undefined"
    return f"{read.text} failed ({read.error})" if read.error else f"{read.text} was {shown(read.value)}"


def read_facts(read: Read) -> dict[str, JSON]:
    """A value that was read, for a program."""
    if read.error is not None:
        return {"text": read.text, "undefined": read.undefined, "error": read.error}
    return {"text": read.text, "value": cut(read.value)}


def _reads(part: Part) -> Iterable[Read]:
    yield from part.reads
    for inner in part.parts:
        yield from _reads(inner)


def _tell_origins(asked: Asked, read: NextRead, sources: Sources) -> list[Why]:
    told = (sources.of_name(name, origin, read.visit, read.turn) for name, origin in asked.origins.items())
    return [why for why in told if why is not None]

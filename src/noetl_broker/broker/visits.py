"""Why a visit of a step ran: which events and conditions led to it, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.conditions import NextRead, tell_condition
from noetl_broker.broker.initial import TO_START
from noetl_broker.broker.model import JSON
from noetl_broker.broker.sources import tell_part
from noetl_broker.broker.why import Why
from noetl_broker.broker.words import cut, listed, shown, visit_name
from noetl_broker.times import moment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from noetl_broker.broker.journey import Component
    from noetl_broker.broker.model import Emitted
    from noetl_broker.broker.sources import Sources
    from noetl_broker.broker.state import Arrival, Visit
    from noetl_broker.playbook.model import Arc, Playbook


class Telling:
    """The visits of one execution told; `read` are the conditions that were taken apart for it."""

    def __init__(self, playbook: Playbook, sources: Sources, read: Mapping[Visit, NextRead]) -> None:
        """Take the playbook that the execution ran on."""
        self._playbook = playbook
        self._sources = sources
        self._journey = sources.journey
        self._read = read

    def of_visit(self, visit: Visit) -> Why:
        """One visit: when and why it began, what it was given, what it led to."""
        turn = self._journey.entered_in[visit]
        at = self._at(turn)
        because = [self._of_component(component) for component in self._journey.components.get(visit, [])]
        arrival = self._journey.entered[visit]
        if arrival.inputs:
            says = f"the transition gave it {shown(arrival.inputs)}"
            because.append(Why("inputs", says, {"inputs": cut(arrival.inputs)}))
        because += [*self.of_end(visit), *self.of_next(visit)]
        facts: dict[str, JSON] = {"step": visit[0], "visit": visit[1], "turn": turn, "at": at}
        return Why(
            "entered", f"{visit_name(*visit)} was entered in turn {turn}, at {moment(at)}", facts, tuple(because)
        )

    def of_end(self, visit: Visit) -> list[Why]:
        """What a visit gave, or how it failed; nothing of one that runs, or that gives nothing."""
        for turn in self._sources.history.turns:
            for event in turn.events:
                if event.type == "step_failed" and (event.step, event.visit) == visit:
                    return [self._of_failure(turn.turn.number, event)]
        given = self._sources.data_of(visit)
        if given is None:
            return []
        turn_number = self._journey.left_in.get(visit, 0)
        says = f"it gave {shown(given.data)}, with {self._sources.event_of(turn_number)}"
        facts: dict[str, JSON] = {"data": cut(given.data), "status": given.status, "turn": turn_number}
        child = self._child_of(turn_number)
        if child is not None:
            says, facts = f"{says} of execution {child}", {**facts, "child_execution_id": child}
        return [Why("gave", says, facts)]

    def _child_of(self, turn_number: int) -> JSON:
        """The execution that a turn's event is a letter of; None where it is none."""
        meta = next((one.event.meta for one in self._sources.history.turns if one.turn.number == turn_number), None)
        child = meta.get("child_execution_id") if isinstance(meta, dict) else None
        return child if isinstance(child, int) else None

    def of_next(self, visit: Visit) -> list[Why]:
        """What a visit that is done led to, with its conditions."""
        read = self._read.get(visit)
        step = self._playbook.steps[visit[0]]
        if read is None or not step.next:
            return []
        targets = [self._playbook.arcs[arc].target for arc in sorted(read.fired)]
        says = f"it led to {listed(targets)}" if targets else "it led nowhere: no transition of it was taken"
        told = [tell_condition(asked, read, self._sources) for asked in read.asked.values()]
        for turn, arrival in self._journey.absorbed:
            if turn == read.turn and arrival.arc in read.fired:
                says_spent = f"its token was spent: join {arrival.step} had run already"
                told.append(Why("spent", says_spent, {"step": arrival.step}))
        return [Why("led_to", says, {"to": targets, "turn": read.turn}, tuple(told))]

    def of_arc(self, arc: Arc, read: NextRead) -> Why:
        """Why a transition was not taken, though the visit before it is done."""
        entry = self._playbook.steps[arc.source].next[arc.entry]
        own = read.asked.get(arc.entry)
        true = [asked for asked in read.asked.values() if asked.outcome]
        failed = [asked for asked in read.asked.values() if asked.outcome is None]
        if own is not None:
            return tell_condition(own, read, self._sources)
        if failed:
            return tell_condition(failed[0], read, self._sources)
        if entry.condition is not None:
            says = (
                f"its condition {entry.condition.source} was not read: next_mode is exclusive, one before it was true"
            )
        else:
            says = "it is taken only where no condition of the list is true"
        return Why("not_read", says, {}, tuple(tell_condition(asked, read, self._sources) for asked in true))

    def _of_failure(self, turn: int, event: Emitted) -> Why:
        error = event.error
        message = error.get("message") if isinstance(error, dict) else error
        says = f"it failed on {self._sources.event_of(turn)}: {message}"
        spent = (event.meta or {}).get("spent")
        because = (tell_dropped(spent),) if spent else ()
        return Why("failed", says, {"turn": turn, "error": error}, (*because, *tell_part(error)))

    def _of_component(self, component: Component) -> Why:
        source, arrival = component
        if source is None:
            return self._from_outside(arrival)
        step = self._playbook.steps[source[0]]
        because = self._why_taken(source, arrival.arc)
        turn = self._journey.left_in[source]
        facts: dict[str, JSON] = {"step": source[0], "visit": source[1], "turn": turn}
        if step.kind == "control":
            before = [self._of_component(one) for one in self._journey.components.get(source, [])]
            says = f"{visit_name(*source)} was passed in turn {turn}"
            return Why("passed", says, facts, (*because, *before))
        return Why("done", f"{visit_name(*source)} was done with {self._sources.event_of(turn)}", facts, tuple(because))

    def _why_taken(self, source: Visit, arc: int) -> list[Why]:
        """The condition of a transition that was taken, or that none of the list was true; nothing without any."""
        read = self._read.get(source)
        if read is None:
            return []
        entry = self._playbook.arcs[arc].entry
        if entry in read.asked:
            return [tell_condition(read.asked[entry], read, self._sources)]
        others = tuple(tell_condition(one, read, self._sources) for place, one in read.asked.items() if place < entry)
        return [Why("otherwise", "no condition of the list was true", {}, others)] if others else []

    def _from_outside(self, arrival: Arrival) -> Why:
        fork = self._sources.facts.forked_from
        if fork is not None:
            where = "" if arrival.arc == TO_START else f", where {self._playbook.arcs[arrival.arc].source} led to it"
            return Why("forked", f"this execution was forked from {fork}{where}", {"execution_id": fork})
        turn = self._journey.entered_in.get((arrival.step, 1), 1)
        return Why("started", f"the execution began with {self._sources.event_of(turn)}", {"turn": turn})

    def _at(self, turn: int) -> JSON:
        return next(one.turn.at for one in self._sources.history.turns if one.turn.number == turn)


def tell_dropped(joins: list[str]) -> Why:
    """Why a failure failed nothing: for which joins its token was spent."""
    had = f"join {joins[0]} had" if len(joins) == 1 else f"the joins {listed(joins)} had"
    says = f"that failed nothing: its token was spent, {had} run already"
    return Why("spent", says, {"joins": joins})

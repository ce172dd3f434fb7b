"""Explains a visit of a step: which events and conditions led to it, and how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.state import TO_START
from noetl_broker.explain.conditions import EvaluatedNext, explain_condition
from noetl_broker.explain.error_text import error_text
from noetl_broker.explain.provenance import envelope_note, explain_failed_part
from noetl_broker.explain.reason import Reason
from noetl_broker.node_ids import visit_name
from noetl_broker.text import join_names, moment, short_json, shorten

if TYPE_CHECKING:
    from collections.abc import Mapping

    from noetl_broker.broker.model.event import Emitted
    from noetl_broker.broker.model.values import Visit
    from noetl_broker.broker.state.state import Arrival
    from noetl_broker.explain.provenance import Provenance
    from noetl_broker.history.timeline import IncomingToken
    from noetl_broker.playbook.model import Arc, Playbook


class VisitExplainer:
    """Explains visits of one execution; `read` are the conditions that were evaluated again."""

    def __init__(self, playbook: Playbook, provenance: Provenance, read: Mapping[Visit, EvaluatedNext]) -> None:
        self._playbook = playbook
        self._provenance = provenance
        self._timeline = provenance.timeline
        self._read = read

    def of_visit(self, visit: Visit) -> Reason:
        """When and why a visit began, its inputs, its end, and what it led to."""
        turn = self._timeline.entered_in[visit]
        at = self._at(turn)
        because = [self._of_token(token) for token in self._timeline.incoming.get(visit, [])]
        arrival = self._timeline.entered[visit]
        if arrival.inputs:
            says = f"its transition passed {short_json(arrival.inputs)}"
            because.append(Reason("inputs", says, {"inputs": shorten(arrival.inputs)}))
        because += [*self.of_end(visit), *self.of_next(visit)]
        facts: dict[str, JSON] = {"step": visit[0], "visit": visit[1], "turn": turn, "at": at}
        says = f"{visit_name(*visit)} was entered in turn {turn}, at {moment(at)}"
        return Reason("entered", says, facts, tuple(because))

    def of_end(self, visit: Visit) -> list[Reason]:
        """The result of a visit, or its failure; nothing where it is open or has no result."""
        for turn in self._provenance.history.turns:
            for event in turn.events:
                if event.type == "step_failed" and (event.step, event.visit) == visit:
                    return [self._of_failure(turn.turn.number, event)]
                if event.type == "step_cancelled" and (event.step, event.visit) == visit:
                    return [explain_cancelled(turn.turn.number, (event.meta or {}).get("spent") or [])]
        given = self._provenance.data_of(visit)
        if given is None:
            return []
        turn_number = self._timeline.done_in.get(visit, 0)
        says = f"its result is {short_json(given.data)}, from {self._provenance.event_of(turn_number)}"
        facts: dict[str, JSON] = {"data": shorten(given.data), "status": given.status, "turn": turn_number}
        child = self._child_of(turn_number)
        if child is not None:
            says, facts = f"{says} of execution {child}", {**facts, "child_execution_id": child}
        return [Reason("gave", says + envelope_note(given), facts)]

    def _child_of(self, turn_number: int) -> JSON:
        """The child execution whose end the turn read; None if it read another event."""
        meta = next((one.event.meta for one in self._provenance.history.turns if one.turn.number == turn_number), None)
        child = meta.get("child_execution_id") if isinstance(meta, dict) else None
        return child if isinstance(child, int) else None

    def of_next(self, visit: Visit) -> list[Reason]:
        """The transitions of a finished visit, with their conditions."""
        read = self._read.get(visit)
        step = self._playbook.steps[visit[0]]
        if read is None or not (step.next or step.catch):
            return []
        reasons = self._of_catch(read)
        targets = [self._playbook.arcs[arc].target for arc in sorted(read.fired)]
        if read.catch is not None and not read.fired:
            return reasons  # it failed, and nothing followed
        says = f"it led to {join_names(targets)}" if targets else "it led nowhere: none of its transitions was taken"
        read_before = {} if read.caught is not None else read.conditions
        because = [explain_condition(condition, read, self._provenance) for condition in read_before.values()]
        for source, arrival, turn, cancelled_by in self._timeline.absorbed:
            if source == visit:
                spent = f"its token ended: join {arrival.step} had already run"
                if cancelled_by is not None:
                    spent = explain_cancelled_token(turn, cancelled_by)
                because.append(Reason("spent", spent, {"step": cancelled_by or arrival.step}))
        return [*reasons, Reason("led_to", says, {"to": targets, "turn": read.turn}, tuple(because))]

    def _of_catch(self, read: EvaluatedNext) -> list[Reason]:
        """The outcome of the `catch` of a failed visit, with its conditions; nothing if it was not read."""
        if read.catch is None:
            return []
        because = tuple(explain_condition(condition, read, self._provenance) for condition in read.catch.values())
        facts: dict[str, JSON] = {"entry": read.caught, "turn": read.turn}
        if read.caught is not None:
            return [
                Reason("caught", f"its catch handled the failure: entry {read.caught + 1} was taken", facts, because)
            ]
        if any(condition.outcome is None for condition in read.catch.values()):
            return [Reason("catch_failed", "its catch could not be read: a template of it failed", facts, because)]
        return [Reason("not_caught", "its catch did not handle the failure: no entry was true", facts, because)]

    def of_catch_arc(self, arc: Arc, read: EvaluatedNext | None) -> Reason:
        """Why an entry of a `catch` was not taken."""
        source = arc.source
        if read is None or read.catch is None:
            return Reason("not_failed", f"a catch is read only when its step failed for good: {source} did not")
        own = read.catch.get(arc.entry)
        if own is not None:
            return explain_condition(own, read, self._provenance)
        if read.caught is not None and read.caught < arc.entry:
            says = f"it was not read: entry {read.caught + 1} of the catch was taken before"
            because = read.catch.get(read.caught)
            true = () if because is None else (explain_condition(because, read, self._provenance),)
            return Reason("not_read", says, {"entry": read.caught}, true)
        failed = tuple(explain_condition(one, read, self._provenance) for one in read.catch.values())
        return Reason("not_read", "it was not read: a template before it failed", {}, failed)

    def of_arc(self, arc: Arc, read: EvaluatedNext) -> Reason:
        """Why a transition was not taken when its visit finished."""
        if arc.branch == "catch":
            return self.of_catch_arc(arc, read)
        if read.caught is not None:
            says = f"{arc.source} failed, and entry {read.caught + 1} of its catch was taken"
            return Reason("caught", says, {"entry": read.caught}, tuple(self._of_catch(read)))
        if read.catch is not None and not read.conditions and not read.fired:
            return Reason("failed", f"{arc.source} failed, so its next was not read", {}, tuple(self._of_catch(read)))
        entry = self._playbook.steps[arc.source].next[arc.entry]
        own = read.conditions.get(arc.entry)
        true = [condition for condition in read.conditions.values() if condition.outcome]
        failed = [condition for condition in read.conditions.values() if condition.outcome is None]
        if own is not None:
            return explain_condition(own, read, self._provenance)
        if failed:
            return explain_condition(failed[0], read, self._provenance)
        if entry.condition is not None:
            says = f"its condition {entry.condition.source} was not evaluated: "
            says += "next_mode is exclusive and an earlier condition was true"
        else:
            says = "it is taken only if no condition of the list is true"
        return Reason("not_read", says, {}, tuple(explain_condition(one, read, self._provenance) for one in true))

    def _of_failure(self, turn: int, event: Emitted) -> Reason:
        error, facts = event.error, self._provenance.facts
        attempt = facts.attempt_of((event.step or "", event.visit))
        says = f"it failed on {self._provenance.event_of(turn)}: {error_text(error, attempt)}"
        spent = (event.meta or {}).get("spent")
        because = (explain_spent_failure(spent),) if spent else ()
        return Reason("failed", says, {"turn": turn, "error": error}, (*because, *explain_failed_part(error)))

    def _of_token(self, token: IncomingToken) -> Reason:
        """The origin of a token."""
        source, arrival = token
        if source is None:
            return self._from_outside(arrival)
        step = self._playbook.steps[source[0]]
        because = self._why_taken(source, arrival.arc)
        turn = self._timeline.done_in[source]
        facts: dict[str, JSON] = {"step": source[0], "visit": source[1], "turn": turn}
        if not step.has_action:
            before = [self._of_token(one) for one in self._timeline.incoming.get(source, [])]
            says = f"{visit_name(*source)} was passed in turn {turn}"
            return Reason("passed", says, facts, (*because, *before))
        ended = "failed on" if self._playbook.arcs[arrival.arc].branch == "catch" else "finished with"
        says = f"{visit_name(*source)} {ended} {self._provenance.event_of(turn)}"
        return Reason("done", says, facts, tuple(because))

    def _why_taken(self, source: Visit, arc: int) -> list[Reason]:
        """The condition of a taken transition, or a sentence that no condition was true; nothing without conditions."""
        read = self._read.get(source)
        if read is None:
            return []
        entry = self._playbook.arcs[arc].entry
        if self._playbook.arcs[arc].branch == "catch":
            return self._of_catch(read)
        if entry in read.conditions:
            return [explain_condition(read.conditions[entry], read, self._provenance)]
        others = tuple(
            explain_condition(one, read, self._provenance) for index, one in read.conditions.items() if index < entry
        )
        return [Reason("otherwise", "no condition of the list was true", {}, others)] if others else []

    def _from_outside(self, arrival: Arrival) -> Reason:
        fork = self._provenance.facts.forked_from
        if fork is not None:
            where = "" if arrival.arc == TO_START else f", where {self._playbook.arcs[arrival.arc].source} led to it"
            return Reason("forked", f"this execution continues {fork}{where}", {"execution_id": fork})
        turn = self._timeline.entered_in.get((arrival.step, 1), 1)
        return Reason("started", f"the execution started with {self._provenance.event_of(turn)}", {"turn": turn})

    def _at(self, turn: int) -> JSON:
        return next(one.turn.at for one in self._provenance.history.turns if one.turn.number == turn)


def explain_spent_failure(joins: list[str]) -> Reason:
    """Why the execution continued after a failure: the token was spent for these joins."""
    had = f"join {joins[0]} had" if len(joins) == 1 else f"the joins {join_names(joins)} had"
    says = f"the execution continued: {had} already run, so the token was spent"
    return Reason("spent", says, {"joins": joins})


def explain_cancelled(turn: int, joins: list[str]) -> Reason:
    """Why a visit was cancelled without a result."""
    ran = f"join {joins[0]} needs" if len(joins) == 1 else f"the joins {join_names(joins)} need"
    return Reason("cancelled", f"it was cancelled in turn {turn}: {ran} it no more", {"turn": turn, "joins": joins})


def explain_cancelled_token(turn: int, join: str) -> str:
    """Why a token ended before it began a visit."""
    return f"its token ended in turn {turn}: join {join} ran and cancelled its losers"

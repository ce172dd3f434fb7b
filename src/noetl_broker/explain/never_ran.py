"""Explains why a step never ran: why no transition to it brought a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.model.values import JSON
from noetl_broker.explain.reason import Reason
from noetl_broker.explain.visits import explain_cancelled, explain_cancelled_token, explain_spent_failure
from noetl_broker.node_ids import visit_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from noetl_broker.broker.model.values import Visit
    from noetl_broker.broker.state.state import ExecutionState
    from noetl_broker.explain.conditions import EvaluatedNext
    from noetl_broker.explain.visits import VisitExplainer
    from noetl_broker.history.timeline import Timeline
    from noetl_broker.playbook.model import Arc, Playbook

DEEPEST = 4  # earlier steps that are explained as well


class NeverRan:
    """Explains steps that never ran."""

    def __init__(
        self,
        playbook: Playbook,
        timeline: Timeline,
        state: ExecutionState,
        read: Mapping[Visit, EvaluatedNext],
        visits: VisitExplainer,
    ) -> None:
        self._playbook = playbook
        self._timeline = timeline
        self._state = state
        self._read = read
        self._visits = visits
        self._explained: set[str] = set()

    def of_step(self, name: str, *, depth: int = 0) -> tuple[Reason, ...]:
        """For each transition to the step, why it brought no token."""
        self._explained.add(name)
        arcs = [arc for arc in self._playbook.arcs if arc.target == name]
        if not arcs:
            return (Reason("unreachable", "no transition of the playbook leads to it"),)
        return tuple(self._of_arc(arc, depth) for arc in arcs)

    def _of_arc(self, arc: Arc, depth: int) -> Reason:
        source = arc.source
        condition = f" (when {arc.condition})" if arc.condition is not None else ""
        what = f"the {'else ' if arc.branch == 'else' else ''}transition from {source}{condition}"
        if arc.branch == "catch":
            what = f"the catch of {source}{condition}"
        facts: dict[str, JSON] = {"from": source, "arc": arc.ordinal, "condition": arc.condition}
        live = [token for token in self._state.tokens.values() if token.step == source]
        if live:
            name = visit_name(source, live[0].visit)
            return Reason("not_yet", f"{what} is not decided yet: {name} is still running", facts)
        if source in self._state.waiting:
            return Reason("not_yet", f"{what} is not decided yet: {source} is still waiting", facts)
        latest = self._timeline.latest(source)
        if latest:
            return self._of_done(arc, (source, latest), what, facts)
        entered = [visit for visit in self._timeline.entered if visit[0] == source]
        failed = next((visit for visit in entered if visit in self._read and self._read[visit].catch is not None), None)
        if failed is not None:
            says = f"{what} was not taken when {visit_name(*failed)} failed"
            return Reason("not_taken", says, facts, (self._visits.of_arc(arc, self._read[failed]),))
        if entered:
            return Reason("cut_off", f"{what} was never decided: {source} was entered but did not finish", facts)
        return self._of_unvisited(source, what, facts, depth)

    def _of_done(self, arc: Arc, visit: Visit, what: str, facts: dict[str, JSON]) -> Reason:
        name = visit_name(*visit)
        facts = {**facts, "visit": visit[1]}
        if visit in self._timeline.spent_failures:
            because = (explain_spent_failure(self._timeline.spent_failures[visit]),)
            return Reason("failed", f"{what} was never taken: {name} failed", facts, because)
        if visit in self._timeline.cancelled:
            because = (explain_cancelled(self._timeline.done_in[visit], self._timeline.cancelled[visit]),)
            return Reason("cancelled", f"{what} was never taken: {name} was cancelled", facts, because)
        read = self._read.get(visit)
        if read is None:
            return Reason("before", f"{what} is not known: {name} was done before the fork", facts)
        if arc.ordinal in read.fired:
            for source, arrival, turn, cancelled_by in self._timeline.absorbed:
                if cancelled_by is not None and (source, arrival.arc) == (visit, arc.ordinal):
                    return Reason(
                        "cancelled", f"{what} was taken, but {explain_cancelled_token(turn, cancelled_by)}", facts
                    )
            return Reason(
                "cut_off", f"{what} was taken, but the execution ended before {arc.target} was entered", facts
            )
        ended = "finished" if read.catch is None else "failed"
        return Reason(
            "not_taken", f"{what} was not taken when {name} {ended}", facts, (self._visits.of_arc(arc, read),)
        )

    def _of_unvisited(self, source: str, what: str, facts: dict[str, JSON], depth: int) -> Reason:
        says = f"{what} was never decided: {source} never ran"
        if source in self._explained or depth >= DEEPEST:
            return Reason("never_ran", says, facts)
        return Reason("never_ran", says, facts, self.of_step(source, depth=depth + 1))

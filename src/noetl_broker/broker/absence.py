"""Why a step never ran: the transitions that lead to it, and why none of them has brought a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.model import JSON
from noetl_broker.broker.visits import tell_dropped
from noetl_broker.broker.why import Why
from noetl_broker.broker.words import visit_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from noetl_broker.broker.conditions import NextRead
    from noetl_broker.broker.journey import Journey
    from noetl_broker.broker.state import ExecutionState, Visit
    from noetl_broker.broker.visits import Telling
    from noetl_broker.playbook.model import Arc, Playbook

DEEPEST = 4  # steps before the one that is asked about, that never ran either


class Absence:
    """What can be said of steps that never ran."""

    def __init__(
        self,
        playbook: Playbook,
        journey: Journey,
        state: ExecutionState,
        read: Mapping[Visit, NextRead],
        telling: Telling,
    ) -> None:
        """Take the way so far, where the execution stands, and the conditions that were taken apart."""
        self._playbook = playbook
        self._journey = journey
        self._state = state
        self._read = read
        self._telling = telling
        self._told: set[str] = set()

    def of_step(self, name: str, *, depth: int = 0) -> tuple[Why, ...]:
        """For each transition into the step, why it brought no token."""
        self._told.add(name)
        arcs = [arc for arc in self._playbook.arcs if arc.target == name]
        if not arcs:
            return (Why("unreachable", "no transition of the playbook leads to it"),)
        return tuple(self._of_arc(arc, depth) for arc in arcs)

    def _of_arc(self, arc: Arc, depth: int) -> Why:
        source = arc.source
        condition = f" (when {arc.condition})" if arc.condition is not None else ""
        what = f"the {'else ' if arc.branch == 'else' else ''}transition from {source}{condition}"
        facts: dict[str, JSON] = {"from": source, "arc": arc.ordinal, "condition": arc.condition}
        live = [token for token in self._state.tokens.values() if token.step == source]
        if live:
            name = visit_name(source, live[0].visit)
            return Why("not_yet", f"{what} is not decided yet: {name} still runs", facts)
        if source in self._state.waiting:
            return Why("not_yet", f"{what} is not decided yet: {source} waits for what can still reach it", facts)
        latest = self._journey.latest(source)
        if latest:
            return self._of_done(arc, (source, latest), what, facts)
        if any(step == source for step, _ in self._journey.entered):
            return Why("cut_off", f"{what} was never decided: {source} was entered, and not done", facts)
        return self._of_absent(source, what, facts, depth)

    def _of_done(self, arc: Arc, visit: Visit, what: str, facts: dict[str, JSON]) -> Why:
        name = visit_name(*visit)
        facts = {**facts, "visit": visit[1]}
        if visit in self._journey.dropped:
            because = (tell_dropped(self._journey.dropped[visit]),)
            return Why("failed", f"{what} was never taken: {name} failed", facts, because)
        read = self._read.get(visit)
        if read is None:
            return Why("before", f"{what}: {name} was done before this execution was forked", facts)
        if arc.ordinal in read.fired:
            return Why("cut_off", f"{what} was taken, and the execution ended before {arc.target} was entered", facts)
        return Why("not_taken", f"{what} was not taken when {name} was done", facts, (self._telling.of_arc(arc, read),))

    def _of_absent(self, source: str, what: str, facts: dict[str, JSON], depth: int) -> Why:
        says = f"{what} was never decided: {source} never ran"
        if source in self._told or depth >= DEEPEST:
            return Why("never_ran", says, facts)
        return Why("never_ran", says, facts, self.of_step(source, depth=depth + 1))

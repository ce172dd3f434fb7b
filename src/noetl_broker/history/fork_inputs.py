"""Renders again what a fork's step and `end` are given, where the fork has other results or another playbook."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.arrivals.forks import ArcNames, MalformedFork
from noetl_broker.broker.arrivals.joins import merge_arrivals
from noetl_broker.broker.arrivals.steps import visit_inputs
from noetl_broker.broker.draft.draft import Draft
from noetl_broker.broker.draft.known import Found, Known, result_of
from noetl_broker.broker.draft.wants import want_failed, want_failing, want_step, want_turn
from noetl_broker.broker.initial import make_workload
from noetl_broker.broker.model.event import Event
from noetl_broker.broker.model.event_types import STEP_RESULT
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.state import (
    FAILED,
    NO_INPUTS,
    RUNNING,
    TO_START,
    Arrival,
    EndReached,
    ExecutionState,
    InlineResult,
    ResultRef,
)
from noetl_broker.broker.writing.inputs import condition_scope, reach, render_inputs
from noetl_broker.playbook.keywords import ERROR

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from noetl_broker.broker.model.values import Visit
    from noetl_broker.history.record import History
    from noetl_broker.history.timeline import IncomingToken, Timeline
    from noetl_broker.playbook.model import Playbook, Step, Target


class ForkPoint(NamedTuple):
    """An execution within a turn: what happened before, the facts, and its state, as `playbook` decides its turns."""

    playbook: Playbook
    turn: int
    timeline: Timeline
    known: Known
    state: ExecutionState


class TakenResult(NamedTuple):
    """A result that a fork takes over. `name`: its name in the state; None: its step_completed has it.

    `given` has the value, if an operator gave it.
    """

    step: str
    visit: int
    status: str
    name: int | None
    given: tuple[JSON, ...] = ()

    def document(self) -> dict[str, JSON]:
        """The result in the store's form."""
        document: dict[str, JSON] = {"step": self.step, "visit": self.visit, "status": self.status}
        if self.name is not None:
            document["name"] = self.name
        return {**document, "set": self.given[0]} if self.given else document


class TakenResults:
    """The results of an execution up to a turn, with the `values` that an operator gave for steps."""

    def __init__(self, timeline: Timeline, turn: int, values: Mapping[str, JSON]) -> None:
        """A value replaces the latest result of its step. Without one, it is named like the result of a later turn."""
        recorded = [
            TakenResult(*visit, result.status, result.name if result.visit is None else None)
            for visit, result in timeline.results.items()
        ]
        self.given = values
        self.latest = {one.step: one for one in sorted(recorded, key=lambda one: one.visit)}
        for name, (step, value) in enumerate(values.items(), turn + 1):
            before = self.latest.get(step)
            visit = max(timeline.latest(step), 1) if before is None else before.visit
            named = name if before is None or before.name is None else before.name
            self.latest[step] = TakenResult(step, visit, "COMPLETED", named, (value,))
        self._by_name = {one.name: one for one in (*recorded, *self.latest.values()) if one.name is not None}

    def taken(self, carried: Iterable[ResultRef], steps: Collection[str]) -> list[TakenResult]:
        """The latest results of these steps, and those that tokens carry."""
        latest = [self.latest[step] for step in steps if step in self.latest]
        named = [self._by_name[name] for name in carried if isinstance(name, int) and name in self._by_name]
        return [*{(one.step, one.visit): one for one in (*latest, *named) if one.step in steps}.values()]


class ForkInputs:
    """Renders inputs with the playbook of a fork and the results that it begins with."""

    def __init__(self, history: History, before: ForkPoint, playbook: Playbook, results: TakenResults) -> None:
        """Make the workload. Raises TemplateError if that fails."""
        self._own_arcs, self._arcs, self._playbook = ArcNames(before.playbook.arcs), ArcNames(playbook.arcs), playbook
        self._timeline, self._latest = before.timeline, results.latest
        answers = dict(before.known.answers)
        for taken in results.latest.values():
            if taken.given and taken.name is not None:
                result = result_of(STEP_RESULT, taken.given[0], None)
                answers[want_turn(taken.name)] = result
                answers[want_step(taken.step)] = Found(taken.visit, result)
                for want in (want_failed(taken.step, taken.visit), want_failing(taken.step, taken.visit)):
                    answers.pop(want, None)
        known = Known(history.rules, answers, complete=True)
        turn = history.turns[-1].turn._replace(number=0)  # no token carries its result
        self._draft = Draft(playbook, ExecutionState(RUNNING), Event(STEP_RESULT), turn, known)
        for name, taken in results.latest.items():
            if name in playbook.steps:
                self._draft.state.count_visits(playbook.steps[name], taken.visit)
        make_workload(self._draft, history.workload or {})

    def arrival_of(self, visit: Visit) -> Arrival:
        """The arrival of a visit. Raises TemplateError or NotLoaded."""
        step, incoming = self._playbook.steps[visit[0]], self._timeline.incoming.get(visit)
        return self._arrival_again(step, incoming) if incoming else self._first_arrival(step)

    def end_again(self, end: EndReached) -> EndReached | None:
        """The last visit of `end` with its inputs rendered again. Raises TemplateError or NotLoaded.

        Unchanged where the tokens that made it are not known; None if this playbook has no `end`.
        """
        step = self._playbook.end
        if step is None:
            return None
        visit = (step.name, self._timeline.latest(step.name))
        left, incoming = self._timeline.left.get(visit), self._timeline.incoming.get(visit)
        if step.has_action and left is not None and left.given.values:
            return reach(step, end.result, left.given)
        if not incoming:
            return end
        arrival = self._arrival_again(step, incoming)
        result = end.result if step.has_action else arrival.result
        return reach(step, result, visit_inputs(self._draft, step, arrival))

    def _arrival_again(self, step: Step, incoming: list[IncomingToken]) -> Arrival:
        """The tokens of a visit, with their inputs rendered again, merged."""
        return merge_arrivals([self._again(step, *token) for token in incoming])

    def _first_arrival(self, step: Step) -> Arrival:
        """The arrival at a step that was never entered: one arc from each preceding step that has a result.

        Conditions are not evaluated. A join that does not wait for all takes the latest tokens that it needs.
        """
        latest = self._latest
        arcs: dict[str, int] = {}
        leading = [arc for arc in self._playbook.arcs if arc.target == step.name and arc.source in latest]
        for arc in sorted(leading, key=lambda arc: (arc.branch == "catch") != (latest[arc.source].status == FAILED)):
            arcs.setdefault(arc.source, arc.ordinal)
        arrivals = [self._first(source, arcs[source]) for source in sorted(arcs, key=self._came)]
        if not arrivals:
            return Arrival(TO_START, step.name, {})
        return merge_arrivals(arrivals[-step.need :] if step.join in {"any", "each"} else arrivals)

    def _came(self, source: str) -> int:
        """When the result of a step came, as a number to order by."""
        taken = self._latest[source]
        return self._timeline.done_in[source, taken.visit] if taken.name is None else taken.name

    def _first(self, source: str, arc: int) -> Arrival:
        taken = self._latest[source]
        result: ResultRef = taken.name
        if result is None:
            found = self._draft.known.ask(want_step(source))
            result = InlineResult(found.result.data) if isinstance(found, Found) else None
        inputs = self._render(arc, (source, taken.visit), result)
        return Arrival(arc, self._playbook.arcs[arc].target, inputs, result, (source,))

    def _again(self, step: Step, source: Visit | None, arrival: Arrival) -> Arrival:
        """A token with its inputs rendered again, without the steps that this playbook does not have."""
        steps = self._playbook.steps
        sources = tuple(name for name in arrival.sources if name in steps)
        spent = frozenset(name for name in arrival.spent if name in steps)
        again = arrival._replace(arc=TO_START, sources=sources, spent=spent)
        try:
            arc = self._arcs.find(self._own_arcs.name(arrival.arc), step.name)
        except MalformedFork:
            return again
        if arc == TO_START:
            return again
        # A token without a source came before the fork that this history is of: its visit's inputs are not known.
        inputs = self._render(arc, source or (self._playbook.arcs[arc].source, 0), arrival.result)
        return again._replace(arc=arc, inputs=inputs)

    def _render(self, arc: int, visit: Visit, result: ResultRef) -> dict[str, JSON]:
        """The inputs of a transition that leaves this visit; `result` is the result that its token carried."""
        step = self._playbook.steps[visit[0]]
        given = NO_INPUTS
        incoming = self._timeline.incoming.get(visit)
        if step.has_action:
            left = self._timeline.left.get(visit)
            given = left.given if left is not None else NO_INPUTS
        elif incoming:
            arrival = self._arrival_again(step, incoming)
            given, result = visit_inputs(self._draft, step, arrival), arrival.result
        if self._playbook.arcs[arc].branch == "catch":
            error = None if result is None else self._draft.templates.turn_result(result).error
            scope = condition_scope(self._draft, given, result, {ERROR: error})
        else:
            scope = self._draft.templates.scope(given.values, result)
        return render_inputs(self._draft, _target(step, arc).inputs, scope).values


def _target(step: Step, arc: int) -> Target:
    """The transition of a step that is this arc."""
    targets = (one for entry in (*step.next, *step.catch) for one in (*entry.then, *entry.otherwise))
    return next(one for one in targets if one.arc == arc)

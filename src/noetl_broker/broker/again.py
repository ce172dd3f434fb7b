"""Transitions taken again with other results or in another playbook: what a fork's step is handed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.closing import render_handed
from noetl_broker.broker.context import Found, Known, result_of, want_failed, want_failing, want_step, want_turn
from noetl_broker.broker.draft import Draft
from noetl_broker.broker.entering import visit_inputs
from noetl_broker.broker.given import NOTHING_GIVEN, Given
from noetl_broker.broker.initial import TO_START, make_workload
from noetl_broker.broker.inputs import reach
from noetl_broker.broker.joins import merge_arrivals
from noetl_broker.broker.model import STEP_RESULT, Event
from noetl_broker.broker.state import RUNNING, Arrival, ExecutionState, Reached
from noetl_broker.broker.unfinished import unfinished_of

if TYPE_CHECKING:
    from noetl_broker.broker.history import History
    from noetl_broker.broker.journey import Component, Journey
    from noetl_broker.broker.shelf import Shelf
    from noetl_broker.broker.state import Visit
    from noetl_broker.playbook.model import Playbook, Step, Target
    from noetl_broker.template import Scope


class World:
    """An execution as a fork finds it at its start: the playbook, the results on the shelf, the workload."""

    def __init__(self, history: History, journey: Journey, known: Known, playbook: Playbook, shelf: Shelf) -> None:
        """The world of this playbook with these results; raises TemplateError where its workload cannot be made."""
        self._before = history.playbook
        self._journey = journey
        self._shelf = shelf
        self.playbook = playbook
        answers = dict(known.answers)
        for wanted in shelf.of_step.values():
            if wanted.by_hand:
                result = result_of(STEP_RESULT, wanted.value, None)
                answers[want_turn(wanted.name)] = result
                answers[want_step(wanted.step)] = Found(wanted.visit, result)
                for want in (want_failed(wanted.step, wanted.visit), want_failing(wanted.step, wanted.visit)):
                    answers.pop(want, None)
        state = ExecutionState(RUNNING)
        turn = history.turns[-1].turn
        known = Known(history.rules, answers, complete=True)
        self._draft = Draft(playbook, state, Event(STEP_RESULT), turn, known)
        for name, wanted in shelf.of_step.items():
            if name in playbook.steps:
                self._draft.count_visits(playbook.steps[name], wanted.visit)
        make_workload(self._draft, history.workload or {})

    def arrive(self, visit: Visit) -> Arrival:
        """What the step of a visit is handed; raises TemplateError, or NotLoaded."""
        step, came = self.playbook.steps[visit[0]], self._journey.components.get(visit)
        return self.arrive_again(step, came) if came else self.arrive_first(step)

    def reach_again(self, end: Reached) -> Reached | None:
        """The last visit of `end`: what its action was given, or what comes to it; raises TemplateError, or NotLoaded.

        As it was, where the way to it is not known any more; None where this playbook has no such step.
        """
        step = self.playbook.end
        if step is None:
            return None
        visit = (step.name, self._journey.latest(step.name))
        left, came = self._journey.left.get(visit), self._journey.components.get(visit)
        if step.kind != "control" and left is not None and left.given.values:
            return reach(step, end.result, left.given)
        if not came:
            return end
        arrival = self.arrive_again(step, came)
        result = arrival.result if step.kind == "control" else end.result
        return reach(step, result, visit_inputs(self._draft, step, arrival))

    def arrive_again(self, step: Step, components: list[Component]) -> Arrival:
        """What came to the step, rendered in this world and merged; raises TemplateError, or NotLoaded."""
        return merge_arrivals([self._again(step, *component) for component in components])

    def arrive_first(self, step: Step) -> Arrival:
        """What would come to a step that was never entered: from each step before it with a result, by its first arc.

        Conditions are not asked. A join that does not gather takes the latest.
        """
        arcs: dict[str, int] = {}
        for arc in self.playbook.arcs:
            if arc.target == step.name and arc.source in self._shelf.of_step:
                arcs.setdefault(arc.source, arc.ordinal)
        results = self._shelf.of_step
        sources = sorted(arcs, key=lambda source: results[source].name)
        arrivals = [self._first(source, step) for source in sources]
        if not arrivals:
            return Arrival(TO_START, step.name, {})
        return arrivals[-1] if step.join in {"any", "each"} else merge_arrivals(arrivals)

    def _first(self, source: str, step: Step) -> Arrival:
        wanted = self._shelf.of_step[source]
        target = _between(self.playbook, source, step.name)[0]
        given = self._render(target, *self._seen((source, wanted.visit), wanted.name))
        return Arrival(target.arc, step.name, given.values, wanted.name, (source,), left=given.left)

    def _again(self, step: Step, source: Visit | None, arrival: Arrival) -> Arrival:
        steps = self.playbook.steps
        sources = tuple(name for name in arrival.sources if name in steps)
        spent = frozenset(name for name in arrival.spent if name in steps)
        kept = arrival._replace(step=step.name, sources=sources, spent=spent)
        target = self._target(arrival.arc, step.name)
        if target is None:
            return kept._replace(arc=TO_START)
        # without a source it came before the fork that this history is of: its inputs are not known any more
        visit = source or (self._source(arrival.arc), 0)
        given = self._render(target, *self._seen(visit, arrival.result))
        return kept._replace(arc=target.arc, inputs=given.values, left=given.left)

    def _render(self, target: Target, scope: Scope, given: Given) -> Given:
        """The inputs of a transition; `given` are those of the visit that it leaves."""
        return render_handed(self._draft, target, scope, given, unfinished_of(self._draft, given, leaving=True))

    def _seen(self, visit: Visit, handed: int | None) -> tuple[Scope, Given]:
        """What the `next` of a visit sees, and its inputs; `handed` is the result that the token took with it."""
        step = self.playbook.steps[visit[0]]
        given, result = NOTHING_GIVEN, handed
        came = self._journey.components.get(visit)
        if step.kind != "control":
            left = self._journey.left.get(visit)
            given = left.given if left is not None else NOTHING_GIVEN
        elif came:
            arrival = self.arrive_again(step, came)
            given, result = visit_inputs(self._draft, step, arrival), arrival.result
        return self._draft.scope(given.values, result), given

    def _source(self, arc: int) -> str:
        """The step that an arc of the history's own playbook leads from; nowhere: `""`."""
        if isinstance(self._before, str) or not 0 <= arc < len(self._before.arcs):
            return ""
        return self._before.arcs[arc].source

    def _target(self, arc: int, step: str) -> Target | None:
        """The transition that was taken, in this world's playbook: of the same place among those between the two."""
        if isinstance(self._before, str):
            return None
        source = self._source(arc)
        before = [target.arc for target in _between(self._before, source, step)]
        now = _between(self.playbook, source, step)
        return now[min(before.index(arc), len(now) - 1)] if arc in before and now else None


def _between(playbook: Playbook, source: str, target: str) -> list[Target]:
    """The transitions from one step to another, in the order of the document."""
    step = playbook.steps.get(source)
    entries = step.next if step is not None else ()
    return [one for entry in entries for one in (*entry.then, *entry.otherwise) if one.step == target]

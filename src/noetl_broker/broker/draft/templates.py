"""What the templates of one turn read: the workload, inputs, and the results of steps.

A result that is not loaded yet raises `NotLoaded`, which names all that the template reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.draft.known import NOT_LOADED, Found, Known, failed_item, result_of
from noetl_broker.broker.draft.wants import WORKLOAD, want_action, want_failed, want_failing, want_step, want_turn
from noetl_broker.broker.model.effects import ItemEnded
from noetl_broker.broker.model.limits import MAX_ITEM_ERRORS
from noetl_broker.broker.model.values import JSON, Visit, as_stored
from noetl_broker.broker.state.state import InlineResult, ResultRef
from noetl_broker.template.scope import Lazy, Moment, NotLoaded, Scope, StepResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    from noetl_broker.broker.draft.next_state import NextState
    from noetl_broker.broker.draft.writes import Writes
    from noetl_broker.broker.model.event import Event, Turn
    from noetl_broker.playbook.fields import Fields
    from noetl_broker.playbook.model import Playbook, Step
    from noetl_broker.template import Template, Tree


class Templates:
    """The templates of a turn: their scopes, and the values that they give."""

    __slots__ = (
        "_ended_result",
        "_event",
        "_known",
        "_made",
        "_moment",
        "_playbook",
        "_state",
        "_turn",
        "_workload",
        "_writes",
        "ended_visit",
    )  # fmt: skip

    def __init__(
        self,
        playbook: Playbook,
        state: NextState,
        event: Event,
        turn: Turn,
        known: Known,
        writes: Writes,
        moment: Moment,
    ) -> None:
        """The arguments are only read."""
        self._playbook, self._state, self._event, self._turn = playbook, state, event, turn
        self._known, self._writes, self._moment = known, writes, moment
        self.ended_visit: Visit | None = None  # the visit that the event ended
        self._ended_result: StepResult | None = None
        self._made: dict[str, StepResult] = {}  # results of visits that the core ended in their own turn
        self._workload: Mapping[str, JSON] | None = None

    def workload(self) -> Mapping[str, JSON]:
        """The workload: the playbook's defaults with the payload merged over them."""
        if self._workload is None:
            self._workload = self._known.ask(WORKLOAD)
        return self._workload

    def set_workload(self, workload: Mapping[str, JSON]) -> None:
        """Set the workload in the start turn, which renders it."""
        self._workload = workload

    def end_visit(self, visit: Visit | None, result: StepResult | None) -> tuple[Visit | None, StepResult | None]:
        """Record that the event ends this visit; returns the record before.

        Without `result`, the event has it; a large one is loaded when read.
        """
        before = self.ended_visit, self._ended_result
        self.ended_visit, self._ended_result = visit, result
        return before

    def make_result(self, visit: Visit, result: InlineResult) -> StepResult | None:
        """Record that the core ends this visit in the turn of its beginning; returns the record before."""
        before = self._made.get(visit[0])
        self._made[visit[0]] = made_result(result)
        return before

    def drop_result(self, step: str, before: StepResult | None) -> None:
        """Take back `make_result`: the visit did not complete after all."""
        self._made.pop(step)
        if before is not None:
            self._made[step] = before

    def ended_result(self) -> StepResult:
        """The result of the visit that the event ends."""
        if self._ended_result is None:
            event = self._event
            if event.result is NOT_LOADED:
                self._ended_result = self._known.ask(want_turn(self._turn.number))
            else:
                self._ended_result = result_of(event.type, event.result, event.error)
        return self._with_failed(self.ended_visit, self._ended_result)

    def turn_result(self, number: int | InlineResult) -> StepResult:
        """The result that a token carries: the result of this event, of an earlier event, or an inline result."""
        if isinstance(number, InlineResult):
            return made_result(number)
        if number == self._turn.number:
            return self.ended_result()
        carried: StepResult = self._known.ask(want_turn(number))
        return self._with_failed(None, carried)  # a number does not name its visit

    def step_result(self, name: str) -> StepResult | None:
        """The result of the step's latest visit that has one, or None."""
        step = self._playbook.steps.get(name)
        if step is None or not self._state.has_visited(step):
            return None
        if name in self._made:  # the latest: its visit began in this turn
            return self._made[name]
        own = self.ended_visit
        if own is None or own[0] != name:
            found = self._known.ask(want_step(name))
            return self._with_failed((name, found.visit), found.result) if isinstance(found, Found) else None
        if own[1] != self._state.visits(step):
            found = self._known.ask(want_step(name))
            if isinstance(found, Found) and found.visit > own[1]:
                return self._with_failed((name, found.visit), found.result)
        return self.ended_result()

    def _with_failed(self, visit: Visit | None, result: StepResult) -> StepResult:
        """The result of a visit; an iterator's failed items are loaded when a template reads them."""
        step = self._playbook.steps[visit[0]] if visit is not None else None
        iteration = step.iteration if step is not None else None
        if visit is None or iteration is None or (result.status == "FAILED" and not iteration.expanded):
            return result if result.failed is None else result._replace(failed=None)
        if result.failed is not None:  # from a worker that iterates
            return result
        return result._replace(failed=Lazy(lambda: self._failed_items(visit)))

    def _failed_items(self, visit: Visit) -> list[JSON]:
        """The failed items of a visit, {index, error}, by index; after MAX_ITEM_ERRORS the errors are null."""
        known = self._known
        found = [*(known.ask(want_failed(*visit)) or ()), *known.answers.get(want_failing(*visit), ())]  # type: ignore[misc]
        found += [
            failed_item(end) for end in self._writes.added(ItemEnded) if end[:2] == visit and end.status == "FAILED"
        ]
        found.sort(key=lambda item: item["index"])
        rest = [{**item, "error": None} for item in found[MAX_ITEM_ERRORS:]]
        return [*found[:MAX_ITEM_ERRORS], *rest]

    def request_of(self, step: Step, visit: int) -> dict[str, JSON]:
        """The action in the job of a visit of an earlier turn."""
        request: dict[str, JSON] = as_stored(self._known.ask(want_action(step.name, visit)))
        return request

    def scope(
        self,
        inputs: Mapping[str, JSON],
        result: ResultRef,
        words: Mapping[str, object] | None = None,
        *,
        own: str = "",
    ) -> Scope:
        """The names of a template with these inputs; `result` is what their token carries.

        `own` is the step whose `next` is read. Its name gives the result of the ended visit.
        """
        named: dict[str, object] = {"execution_id": self._turn.execution_id}
        if result is not None:
            named["result"] = named["this"] = Lazy(lambda: self.turn_result(result))
        if words:
            named.update(words)
        steps = self.step_result
        if own:
            steps = lambda name: self.ended_result() if name == own else self.step_result(name)  # noqa: E731 - short
        return Scope(inputs, steps, named, self.workload, self._playbook.steps, self._moment)

    def evaluate(self, template: Template | Tree, scope: Scope) -> JSON:
        """The template's value. If a result is not loaded, NotLoaded names all that the template reads."""
        try:
            return template.evaluate(scope)
        except NotLoaded as missing:
            raise NotLoaded(missing.wants | self.wants(template.names, template.results)) from None

    def holds(self, condition: Template, scope: Scope) -> bool:
        """Whether the condition is true; NotLoaded as in `evaluate`."""
        try:
            return condition.holds(scope)
        except NotLoaded as missing:
            raise NotLoaded(missing.wants | self.wants(condition.names, condition.results)) from None

    def render(self, tree: Tree | Fields, scope: Scope) -> JSON:
        """The tree rendered; NotLoaded as in `evaluate`."""
        try:
            return tree.render(scope)
        except NotLoaded as missing:
            raise NotLoaded(missing.wants | self.wants(tree.names, tree.results)) from None

    def wants(self, names: frozenset[str], results: frozenset[str] | None) -> frozenset[tuple[object, ...]]:
        """The wants of a template that reads these names, without answered wants."""
        steps = self._playbook.steps
        named = names | (frozenset(steps) if results is None else results)
        ended = None if self.ended_visit is None else self.ended_visit[0]
        visited = (name for name in named if name in steps and self._state.has_visited(steps[name]))
        wants = (want_step(name) for name in visited if name != ended)
        return frozenset(want for want in wants if want not in self._known.answers)


def made_result(result: InlineResult) -> StepResult:
    """The result of a step that the core made itself."""
    return StepResult(result.value, "COMPLETED" if result.error is None else "FAILED", result.error)

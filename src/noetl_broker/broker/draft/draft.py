"""A decision that is being made: the only mutable object of the core, alive for one turn.

The rules write what they decide into a draft. `take_turn` makes the draft and seals it at the end. A draft shares no
mutable object with the state that the turn started from.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from noetl_broker.broker.draft.beside_noetl import with_noetl_status
from noetl_broker.broker.draft.context import (
    NOT_LOADED,
    WORKLOAD,
    Found,
    Known,
    failed_item,
    result_of,
    want_action,
    want_failed,
    want_failing,
    want_step,
    want_turn,
)
from noetl_broker.broker.model.decision import Decision, ExecutionEnd, Job, StepRow
from noetl_broker.broker.model.effects import Effect, ItemEnded, Kind
from noetl_broker.broker.model.event import Emitted, Event, Turn
from noetl_broker.broker.model.limits import MAX_ITEM_ERRORS
from noetl_broker.broker.model.values import JSON, Visit, as_stored
from noetl_broker.broker.state.state import Arrival, EndReached, ExecutionState, InlineResult, ResultRef, Token, is_live
from noetl_broker.broker.state.trail import DroppedAtEnd, Trace
from noetl_broker.template.allowance import Allowance
from noetl_broker.template.output import size_of
from noetl_broker.template.scope import Lazy, Moment, NotLoaded, Scope, StepResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    from noetl_broker.playbook.fields import Fields
    from noetl_broker.playbook.model import Playbook, Step
    from noetl_broker.template import Template, Tree

DECIDED = "decided"
SHARES_OF_TURN = 3  # the template steps of one turn, as a multiple of those of one evaluation
OUTPUTS_OF_TURN = 16  # the template output of one turn, as a multiple of one output
FULL_CHARS = 4_194_304  # of output: then a turn starts no further item


class Writes:
    """What the turn writes so far: a `Decision` with lists instead of tuples, and rows by step."""

    __slots__ = ("carrier", "effects", "ended", "events", "jobs", "note", "outcome", "rows")

    def __init__(self) -> None:
        """Nothing is written yet."""
        self.outcome = DECIDED
        self.note: str | None = None
        self.events: list[Emitted] = []
        self.jobs: list[Job] = []
        self.rows: dict[str, StepRow] = {}
        self.ended: ExecutionEnd | None = None
        self.carrier: int | None = None
        self.effects: list[Effect] = []

    def decision(self, events: tuple[Emitted, ...]) -> Decision:
        """The decision, with these events."""
        rows = tuple(self.rows.values())
        # To call the class takes longer: it makes a mapping of the names.
        return Decision.__new__(
            Decision, outcome=self.outcome, note=self.note, events=events, jobs=tuple(self.jobs), rows=rows,
            ended=self.ended, carrier=self.carrier, effects=tuple(self.effects),
        )  # fmt: skip


class Draft:
    """One turn of one execution: what it started from, the state as it changes, and what the turn writes."""

    __slots__ = (
        "_ended_result",
        "_item_chars",
        "_made",
        "_workload",
        "arrivals",
        "compensation",
        "draining",
        "dropped_at_end",
        "end",
        "ended_visit",
        "ends",
        "event",
        "failed_before",
        "hold",
        "hops",
        "known",
        "moment",
        "parent",
        "places",
        "playbook",
        "repeats",
        "resumed",
        "seen",
        "signals",
        "status",
        "tokens",
        "total",
        "traced",
        "trail",
        "tried",
        "turn",
        "undo",
        "unknown",
        "waiting",
        "writes",
    )  # fmt: skip

    def __init__(
        self,
        playbook: Playbook,
        state: ExecutionState,
        event: Event,
        turn: Turn,
        known: Known,
        *,
        traced: bool = False,
    ) -> None:
        """The arguments are only read: the state's mappings are copied. `traced`: the trail is read."""
        self.playbook = playbook
        self.event = event
        self.turn = turn
        self.known = known
        rules = known.rules
        steps, chars = rules.template_max_steps, rules.template_max_output_chars
        allowance = Allowance(steps, chars, steps * SHARES_OF_TURN, chars * OUTPUTS_OF_TURN)
        self.moment = Moment(execution_id=turn.execution_id, turn=turn.number, at=turn.at, allowance=allowance)
        self.status = state.status
        self.tokens: dict[Visit, Token] = dict(state.tokens)
        self.waiting: dict[str, tuple[Arrival, ...]] = dict(state.waiting)
        self.seen = state.seen
        self.repeats: dict[str, int] = dict(state.repeats)
        self.total = state.total
        self.ends: dict[str, None] = dict.fromkeys(state.ends)  # in order, each once
        self.end = state.end
        self.parent = state.parent
        self.hold = state.hold
        self.resumed = 0  # arrivals that were kept: an earlier turn has counted them
        self.signals = list(state.signals)
        self.hops = state.hops
        self.failed_before = state.failed_before
        self.undo, self.unknown, self.compensation = state.undo, state.unknown, state.compensation
        self.places = state.places
        self.tried = 0  # kept signals that the turn has tried
        self.arrivals: deque[Arrival] = deque()
        self.ended_visit: Visit | None = None  # the visit that this event ended
        self._ended_result: StepResult | None = None
        self.writes = Writes()
        self.draining: list[Token] = []  # visits that were closed in this turn and are awaited
        self.trail: list[Trace] = []
        self.traced = traced
        self.dropped_at_end: DroppedAtEnd | None = None
        self._item_chars = 0
        self._workload: Mapping[str, JSON] | None = None
        self._made: dict[str, StepResult] = {}  # results of visits that the core ended in their own turn

    def seal(self) -> tuple[ExecutionState, Decision]:
        """The next state and the decision."""
        self.known.written += self.chars
        waiting, live = self.waiting, is_live(self.status)
        if waiting:
            waiting = {step: tuple(map(_without_passed, arrivals)) for step, arrivals in waiting.items()}
        end = self.end if self.end is None or live else EndReached(self.end.result)
        state = ExecutionState.__new__(  # as `Writes.decision` does
            ExecutionState, status=self.status, tokens=self.tokens, waiting=waiting, seen=self.seen,
            repeats=self.repeats, total=self.total, ends=tuple(self.ends), end=end, parent=self.parent,
            hold=self.hold if live else None, signals=tuple(self.signals) if live else (), hops=self.hops,
            undo=self.undo, unknown=self.unknown, compensation=self.compensation, places=self.places,
            failed_before=self.failed_before,
        )  # fmt: skip
        events = tuple(self.writes.events)
        if self.known.rules.beside_noetl:
            events = with_noetl_status(events, self.status)
        return state, self.writes.decision(events)

    def add(self, effect: Effect) -> None:
        """Write an effect."""
        self.writes.effects.append(effect)

    def added(self, kind: type[Kind]) -> list[Kind]:
        """The effects of a kind that the turn has written so far."""
        return [effect for effect in self.writes.effects if isinstance(effect, kind)]

    # Size

    @property
    def chars(self) -> int:
        """About how many characters of template output and of items' inputs the turn writes."""
        return self.moment.allowance.chars_used + self._item_chars

    @property
    def turn_is_full(self) -> bool:
        """Whether the turn should start no further item: a quarter of the output or half of the steps is used.

        The rest is for one item.
        """
        allowance = self.moment.allowance
        if allowance.steps_left < allowance.turn_steps // 2:
            return True
        return self.chars > min(FULL_CHARS, allowance.turn_chars // 4)

    def count_item(self, value: JSON) -> None:
        """Count the inputs of one item: a template rendered them once, and each item repeats them."""
        self._item_chars += size_of(value)

    # Visits

    def visits(self, step: Step) -> int:
        """The number of visits of the step."""
        if not self.seen >> step.index & 1:
            return 0
        return self.repeats.get(step.name, 1)

    @property
    def depth(self) -> int:
        """The number of executions above this one."""
        return self.parent.depth if self.parent is not None else 0

    def count_visit(self, step: Step, number: int) -> None:
        """Count one more visit of the step."""
        self.count_visits(step, max(number, self.visits(step)))
        self.total += 1

    def count_visits(self, step: Step, number: int) -> None:
        """Set the number of visits of the step."""
        self.seen |= 1 << step.index
        if number > 1:
            self.repeats[step.name] = number

    # What templates read

    def workload(self) -> Mapping[str, JSON]:
        """The workload: the playbook's defaults with the payload merged over them."""
        if self._workload is None:
            self._workload = self.known.ask(WORKLOAD)
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
            event = self.event
            if event.result is NOT_LOADED:
                self._ended_result = self.known.ask(want_turn(self.turn.number))
            else:
                self._ended_result = result_of(event.type, event.result, event.error)
        return self._with_failed(self.ended_visit, self._ended_result)

    def turn_result(self, number: int | InlineResult) -> StepResult:
        """The result that a token carries: that of this turn's event, of an earlier one, or an inline result."""
        if isinstance(number, InlineResult):
            return made_result(number)
        if number == self.turn.number:
            return self.ended_result()
        carried: StepResult = self.known.ask(want_turn(number))
        return self._with_failed(None, carried)  # a number does not name its visit

    def step_result(self, name: str) -> StepResult | None:
        """The result of the step's latest visit that has one, or None."""
        step = self.playbook.steps.get(name)
        if step is None or not self.seen >> step.index & 1:
            return None
        if name in self._made:  # the latest: its visit began in this turn
            return self._made[name]
        own = self.ended_visit
        if own is None or own[0] != name:
            found = self.known.ask(want_step(name))
            return self._with_failed((name, found.visit), found.result) if isinstance(found, Found) else None
        if own[1] != self.visits(step):
            found = self.known.ask(want_step(name))
            if isinstance(found, Found) and found.visit > own[1]:
                return self._with_failed((name, found.visit), found.result)
        return self.ended_result()

    def _with_failed(self, visit: Visit | None, result: StepResult) -> StepResult:
        """The result of a visit; an iterator's failed items are loaded when a template reads them."""
        step = self.playbook.steps[visit[0]] if visit is not None else None
        iteration = step.iteration if step is not None else None
        if visit is None or iteration is None or (result.status == "FAILED" and not iteration.expanded):
            return result if result.failed is None else result._replace(failed=None)
        if result.failed is not None:  # from a worker that iterates
            return result
        return result._replace(failed=Lazy(lambda: self._failed_items(visit)))

    def _failed_items(self, visit: Visit) -> list[JSON]:
        """The failed items of a visit, {index, error}, by index; after MAX_ITEM_ERRORS the errors are null."""
        known = self.known
        found = [*(known.ask(want_failed(*visit)) or ()), *known.answers.get(want_failing(*visit), ())]  # type: ignore[misc]
        found += [failed_item(end) for end in self.added(ItemEnded) if end[:2] == visit and end.status == "FAILED"]
        found.sort(key=lambda item: item["index"])
        rest = [{**item, "error": None} for item in found[MAX_ITEM_ERRORS:]]
        return [*found[:MAX_ITEM_ERRORS], *rest]

    def request_of(self, step: Step, visit: int) -> dict[str, JSON]:
        """The action in the job of a visit of an earlier turn."""
        request: dict[str, JSON] = as_stored(self.known.ask(want_action(step.name, visit)))
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
        named: dict[str, object] = {"execution_id": self.turn.execution_id}
        if result is not None:
            named["result"] = named["this"] = Lazy(lambda: self.turn_result(result))
        if words:
            named.update(words)
        steps = self.step_result
        if own:
            steps = lambda name: self.ended_result() if name == own else self.step_result(name)  # noqa: E731 - short
        return Scope(inputs, steps, named, self.workload, self.playbook.steps, self.moment)

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
        """The wants of a template that reads these names, without those that are answered."""
        steps = self.playbook.steps
        named = names | (frozenset(steps) if results is None else results)
        ended = None if self.ended_visit is None else self.ended_visit[0]
        visited = (name for name in named if name in steps and self.seen >> steps[name].index & 1)
        wants = (want_step(name) for name in visited if name != ended)
        return frozenset(want for want in wants if want not in self.known.answers)


def made_result(result: InlineResult) -> StepResult:
    """The result of a step that the core made itself."""
    return StepResult(result.value, "COMPLETED" if result.error is None else "FAILED", result.error)


def _without_passed(arrival: Arrival) -> Arrival:
    """An arrival that waits after the end of the turn, without the routers that it passed in this turn."""
    return arrival._replace(passed=frozenset()) if arrival.passed else arrival

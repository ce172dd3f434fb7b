"""A decision in the making: the one mutable thing of the core, alive for one turn.

The rules write into a draft what they decide; `take_turn` makes it once at the beginning and seals it at the end.
Nothing of it is shared with the state that the turn started from.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from noetl_broker.broker.context import (
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
from noetl_broker.broker.model import (
    JSON,
    Adoption,
    Begun,
    Child,
    Decision,
    Emitted,
    Ended,
    Event,
    ItemEnd,
    Items,
    Job,
    JobChange,
    Post,
    Row,
    Turn,
)
from noetl_broker.broker.noetl_status import in_words_of_noetl
from noetl_broker.broker.state import RUNNING, Arrival, ExecutionState, Reached, Token, Visit
from noetl_broker.broker.trail import Lost, Trace
from noetl_broker.template.allowance import Allowance
from noetl_broker.template.output import size_of
from noetl_broker.template.scope import Lazy, Moment, NotLoaded, Scope, StepResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    from noetl_broker.playbook.fields import Fields
    from noetl_broker.playbook.model import Playbook, Step
    from noetl_broker.template import Leave, Template, Tree

DECIDED = "decided"
SHARES_OF_TURN = 3  # times the steps of one evaluation that all templates of one turn may take together
OUTPUTS_OF_TURN = 16  # times the characters of one output that they may hand on together
MOST_ITEM_ERRORS = 10_000  # that the list of an iterator's failed items tells; also in the SQL that loads it
ENOUGH_CHARS = 4_194_304  # after which a turn starts no further item


class Draft:
    """One turn of one execution: what it started from, and what it has decided so far."""

    __slots__ = (
        "_carried", "_own_result", "_workload", "abandoned", "adoptions", "allowance", "arrivals", "begun", "changes",
        "children", "end", "ended", "ends", "event", "events", "failed", "item_ends",
        "items", "jobs", "known", "lost", "moment", "note", "own", "parent", "playbook", "posts", "repeats",
        "rows", "seen", "status", "tokens", "total", "trail", "turn", "waiting", "withdraw",
    )  # fmt: skip

    def __init__(self, playbook: Playbook, state: ExecutionState, event: Event, turn: Turn, known: Known) -> None:
        """All five are only read; the state's mappings are copied where the turn may change them."""
        self.playbook = playbook
        self.event = event
        self.turn = turn
        self.known = known
        self.allowance = Allowance(
            steps=known.rules.template_max_steps,
            output_chars=known.rules.template_max_output_chars,
            turn_steps=known.rules.template_max_steps * SHARES_OF_TURN,
            turn_chars=known.rules.template_max_output_chars * OUTPUTS_OF_TURN,
        )
        self.moment = Moment(execution_id=turn.execution_id, turn=turn.number, at=turn.at, allowance=self.allowance)
        self.status = state.status
        self.tokens: dict[Visit, Token] = dict(state.tokens)
        self.waiting: dict[str, tuple[Arrival, ...]] = dict(state.waiting)
        self.seen = state.seen
        self.repeats: dict[str, int] = dict(state.repeats)
        self.total = state.total
        self.ends: dict[str, None] = dict.fromkeys(state.ends)  # in order, each once
        self.end = state.end
        self.parent = state.parent
        self.arrivals: deque[Arrival] = deque()
        self.own: Visit | None = None  # the visit that this event ended
        self._own_result: StepResult | None = None
        self.failed: int | None = None  # as in the decision
        self.events: list[Emitted] = []
        self.jobs: list[Job] = []
        self.changes: list[JobChange] = []
        self.children: list[Child] = []
        self.abandoned: list[Visit] = []
        self.items: list[Items] = []
        self.item_ends: list[ItemEnd] = []
        self.posts: list[Post] = []
        self.adoptions: list[Adoption] = []
        self.rows: dict[str, Row] = {}
        self.begun: Begun | None = None
        self.ended: Ended | None = None
        self.withdraw = False
        self.note: str | None = None
        self.trail: list[Trace] = []
        self.lost: Lost | None = None
        self._carried = 0
        self._workload: Mapping[str, JSON] | None = None

    def seal(self) -> tuple[ExecutionState, Decision]:
        """The next state and the decision."""
        self.known.written += self.chars
        waiting = {step: tuple(map(_rest, arrivals)) for step, arrivals in self.waiting.items()}
        end = self.end if self.end is None or self.status == RUNNING else Reached(self.end.result)
        state = ExecutionState(
            self.status, self.tokens, waiting, self.seen, self.repeats, self.total, tuple(self.ends),
            end, self.parent,
        )  # fmt: skip
        events = in_words_of_noetl(self.events, self.status) if self.known.rules.beside_noetl else tuple(self.events)
        return state, Decision(
            DECIDED, self.note, events, tuple(self.jobs), tuple(self.changes), tuple(self.rows.values()),
            self.begun, self.ended, self.withdraw, tuple(self.children), tuple(self.abandoned),
            tuple(self.items), tuple(self.item_ends), tuple(self.posts), tuple(self.adoptions), self.failed,
        )  # fmt: skip

    # How much it is

    @property
    def chars(self) -> int:
        """About how many characters it writes of what templates gave, and of what items were given."""
        return self.allowance.handed_on + self._carried

    @property
    def did_much(self) -> bool:
        """Whether it is enough for one turn: its templates may give four times as much and take twice as many steps.

        One item has the rest of it.
        """
        if self.allowance.left < self.allowance.turn_steps // 2:
            return True
        return self.chars > min(ENOUGH_CHARS, self.allowance.turn_chars // 4)

    def carry(self, value: JSON) -> None:
        """Count what one item is given: a template gave it once, and each item has it again."""
        self._carried += size_of(value)

    # Visits

    def visits(self, step: Step) -> int:
        """How often the step has been visited so far."""
        if not self.seen >> step.index & 1:
            return 0
        return self.repeats.get(step.name, 1)

    @property
    def depth(self) -> int:
        """How many parents stand above this execution."""
        return self.parent.depth if self.parent is not None else 0

    def count_visit(self, step: Step, number: int) -> None:
        """One more visit of the step."""
        self.count_visits(step, max(number, self.visits(step)))
        self.total += 1

    def count_visits(self, step: Step, number: int) -> None:
        """The step has been visited so often."""
        self.seen |= 1 << step.index
        if number > 1:
            self.repeats[step.name] = number

    # What templates see

    def workload(self) -> Mapping[str, JSON]:
        """The defaults of the playbook with the caller's payload merged over them."""
        if self._workload is None:
            self._workload = self.known.ask(WORKLOAD)
        return self._workload

    def set_workload(self, workload: Mapping[str, JSON]) -> None:
        """The start turn makes the workload that all later ones load."""
        self._workload = workload

    def leave(self, visit: Visit, result: StepResult | None) -> None:
        """The event ends this visit; `result` None: the event carries it (a large one is loaded when it is read)."""
        self.own = visit
        self._own_result = result

    def own_result(self) -> StepResult:
        """The result of the visit that this event ends."""
        if self._own_result is None:
            event = self.event
            if event.result is NOT_LOADED:
                self._own_result = self.known.ask(want_turn(self.turn.number))
            else:
                self._own_result = result_of(event.type, event.result, event.error)
        return self._with_failed(self.own, self._own_result)

    def turn_result(self, number: int) -> StepResult:
        """The result that the event of an earlier turn, or of this one, carries."""
        if number == self.turn.number:
            return self.own_result()
        carried: StepResult = self.known.ask(want_turn(number))
        return self._with_failed(None, carried)  # whose it is, a number does not say

    def step_result(self, name: str) -> StepResult | None:
        """The result of the step's highest-numbered visit that has one; None while it has none."""
        step = self.playbook.steps.get(name)
        if step is None or not self.seen >> step.index & 1:
            return None
        own = self.own
        if own is None or own[0] != name:
            found = self.known.ask(want_step(name))
            return self._with_failed((name, found.visit), found.result) if isinstance(found, Found) else None
        if own[1] != self.visits(step):
            found = self.known.ask(want_step(name))
            if isinstance(found, Found) and found.visit > own[1]:
                return self._with_failed((name, found.visit), found.result)
        return self.own_result()

    def _with_failed(self, visit: Visit | None, result: StepResult) -> StepResult:
        """The result of a visit, of an iterator with its failed items: they are looked for when a template asks."""
        step = self.playbook.steps[visit[0]] if visit is not None else None
        iteration = step.iteration if step is not None and self.known.rules.failed_items else None
        if visit is None or iteration is None or (result.status == "FAILED" and not iteration.expanded):
            return result if result.failed is None else result._replace(failed=None)
        if result.failed is not None:  # a worker that iterates has said it
            return result
        return result._replace(failed=Lazy(lambda: self._failed_items(visit)))

    def _failed_items(self, visit: Visit) -> list[JSON]:
        """The failed items of a visit by index, {index, error}; past so many the error is null."""
        known = self.known
        found = [*(known.ask(want_failed(*visit)) or ()), *known.answers.get(want_failing(*visit), ())]  # type: ignore[misc]
        found += [failed_item(end) for end in self.item_ends if end[:2] == visit and end.status == "FAILED"]
        found.sort(key=lambda item: item["index"])
        rest = [{**item, "error": None} for item in found[MOST_ITEM_ERRORS:]]
        return [*found[:MOST_ITEM_ERRORS], *rest]

    def request_of(self, step: Step, visit: int) -> dict[str, JSON]:
        """What an earlier turn wrote into the job of a visit."""
        request: dict[str, JSON] = self.known.ask(want_action(step.name, visit))
        return request

    def scope(
        self,
        inputs: Mapping[str, JSON],
        result: int | None,
        words: Mapping[str, object] | None = None,
        *,
        own: str = "",
    ) -> Scope:
        """Spec section 3's names for a template that sees these inputs, with the result of turn `result` as `result`.

        `own` is the step whose `next` is read: `{{ own }}` is the ended visit's result even if a later visit has one.
        """
        named: dict[str, object] = {"execution_id": self.turn.execution_id}
        if result is not None:
            named["result"] = named["this"] = Lazy(lambda: self.turn_result(result))
        if words:
            named.update(words)
        return Scope(
            inputs=inputs,
            steps=(lambda name: self.own_result() if name == own else self.step_result(name))
            if own
            else self.step_result,
            words=named,
            workload=self.workload,
            is_step=self.playbook.steps,
            moment=self.moment,
        )

    def evaluate(self, template: Template | Tree, scope: Scope) -> JSON:
        """The template's value; where something is missing, everything that it names is asked for at once."""
        try:
            return template.evaluate(scope)
        except NotLoaded as missing:
            raise NotLoaded(missing.wants | self.wants(template.names, template.results)) from None

    def holds(self, condition: Template, scope: Scope) -> bool:
        """Whether the condition is true; where something is missing, as `evaluate`."""
        try:
            return condition.holds(scope)
        except NotLoaded as missing:
            raise NotLoaded(missing.wants | self.wants(condition.names, condition.results)) from None

    def render(self, tree: Tree | Fields, scope: Scope, leave: Leave | None = None) -> JSON:
        """The tree rendered; where something is missing, everything that it names is asked for at once.

        Templates that `leave` says so of stay as they are, for the worker.
        """
        if tree.constant:
            return tree.render(scope)
        try:
            return tree.render(scope, leave)
        except NotLoaded as missing:
            raise NotLoaded(missing.wants | self.wants(tree.names, tree.results)) from None

    def wants(self, names: frozenset[str], results: frozenset[str] | None) -> frozenset[tuple[object, ...]]:
        """The wishes of a template that reads these names and has not been answered yet."""
        steps = self.playbook.steps
        named = names | (frozenset(steps) if results is None else results)
        wishes = {
            want_step(name)
            for name in named
            if name in steps and self.seen >> steps[name].index & 1 and (self.own is None or self.own[0] != name)
        }
        return frozenset(wish for wish in wishes if wish not in self.known.answers)


def _rest(arrival: Arrival) -> Arrival:
    """An arrival that waits over the end of the turn: the routers passed in it count no more."""
    return arrival._replace(passed=frozenset()) if arrival.passed else arrival

"""The state of the reference: tokens, results, and the names that expressions read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tests.simulation.expressions import MISSING, Outcome
from tests.simulation.joins import reachable_steps
from tests.simulation.plans import Compensate, Inputs, Plan
from tests.simulation.reference_model import (
    ENVELOPE,
    SENT,
    Effect,
    ReferenceEvent,
    Row,
    Token,
    arcs_of,
)
from tests.simulation.reference_undo import Compensation, UndoRow

ENDS = {"COMPLETED": "execution_complete", "FAILED": "execution_failed", "CANCELLED": "execution_cancelled"}
COMPENSATING = "COMPENSATING"
NO_ERROR: Mapping[str, Any] = {}
TEMPLATE_ERROR: Mapping[str, Any] = {"message": "a template failed", "type": "template"}


class Ended(Exception):
    """The execution ended within a turn."""


class ReferenceState:
    """One execution of a plan."""

    undo: Compensation

    def __init__(self, plan: Plan, execution_id: int = 0) -> None:
        self.own_key = str(execution_id)
        self.turn = 0
        self.number = 0  # of the turn, counted by the broker: also those that change nothing
        self.signals: list[Row] = []  # that came, and that no wait has taken
        self.steps = {step.name: step for step in plan.steps}
        self.max_visits = plan.max_visits
        self.deadline = plan.deadline
        self.late_after = plan.late_after
        self.is_late = False
        self.workload: dict[str, Any] = plan.workload
        self.required = plan.required
        self.largest_size = plan.largest_size
        self.arcs = [*arcs_of(plan)]
        self.running: list[Token] = []
        self.waiting: list[Token] = []
        self.moving: list[Token] = []
        self.visits: Counter[str] = Counter()
        self.outcomes: dict[str, dict[int, Outcome]] = {}
        self.branch_ends: dict[str, None] = {}
        self.end: Token | None = None
        self.status = "NEW"
        self.result: Any = None
        self.kept: list[Token] = []  # until the execution runs on
        self.causes: set[str] = set()  # of its pause
        self.numbers: dict[str, int] = {}  # the last pause or resume of each cause
        self.is_admitted = True
        self.error = NO_ERROR  # of the action that failed the execution; empty if a template did
        self.effects: list[Effect] = []
        self.visited: dict[str, Token] = {}  # by node: all visits, also those that are over

    def emit(self, what: str, node: str = "", detail: Any = None) -> None:
        """Add an effect."""
        self.effects.append(Effect(what, node, detail))

    def _scope(self, token: Token, more: Mapping[str, Any] | None = None) -> Any:
        names = {"workload": self.workload, "result": token.result, "args": token.inputs, **(more or {})}
        own = self.outcomes.get(token.step, {}).get(token.visit)

        def look(name: str) -> Any:
            if name in token.inputs:
                return token.inputs[name]
            if own is not None and name == token.step:
                return own
            if name in self.outcomes:
                return self._latest(name)
            return names[name] if name in names else self.workload.get(name, MISSING)

        return look

    def _item_scope(self, token: Token, item: Any) -> Any:
        """Return the scope for one item; the item hides an input named `item`, a step named `item` hides it."""
        look = self._scope(token)
        return lambda name: item if name == "item" and name not in self.outcomes else look(name)

    def data_of(self, name: str) -> Any:
        """Return the data of a step; None if it did not run."""
        return self._latest(name).data if name in self.outcomes else None

    def _latest(self, name: str) -> Outcome:
        return self.outcomes[name][max(self.outcomes[name])]

    def _is_spent(self, token: Token) -> bool:
        """Tell whether a token is spent for a join that it can reach."""
        return bool(token.spent & reachable_steps(self.arcs, Token(step=token.step)))

    def _join_of(self, name: str) -> str | None:
        """Return the join of a step: all, any, each, `last` (no other token is left) or None."""
        step = self.steps[name]
        if step.join:
            return step.join
        if name == "end":
            return "last"
        return "all" if sum(arc.target == name for arc in self.arcs) > 1 else None

    @staticmethod
    def _fails_again(token: Token) -> bool:
        """Tell whether a token has failed at this step in this turn before; then nothing catches it."""
        again = token.step in token.passed
        token.passed |= {token.step}
        return again

    @property
    def undo_error(self) -> Mapping[str, Any]:
        """The error as templates of undos see it."""
        return {"step": None, "attempt": None, **(self.error if self.undo.error is None else self.undo.error)}

    def undo_inputs(self, action: Compensate, row: UndoRow) -> dict[str, Any]:
        """Return the inputs of an undo: its templates see those of the visit, its result, and the error."""
        token = Token(step=row.token.step, inputs=row.inputs, result=row.result)
        return rendered(action.inputs, self._scope(token, {"error": self.undo_error}))

    def late_result(self, event: ReferenceEvent) -> Any:
        """Return the result of a success that came after its visit was over: its `output` is not rendered."""
        return outcome_of(event.value).data

    def end_compensation(self, status: str, counts: Mapping[str, int]) -> None:
        """End the execution; `counts` says how many undos ended in each way."""
        self.status = status
        self.emit(ENDS[status], "", self.result)
        self.emit("compensation", "", dict(counts))

    def _finish(self, status: str) -> None:
        if status != "COMPLETED" and self.undo.is_needed():
            self.status = COMPENSATING
            self.undo.begin(status)
        else:
            self._give_up_all(status)
            self.status = status
            self.emit(ENDS[status], "", self.result)
            if status != "COMPLETED" and any(row.status == "unknown" for row in self.undo.rows):
                self.emit("compensation", "", self.undo.counts())
        raise Ended

    def _give_up_all(self, status: str) -> None:
        for token in self.running if status != "COMPLETED" else ():
            self.undo.give_up(token)


def outcome_of(result: Any) -> Outcome:
    """Return a result, unwrapped once if it is an envelope."""
    if is_envelope(result):
        return Outcome(result["data"], result.get("status") or "COMPLETED", result.get("error"))
    return Outcome(result)


def is_envelope(result: Any) -> bool:
    """Return whether templates see only the `data` of this result."""
    if not isinstance(result, Mapping) or "data" not in result or not result.keys() <= ENVELOPE:
        return False
    return result.keys().isdisjoint({"id", "status"}) or result.get("status") in SENT


def stored(data: Any) -> Any:
    """Return a result of the broker as its event has it: one that looks like an envelope is in an envelope."""
    return {"data": data} if is_envelope(data) else data


def rendered(inputs: Inputs, scope: Any, *, without: Iterable[str] = ()) -> dict[str, Any]:
    """Return the values of inputs."""
    return {name: value.evaluate(scope) for name, value in inputs if name not in without}


def merged_values(default: Any, value: Any) -> Any:
    """Merge two values: mappings key by key, anything else is replaced."""
    if isinstance(default, Mapping) and isinstance(value, Mapping):
        return {**default, **{key: merged_values(default.get(key), item) for key, item in value.items()}}
    return value

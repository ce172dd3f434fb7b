"""The state of the reference: tokens, results, and the names that expressions read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from tests.simulation.expressions import MISSING, Constant, EvaluationError, Outcome, Value
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
    tag_text,
)
from tests.simulation.reference_undo import UNDO, Compensation, UndoRow

ENDS = {"COMPLETED": "execution_complete", "FAILED": "execution_failed", "CANCELLED": "execution_cancelled"}
COMPENSATING = "COMPENSATING"
NO_ERROR: Mapping[str, Any] = {}
NO_OPTIONS: Mapping[str, Any] = {}
POOL = re.compile("[A-Za-z_][A-Za-z0-9_.-]{0,62}")
TEMPLATE_ERROR: Mapping[str, Any] = {"message": "a template failed", "type": "template"}


class Ended(Exception):
    """The execution ended within a turn."""


class ReferenceState:
    """One execution of a plan."""

    undo: Compensation

    def __init__(
        self,
        plan: Plan,
        execution_id: int = 0,
        *,
        options: Mapping[str, Any] = NO_OPTIONS,
        parent: ReferenceState | None = None,
    ) -> None:
        self.plan = plan
        self.options = options  # of the start
        self.tags: dict[str, str] = {} if parent is None else {**parent.tags}
        self.jobs: dict[str, tuple[str, int]] = {}  # pool and priority of each job, by node
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

    def place_job(self, node: str, own: tuple[Value | None, int | None], scope: Any) -> None:
        """Choose the pool and the priority of a job; `own` are those of its step. Raises EvaluationError."""
        chosen = self.plan.pool if own[0] is None else own[0]
        pool = "default" if chosen is None else chosen.evaluate(scope)
        if not isinstance(pool, str) or not POOL.fullmatch(pool):
            raise EvaluationError(f"{pool!r} is no pool")
        priorities = (own[1], self.plan.priority, self.options.get("priority"), 5)
        self.jobs[node] = pool, next(priority for priority in priorities if priority is not None)
        self.emit("place", node, [*self.jobs[node]])

    def add_tags(self) -> None:
        """Add the tags of the playbook to those of the parent, and then those of the start."""
        scope = self._scope(Token(step="start"))
        for name, value in self.plan.tags:
            with suppress(EvaluationError):
                self.tags[name] = tag_text(value.evaluate(scope))
        self.tags |= {name: tag_text(value) for name, value in self.options.get("tags", {}).items()}

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

    def place_undo(self, action: Compensate, row: UndoRow) -> None:
        """Choose the pool of an undo: its own, else that of the job that it undoes."""
        pool = action.pool
        if pool is None and row.node in self.jobs:
            pool = Constant(self.jobs[row.node][0])
        token = Token(step=row.token.step, inputs=row.inputs, result=row.result)
        self.place_job(row.node + UNDO, (pool, action.priority), self._scope(token, {"error": self.undo_error}))

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

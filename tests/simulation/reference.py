"""A simple interpreter of plans, written from the specification: each step looks at the whole graph again.

It shares no code with the core. It applies the events of one execution, one at a time, and returns the effects of each.
Where the specification has no order, the order of the events counts.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tests.simulation.expressions import MISSING, EvaluationError, Outcome, is_true
from tests.simulation.joins import merge, next_ready_join, reachable_steps
from tests.simulation.plans import Compensate, Inputs, Iterate, Plan, Retry, Signal, Step
from tests.simulation.reference_model import Arc, Awaited, Effect, Items, ReferenceEvent, Token, arcs_of
from tests.simulation.reference_undo import Compensation, UndoRow
from tests.simulation.tables import ENVELOPE, LIVE, Row

ITEMS_PER_TURN = 100  # items that one turn starts
COMPENSATING = "COMPENSATING"
ENDS = {"COMPLETED": "execution_complete", "FAILED": "execution_failed", "CANCELLED": "execution_cancelled"}
EVERY = 100  # per cent
WAITING = frozenset({"wait", "approval"})
BY_BROKER = WAITING | {"signal"}  # kinds whose result the broker makes
NO_ERROR: Mapping[str, Any] = {}
TEMPLATE_ERROR: Mapping[str, Any] = {"message": "a template failed", "type": "template"}


class _Ended(Exception):
    """The execution ended within a turn."""


class Reference:
    """One execution of a plan."""

    def __init__(self, plan: Plan, execution_id: int = 0) -> None:
        self.own_key = str(execution_id)
        self.turn = 0
        self.signals: list[Row] = []  # that came, and that no wait has taken
        self.steps = {step.name: step for step in plan.steps}
        self.max_visits = plan.max_visits
        self.deadline = plan.deadline
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
        self.undo = Compensation(self)
        self.takers: list[Reference] = []  # executions that took over rows of it
        self.over: dict[str, Token] = {}  # by node: visits that have ended or were closed

    # Events.

    def apply(self, event: ReferenceEvent) -> list[Effect]:
        """Return the effects of an event."""
        self.effects = []
        self.turn += 1
        try:
            self._apply(event)
        except _Ended:
            self.running, self.waiting, self.moving, self.kept = [], [], [], []
            if self.status == COMPENSATING:
                self.undo.go_on()
        for token in self.waiting:
            token.passed = frozenset()
        return self.effects

    def _apply(self, event: ReferenceEvent) -> None:
        if event.kind == "start" and self.status == "NEW":
            self._start(event)
        if self.status == COMPENSATING:
            self.undo.apply(event)
        if event.kind == "start" or self.status not in LIVE - {COMPENSATING}:
            return
        if event.kind in {"pause", "resume", "place"}:
            self._hold(event)
            return
        if event.kind == "signal":
            self._receive(event)
            return
        if event.kind == "cancel":
            self._finish("CANCELLED")
        if event.kind == "deadline" and self.deadline is not None:
            self._finish("FAILED")
        self._apply_to_node(event)

    def _apply_to_node(self, event: ReferenceEvent) -> None:
        """Apply an event of a visit."""
        for token in self.running:
            if token.node == event.node:
                self.over[token.node] = token
                self._apply_to_visit(token, event)
                self._move_tokens()
                return
        if self.undo.apply_late(event):
            self._move_tokens()

    def _apply_to_visit(self, token: Token, event: ReferenceEvent) -> None:
        """Apply an event of an open visit."""
        if self.steps[token.step].kind in WAITING:
            self._apply_to_wait(token, event)
        elif _names_another_lease(event):
            return
        elif token.items is not None and event.kind != "failed":
            self._apply_to_items(token, token.items, event)
        elif self._is_outdated(token, event):
            return
        elif event.kind == "completed":
            iterates = self.steps[token.step].iterate is not None
            outcome = _outcome(event.value)._replace(failed=() if iterates else None)
            self.undo.succeed(token, event, outcome.data)
            self._complete_visit(token, outcome)
        elif event.kind == "failed":
            self._failed_attempt(token, event)
        elif event.kind == "due" and token.is_due and event.lease in {None, token.failures + 1}:
            token.is_due = False
            if self.status != "RUNNING":
                token.is_kept = True
                return
            self.emit("child", token.node, (None, self.steps[token.step].path, token.inputs))

    def _apply_to_wait(self, token: Token, event: ReferenceEvent) -> None:
        """Apply an event of an open wait or approval."""
        is_approval = self.steps[token.step].kind == "approval"
        if token.awaited is None and event.kind == ("decided" if is_approval else "timer"):
            self._complete_visit(token, Outcome(event.value))
        elif event.kind == "timer":
            message = "nobody decided in time" if is_approval else "no signal came in time"
            self._failed(token, {"step": token.step, "type": "timeout", "message": message})

    # Signals.

    def _receive(self, event: ReferenceEvent) -> None:
        """Give a signal to the oldest open wait that fits; keep it if there is none."""
        indexes = {name: index for index, name in enumerate(self.steps)}
        open_waits = [(token.awaited.turn, indexes[token.step], token.visit, token)
                      for token in self.running if token.awaited]  # fmt: skip
        told = next((token for *_, token in open_waits if token.node == event.node), None)
        for *_, token in sorted(open_waits, key=lambda entry: entry[:3]):
            if self._takes(token, event.value):
                self._complete_visit(token, Outcome(self._signal_result(token, event.value)))
                self._move_tokens()
                break
        else:
            self.signals.append(event.value)
        if told in self.running:
            self.emit("reopen", event.node)

    def _takes(self, token: Token, signal: Row) -> bool:
        """Tell whether a wait takes a signal; one whose condition fails does not."""
        wanted, spec = token.awaited, self.steps[token.step].signal
        if wanted is None or spec is None or signal["name"] not in wanted.names or signal["key"] != wanted.key:
            return False
        if signal.get("before_start", 0) > wanted.since:
            return False
        words = {name: signal[name] for name in ("name", "key", "payload", "at")}
        try:
            return spec.when is None or is_true(spec.when.evaluate(self._scope(token, {"signal": words})))
        except EvaluationError:
            return False

    def _signal_result(self, token: Token, signal: Row) -> Any:
        spec = self.steps[token.step].signal
        payload = signal["payload"]
        return {"signal": signal["name"], "payload": payload} if spec and len(spec.names) > 1 else payload

    def _begin_signal(self, step: Step, spec: Signal, token: Token) -> None:
        """Send a signal, or wait for one; a kept one ends the wait at once."""
        key = self.own_key if spec.key is None else _key_text(spec.key.evaluate(self._scope(token)))
        if step.kind == "signal":
            payload = None if spec.payload is None else _rendered(spec.payload, self._scope(token))
            self.emit("signal", token.node, [spec.names[0], key, payload])
            self._end_at_once(token, {"name": spec.names[0], "key": key})
            return
        token.awaited = Awaited(spec.names, key, float(spec.since or 0), self.turn)
        for signal in self.signals:
            if self._takes(token, signal):
                self._end_at_once(token, self._signal_result(token, signal))
                self.signals.remove(signal)
                return
        self.running.append(token)
        self.emit("wait", token.node, [[*spec.names], key, float(spec.since or 0)])

    def _end_at_once(self, token: Token, data: Any) -> None:
        """End a visit in the turn of its beginning; if its transitions fail, it has no result."""
        outcomes = self.outcomes.setdefault(token.step, {})
        outcomes[token.visit] = Outcome(data)
        before, token.result = token.result, data
        try:
            self._fired(self.steps[token.step], token)
        except EvaluationError:
            token.result = before
            del outcomes[token.visit]
            if not outcomes:
                del self.outcomes[token.step]
            kept = _stored(data) if self._is_spent(token) else None
            if not self._fails_again(token) and self._is_caught(token, TEMPLATE_ERROR, data, kept=kept):
                return
            if self._is_spent(token):
                self.outcomes.setdefault(token.step, {})[token.visit] = Outcome(data, "FAILED", TEMPLATE_ERROR)
            raise
        self._end_visit(token, Outcome(data))

    def _hold(self, event: ReferenceEvent) -> None:
        """Pause, resume or admit the execution."""
        if event.kind == "place":
            if self.status == "QUEUED":
                self.emit("execution_admitted")
                self.is_admitted = True
                self._run_on()
            return
        if event.lease is not None:
            if event.lease <= self.numbers.get(event.node, 0):
                return
            self.numbers[event.node] = event.lease
        if event.kind == "pause":
            self.causes.add(event.node)
            if self.status != "PAUSED":
                self.status = "PAUSED"
                self.emit("execution_paused")
        elif self.status == "PAUSED" and (event.node == "operator" or self.causes == {"parent"}):
            self.causes.clear()
            self.emit("execution_resumed")
            self.status = "QUEUED"
            if self.is_admitted:
                self._run_on()
        else:
            self.causes.discard(event.node)

    def _run_on(self) -> None:
        self.status = "RUNNING"
        self.moving, self.kept = self.kept, []
        for token in [token for token in self.running if token.is_kept]:
            token.is_kept = False
            if token.items is None:
                self.emit("child", token.node, (None, self.steps[token.step].path, token.inputs))
            else:
                self._start_items(token, token.items)
        for token in self.running:
            items = token.items
            while items is not None and items.kept:
                index = items.kept.pop(0)
                self.emit("child", token.node, (index, items.iterate.path, items.inputs[index]))
        self._move_tokens()

    def _start(self, event: ReferenceEvent) -> None:
        self.status = "RUNNING"
        self.workload = _merged_values(self.workload, event.value)
        if event.undone is not None:
            self._undo_another(event.undone)
            return
        if self._refuses_workload():
            self.error = {"type": "payload"}
            self._finish("FAILED")
        if event.path_is_paused:
            self.status, self.is_admitted = "QUEUED", False
            self.kept = [Token(step="start")]
            self.emit("execution_queued")
            return
        self._enter("start", [Token(step="start")])
        self._move_tokens()

    def _refuses_workload(self) -> bool:
        """Tell whether the workload breaks its schema."""
        size, largest = self.workload.get("size"), self.largest_size
        if largest is not None and type(size) in {int, float} and float(size or 0) > largest:
            return True
        return not set(self.required) <= self.workload.keys()

    def _is_outdated(self, token: Token, event: ReferenceEvent) -> bool:
        """Tell whether an event is of an attempt that was counted.

        An answer of an abandoned child does not count. A result of an action always counts.
        """
        failed = event.kind == "failed"
        lease = event.leases if failed and event.lease is None else event.lease or 0
        return (failed or self.steps[token.step].kind == "playbook") and 0 < lease <= token.failed_lease

    def _failed_attempt(self, token: Token, event: ReferenceEvent) -> None:
        step = self.steps[token.step]
        self.undo.note_attempt(token, event)
        token.failures += 1
        lease = event.leases if event.lease is None else event.lease
        token.failed_lease = max(token.failed_lease, token.failures if step.kind == "playbook" else lease)
        may_retry = token.items is None and event.may_retry
        if step.retry and may_retry and self.wants_retry(step.retry, token.failures, token.inputs, event.value):
            token.is_due = step.kind == "playbook"
            delay = step.retry.initial_delay * step.retry.backoff_multiplier ** (token.failures - 1)
            self.emit("action_retry", token.node, float(min(delay, step.retry.max_delay)))
            return
        self.undo.give_up(token)
        if token.items is not None:
            self._close_items(token, token.items)
        self._failed(token, event.value)

    def wants_retry(self, retry: Retry, failures: int, inputs: Mapping[str, Any], error: Any) -> bool:
        """Tell whether an action is tried again after so many failures."""
        if failures >= retry.max_attempts:
            return False
        names = {
            **inputs,
            "error": error.get("message"),
            "error_type": error.get("type") or "",
            "status_code": error.get("status_code", 0),
            "result": None,
            "attempt": failures,
        }
        scope = lambda name: names.get(name, MISSING)  # noqa: E731
        try:
            if retry.stop_when is not None and is_true(retry.stop_when.evaluate(scope)):
                return False
            return retry.retry_when is None or is_true(retry.retry_when.evaluate(scope))
        except EvaluationError:
            return False

    def _failed(self, token: Token, error: Any) -> None:
        """End a visit whose last attempt failed."""
        if self._is_caught(token, error):
            return
        if self.steps[token.step].on_error == "continue":
            failed = None if token.items is None else token.items.failed_in_order
            self._end_visit(token, Outcome(None, "FAILED", error, failed), failed=True)
        else:
            self._fail_step(token, error)

    def _is_caught(self, token: Token, error: Any, data: Any = None, *, kept: Any = None) -> bool:
        """Let a failed token go on by the first entry of `catch` that is true; the step keeps its error and `data`.

        If a template of `catch` fails, the step fails with `kept`.
        """
        arcs = [arc for arc in self.arcs if arc.source == token.step and arc.catch is not None]
        if not arcs:
            return False
        before, had = token.result, self.outcomes.get(token.step, {}).get(token.visit)
        places = None if token.items is None else token.items.failed_in_order
        described = {"attempt": max(token.failures, 1), **error, "step": token.step}
        described["type"] = described.get("type") or "action_failed"
        self.outcomes.setdefault(token.step, {})[token.visit] = Outcome(data, "FAILED", described, places)
        token.result = data
        scope = self._scope(token, {"error": described})
        try:
            for arc in arcs:
                when = arc.catch and arc.catch.when
                if when is None or is_true(when.evaluate(scope)):
                    inputs = _rendered(arc.inputs, scope)
                    break
            else:
                self._forget(token, had)
                token.result = before
                return False
        except EvaluationError:
            self._fail_token(token, data=kept)
            return True
        self.running = [other for other in self.running if other is not token]
        self.emit("step_failed", token.node, [True, _stored(data)])
        token.origins = frozenset() if self._is_spent(token) else frozenset([token.step])
        self._send(token, arc, inputs)
        return True

    def _forget(self, token: Token, had: Outcome | None) -> None:
        """Set the outcome of a visit as it was."""
        outcomes = self.outcomes[token.step]
        del outcomes[token.visit]
        if had is not None:
            outcomes[token.visit] = had
        elif not outcomes:
            del self.outcomes[token.step]

    def _fail_step(self, token: Token, error: Any) -> None:
        """Fail a step; `on_error` is ignored."""
        failed = None if token.items is None else token.items.failed_in_order
        self.outcomes.setdefault(token.step, {})[token.visit] = Outcome(None, "FAILED", error, failed)
        self._fail_token(token, error)

    def _fail_token(self, token: Token, error: Mapping[str, Any] = NO_ERROR, *, data: Any = None) -> None:
        """Fail the step of a token, and the execution; a spent token fails only its step. `data`: its output."""
        self.running = [other for other in self.running if other is not token]
        kept = None if data is None else [False, data]
        if not self._is_spent(token):
            self._fail(token.node, error, kept)
        elif token.visit not in self.outcomes.get(token.step, {}):
            self.outcomes.setdefault(token.step, {})[token.visit] = Outcome(data, "FAILED", error)
        self.emit("step_failed", token.node, kept)

    def _is_spent(self, token: Token) -> bool:
        """Tell whether a token is spent for a join that it can reach."""
        return bool(token.spent & reachable_steps(self.arcs, Token(step=token.step)))

    def _fail(self, node: str, error: Mapping[str, Any] = NO_ERROR, kept: Any = None) -> None:
        """Fail a step and the execution."""
        self.error = {**error, "step": node.partition("#")[0]}
        self.emit("step_failed", node, kept)
        self._finish("FAILED")

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
        raise _Ended

    def _give_up_all(self, status: str) -> None:
        for token in self.running if status != "COMPLETED" else ():
            self.undo.give_up(token)

    # Undos.

    def _undo_another(self, rows: Iterable[UndoRow]) -> None:
        """Begin with what another execution left."""
        self.status = COMPENSATING
        self.undo.take_over(rows)
        self.undo.go_on()

    def is_of_other_attempt(self, token: Token, event: ReferenceEvent) -> bool:
        """Tell whether an event is not of the present attempt of a visit."""
        return _names_another_lease(event) or (token.items is None and self._is_outdated(token, event))

    def late_result(self, event: ReferenceEvent) -> Any:
        """Return the result of a success that came after its visit was over: its `output` is not rendered."""
        return _outcome(event.value).data

    def undo_inputs(self, action: Compensate, row: UndoRow) -> dict[str, Any]:
        """Return the inputs of an undo: its templates see those of the visit, its result, and the error."""
        token = Token(step=row.token.step, inputs=row.inputs, result=row.result)
        return _rendered(action.inputs, self._scope(token, {"error": self.undo_error}))

    @property
    def undo_error(self) -> Mapping[str, Any]:
        """The error as templates of undos see it."""
        return {"step": None, "attempt": None, **(self.error if self.undo.error is None else self.undo.error)}

    def end_compensation(self, status: str, counts: Mapping[str, int]) -> None:
        """End the execution; `counts` says how many undos ended in each way."""
        self.status = status
        if status == "COMPLETED":
            self.result = {name: counts[name] for name in ("done", "unknown")}
        self.emit(ENDS[status], "", self.result)
        self.emit("compensation", "", dict(counts))

    def emit(self, what: str, node: str = "", detail: Any = None) -> None:
        """Add an effect."""
        self.effects.append(Effect(what, node, detail))

    # Leaving a step.

    def _complete_visit(self, token: Token, outcome: Outcome) -> None:
        """End a visit whose action succeeded; its `output` replaces the result."""
        output: Any = self.steps[token.step].output
        if output is not None:
            token.result = outcome.data
            scope = self._scope(token)
            try:
                data = _rendered(output, scope) if type(output) is tuple else output.evaluate(scope)
            except EvaluationError:
                kept = _stored(outcome.data) if self._is_spent(token) else None
                if not self._is_caught(token, TEMPLATE_ERROR, outcome.data, kept=kept):
                    self.outcomes.setdefault(token.step, {})[token.visit] = outcome
                    self._fail_token(token, data=kept)
                return
            outcome = Outcome(data)
            self.undo.set_result(token, data)
        self._end_visit(token, outcome)

    def _end_visit(self, token: Token, outcome: Outcome, *, failed: bool = False) -> None:
        """End a visit with an outcome, and take its transitions."""
        self.running = [other for other in self.running if other is not token]
        self.outcomes.setdefault(token.step, {})[token.visit] = outcome
        token.result = outcome.data
        # The result of a spent token does not count.
        token.origins = frozenset() if self._is_spent(token) else frozenset([token.step])
        if token.step == "end":
            self.end = token
        self._take_transitions(token, failed=failed)

    def _take_transitions(self, token: Token, *, failed: bool = False) -> None:
        """Choose the transitions of a token that leaves its step, and send tokens along them."""
        step = self.steps[token.step]
        try:
            leaving = self._fired(step, token)
        except EvaluationError:
            own = None if step.kind == "router" or failed else token.result
            has_data = step.output is not None or (self._is_spent(token) and step.kind != "router")
            kept = _stored(token.result) if has_data and not failed else None
            if not self._is_caught(token, TEMPLATE_ERROR, own, kept=kept):
                self._fail_token(token, data=kept)
            return
        if token.step != "start" or step.kind != "router":
            is_made = step.kind in BY_BROKER or step.output is not None  # by the broker
            made = _stored(token.result) if is_made and not failed else None
            self.emit("step_failed" if failed else "step_completed", token.node, made)
        if not leaving:
            self._end_branch(token)
        for arc, inputs in leaving:
            self._send(token, arc, inputs)

    def _send(self, token: Token, arc: Arc, inputs: dict[str, Any]) -> None:
        """Send a token along an arc."""
        is_passed = self.steps[token.step].kind == "router" or token.step in token.passed
        self.moving.append(
            Token(
                step=arc.target,
                arc=arc.number,
                arc_inputs=inputs,
                result=token.result,
                origins=token.origins,
                spent=token.spent,
                passed=token.passed if is_passed else frozenset(),
            )
        )

    def _end_branch(self, token: Token) -> None:
        self.branch_ends |= dict.fromkeys(sorted(token.origins))

    def _fired(self, step: Step, token: Token) -> list[tuple[Arc, dict[str, Any]]]:
        arcs = [arc for arc in self.arcs if arc.source == step.name]
        scope = self._scope(token)
        fired: list[Arc] = []
        fallbacks: list[Arc] = []
        matched = conditional = False
        for entry in step.entries:
            then, otherwise = arcs[: len(entry.then)], arcs[len(entry.then) :][: len(entry.otherwise)]
            arcs = arcs[len(entry.then) + len(entry.otherwise) :]
            if entry.when is not None:
                conditional = True
                if matched and step.exclusive:
                    continue
                holds = is_true(entry.when.evaluate(scope))
                matched = matched or holds
                fired += then if holds else otherwise
            elif entry.is_only_else or conditional:
                fallbacks += otherwise if entry.is_only_else else then
            else:
                fired += then
        fired += [] if matched else fallbacks
        return [(arc, _rendered(arc.inputs, scope)) for arc in sorted(fired)]

    # Names.

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

    # Arriving at a step.

    def _move_tokens(self) -> None:
        """Move all tokens: first those between steps, then one waiting join, until none moves."""
        if self.status != "RUNNING":
            self.kept, self.moving = self.kept + self.moving, []
            return
        while True:
            while self.moving:
                self._arrive(self.moving.pop(0))
            name = self._next_join()
            if name is None:
                break
            if self._join_of(name) == "any":
                self._fall_short(name)
            else:
                self._enter(name, self._take_waiting(name))
        if not self.running and not self.undo.holds_end:
            self._complete()

    def _arrive(self, token: Token) -> None:
        kind = self._join_of(token.step)
        if kind in {"all", "last"}:
            self.waiting.append(token)
        elif kind != "any":
            self._enter(token.step, [token])
        elif token.step not in token.spent:
            self.waiting.append(token)
            if sum(other.step == token.step for other in self.waiting) == self.steps[token.step].need:
                gathered = self._take_waiting(token.step)
                if self.steps[token.step].losers == "cancel":
                    self._close_others(token.step)
                else:
                    self._spend_others(token.step)
                self._enter(token.step, gathered)

    def _take_waiting(self, name: str) -> list[Token]:
        gathered = [token for token in self.waiting if token.step == name]
        self.waiting = [token for token in self.waiting if token.step != name]
        return gathered

    def _close_others(self, join: str) -> None:
        """End all other tokens that can reach a join; all if it is `end`."""

        def loses(token: Token) -> bool:
            return join == "end" or join in {token.step} | reachable_steps(self.arcs, token)

        for token in [token for token in self.running if join == "end" or join in reachable_steps(self.arcs, token)]:
            self.running.remove(token)
            self.undo.close(token)
            self.emit("step_cancelled", token.node)
        for name in self.steps:
            gathered = [token for token in self.waiting if token.step == name]
            if gathered and loses(merge(gathered)):
                self._take_waiting(name)
        self.moving = [token for token in self.moving if token.step not in token.spent and not loses(token)]

    def _fall_short(self, name: str) -> None:
        """Fail a step that got too few arrivals; `on_error` decides whether its token goes on."""
        step = self.steps[name]
        token = merge(self._take_waiting(name))
        self._count_visit(token)
        error = {"type": "need_not_met", "message": "too few arrivals"}
        if name not in token.passed:
            before = token.passed
            token.passed |= {name}
            if self._is_caught(token, error):
                return
            token.passed = before
        if name in token.passed or step.on_error == "fail" or step.kind == "iterator":
            self._fail_token(token, error)
            return
        token.passed |= {name}
        self._end_visit(token, Outcome(None, "FAILED", error), failed=True)

    def _count_visit(self, token: Token) -> None:
        self.visits[token.step] += 1
        token.visit = self.visits[token.step]
        token.node = token.step if token.visit == 1 else f"{token.step}#{token.visit}"
        if self.visits.total() > self.max_visits:
            self._fail(token.node)

    def _spend_others(self, join: str) -> None:
        """Spend all other tokens that can reach a join; waiting tokens count as their merged token."""
        for other in [*self.running]:
            if join in reachable_steps(self.arcs, other):
                other.spent |= {join}
                if self._waits_for_nothing(other):
                    self.running.remove(other)
                    self.undo.close(other)
                    self.emit("step_cancelled", other.node)
        for name in self.steps:
            gathered = [token for token in self.waiting if token.step == name]
            if gathered and join in reachable_steps(self.arcs, merge(gathered)):
                for other in gathered:
                    other.spent |= {join}
                    other.origins = frozenset()
        for other in self.moving:
            # A token that is spent for its next step ends there.
            if other.step not in other.spent and join in {other.step} | reachable_steps(self.arcs, other):
                other.spent |= {join}
                other.origins = frozenset()

    def _waits_for_nothing(self, token: Token) -> bool:
        """Tell whether all paths from a wait end at joins for which it is spent, and none through a merging join."""
        if self.steps[token.step].kind not in WAITING or not token.spent:
            return False
        paths = [token.step]
        for name in paths:
            targets = {arc.target for arc in self.arcs if arc.source == name}
            for target in sorted(targets - token.spent - {*paths}):
                if self._join_of(target) == "all" or self.steps[target].need > 1:
                    return False
                paths.append(target)
            if not targets:
                return False
        return True

    def _join_of(self, name: str) -> str | None:
        """Return the join of a step: all, any, each, `last` (no other token is left) or None."""
        step = self.steps[name]
        if step.join:
            return step.join
        if name == "end":
            return "last"
        return "all" if sum(arc.target == name for arc in self.arcs) > 1 else None

    def _enter(self, name: str, tokens: list[Token]) -> None:
        """Begin a visit with the tokens that arrived."""
        step = self.steps[name]
        token = merge(tokens)
        self._count_visit(token)
        token.begun = self.turn
        if step.kind != "router" or name not in {"start", "end"}:
            self.emit("step_started", token.node)
        if name in token.passed and step.kind == "router":
            self._fail_token(token)
            return
        if self._waits_for_nothing(token):
            self.emit("step_cancelled", token.node)
            return
        try:
            token.inputs = {**token.arc_inputs, **_rendered(step.inputs, self._scope(token), without=token.arc_inputs)}
            self._begin(step, token)
        except EvaluationError:
            if self._fails_again(token) or not self._is_caught(token, TEMPLATE_ERROR):
                made = self.outcomes.get(name, {}).get(token.visit)
                self._fail_token(token, data=None if made is None else _stored(made.data))

    @staticmethod
    def _fails_again(token: Token) -> bool:
        """Tell whether a token has failed at this step in this turn before; then nothing catches it."""
        again = token.step in token.passed
        token.passed |= {token.step}
        return again

    def _begin(self, step: Step, token: Token) -> None:
        if step.kind == "router" and step.name == "end":
            self.end = token
            self._end_branch(token)
            return
        if step.kind == "router":
            token.passed |= {step.name}
            self._take_transitions(token)
            return
        if step.signal:
            self._begin_signal(step, step.signal, token)
            return
        if step.failure:
            scope = self._scope(token)
            error = {"type": step.failure.type.evaluate(scope), "message": step.failure.message.evaluate(scope)}
            code = step.failure.status_code
            if self._fails_again(token):
                self._fail_token(token)
                return
            self._failed(token, error if code is None else {**error, "status_code": code})
            return
        if step.iterate:
            values = self._values(step.iterate, token)
            token.items = None if step.iterate.by_worker else Items(iterate=step.iterate, values=values)
        self.running.append(token)
        if token.items is not None:
            self.emit("iterator_started", token.node, len(token.items.values))
            self._start_items(token, token.items)
        elif step.kind == "playbook":
            self.emit("child", token.node, (None, step.path, token.inputs))
        elif step.kind in WAITING:
            self.emit("wait", token.node)
        else:
            self.emit("job", token.node, token.inputs)

    def _next_join(self) -> str | None:
        """Return the waiting join that runs next; `end` if no other token is left."""
        names = [name for name in self.steps if any(token.step == name for token in self.waiting)]
        joins = sorted(
            (name for name in names if self._join_of(name) != "last"), key=lambda n: self._join_of(n) == "any"
        )
        if joins or self.running:
            return next_ready_join(self.arcs, joins, self.waiting, self.running)
        return names[0] if names else None

    # Iterators.

    def _values(self, iterate: Iterate, token: Token) -> list[Any]:
        collection = iterate.collection.evaluate(self._scope(token))
        if isinstance(collection, Mapping):
            keys = sorted(collection, key=lambda key: (len(key), key))  # the order of jsonb
            collection = [{"key": key, "value": collection[key]} for key in keys]
        if not isinstance(collection, list):
            raise EvaluationError(f"{collection!r} is no collection")
        if iterate.where is not None:
            condition = iterate.where
            collection = [item for item in collection if is_true(condition.evaluate(self._item_scope(token, item)))]
        if iterate.order_by is not None:
            order_by = iterate.order_by
            collection = sorted(collection, key=lambda item: order_by.evaluate(self._item_scope(token, item)))
        collection = collection if iterate.limit is None else collection[: iterate.limit]
        size = iterate.chunk
        return collection if size is None else [collection[at : at + size] for at in range(0, len(collection), size)]

    def _start_items(self, token: Token, items: Items) -> None:
        """Start items up to the concurrency."""
        width = items.iterate.concurrency or 1
        if self.status != "RUNNING" and items.next < len(items.values) and len(items.open) < width:
            token.is_kept = True
            return
        started = 0
        while items.next < len(items.values) and len(items.open) < width:
            if started == ITEMS_PER_TURN:
                self.emit("post", token.node, "iteration_due")
                break
            started += 1
            own = _rendered(items.iterate.inputs, self._scope(token, {"item": items.values[items.next]}))
            inputs = {**token.inputs, **own}
            items.open.add(items.next)
            items.inputs[items.next] = inputs
            self.emit("iteration_started", token.node, items.next)
            self.emit("child" if items.iterate.path else "job", token.node, (items.next, items.iterate.path, inputs))
            items.next += 1
        if not items.open and len(items.results) == len(items.values):
            self.emit("post", token.node, "iterator_completed")

    def _apply_to_items(self, token: Token, items: Items, event: ReferenceEvent) -> None:
        index = event.item_index
        if event.kind == "gathered" and len(items.results) == len(items.values):
            results = [items.results[at] for at in range(len(items.values))]
            self.undo.succeed(token, event, results)
            self._end_visit(token, Outcome(results, failed=items.failed_in_order))
        elif event.kind == "more":
            self._start_items(token, items)
        if index is None or index not in items.open or self._is_item_outdated(items, index, event):
            return
        if event.kind == "item_due":
            self._start_item_again(token, items, index, event)
        elif event.kind == "item_failed":
            self._fail_item(token, items, index, event)
        else:
            items.open.remove(index)
            items.due.discard(index)
            self.undo.succeed(token, event, _outcome(event.value).data, index)
            self.emit("iteration_completed", token.node, index)
            items.results[index] = _outcome(event.value).data
            self._start_items(token, items)

    def _is_item_outdated(self, items: Items, index: int, event: ReferenceEvent) -> bool:
        """Tell whether an event is of an attempt of an item that was counted, as of a visit."""
        failed = event.kind == "item_failed"
        lease = event.leases if failed and event.lease is None else event.lease or 0
        counts = failed or (event.kind == "item_completed" and items.iterate.path is not None)
        return counts and 0 < lease <= items.failed_leases.get(index, 0)

    def _start_item_again(self, token: Token, items: Items, index: int, event: ReferenceEvent) -> None:
        """Start the child of an item again, after the delay."""
        if index not in items.due or event.lease not in {None, items.failures.get(index, 0) + 1}:
            return
        items.due.remove(index)
        if self.status != "RUNNING":
            items.kept.append(index)
            return
        self.emit("child", token.node, (index, items.iterate.path, items.inputs[index]))

    def _fail_item(self, token: Token, items: Items, index: int, event: ReferenceEvent) -> None:
        """Try an item again, or end it: with a result of its `catch`, or as failed."""
        self.undo.note_attempt(token, event, index)
        failures = items.failures[index] = items.failures.get(index, 0) + 1
        is_child, retry = items.iterate.path is not None, items.iterate.retry
        lease = event.leases if event.lease is None else event.lease
        items.failed_leases[index] = max(items.failed_leases.get(index, 0), failures if is_child else lease)
        names = {**items.inputs[index], "item": items.values[index]}
        if retry and event.may_retry and self.wants_retry(retry, failures, names, event.value):
            if is_child:
                items.due.add(index)
            delay = retry.initial_delay * retry.backoff_multiplier ** (failures - 1)
            self.emit("action_retry", token.node, [index, float(min(delay, retry.max_delay))])
            return
        items.open.remove(index)
        self.undo.give_up(token, index)
        error = {"attempt": failures, "type": "action_failed", **event.value, "step": token.step}
        is_broken = False
        try:
            is_caught = self._is_item_caught(token, items, index, error)
        except EvaluationError:
            is_caught, is_broken = False, True
        if is_caught:
            made = _stored(items.results[index])
            self.emit("iteration_completed", token.node, [index, {"data": None} if made is None else made])
            self._start_items(token, items)
            return
        self.emit("iteration_failed", token.node, index)
        items.failed.add(index)
        if is_broken or self._fails_by_items(token, items):
            self._close_items(token, items)
            if is_broken:
                if not self._is_caught(token, TEMPLATE_ERROR):
                    self._fail_step(token, TEMPLATE_ERROR)
            elif self.steps[token.step].iterate and self.steps[token.step].on_error == "fail":
                too_many = {"type": "too_many_items_failed", "message": "too many items failed"}
                self._failed(token, {**event.value, **too_many} if items.iterate.tolerate else event.value)
            elif not self._is_caught(token, {**event.value, "type": "all_items_failed", "message": "all items failed"}):
                self._fail_step(token, event.value)
            return
        items.results[index] = None
        self._start_items(token, items)

    def _close_items(self, token: Token, items: Items) -> None:
        """Await the open items of an iterator that failed."""
        if items.open:
            self.undo.close(token)

    def _fails_by_items(self, token: Token, items: Items) -> bool:
        """Tell whether the failed items fail their iterator."""
        failed, total, tolerate = len(items.failed), len(items.values), items.iterate.tolerate
        if tolerate is None:
            return self.steps[token.step].on_error == "fail" or failed == total
        if isinstance(tolerate, int):
            return failed > tolerate or failed == total
        percent = int(tolerate.removesuffix("%"))
        return failed * 100 > percent * total or (failed == total and percent < EVERY)

    def _is_item_caught(self, token: Token, items: Items, index: int, error: Mapping[str, Any]) -> bool:
        """Give a failed item the result of the first entry of `catch` that is true. Raises EvaluationError."""
        names = {**items.inputs[index], "item": items.values[index], "error": error}
        look = self._scope(token)
        scope = lambda name: names[name] if name in names else look(name)  # noqa: E731
        for entry in items.iterate.catch:
            if entry.when is None or is_true(entry.when.evaluate(scope)):
                result: Any = entry.result
                items.results[index] = _rendered(result, scope) if type(result) is tuple else result.evaluate(scope)
                return True
        return False

    # The end.

    def _complete(self) -> None:
        """Complete the execution with its result."""
        end = self.steps.get("end")
        if self.end is not None and end is not None:
            try:
                if end.result is not None:
                    self.result = self._end_result(end, self.end)
                    self._finish("COMPLETED")
            except EvaluationError:
                self._fail_end(end, self.end)
            if end.kind != "router":
                self.result = self._latest("end").data
                self._finish("COMPLETED")
        ends = {name: self._latest(name).data for name in self.branch_ends}
        self.result = None if not ends else next(iter(ends.values())) if len(ends) == 1 else ends
        self._finish("COMPLETED")

    def _fail_end(self, end: Step, token: Token) -> None:
        """Fail `end` because of its result; the visit ends once, so its completion in this turn is replaced."""
        if end.kind == "router":
            self.emit("step_failed", token.node)
        for index, effect in enumerate(self.effects):
            if effect[:2] == ("step_completed", token.node):
                kept = None if effect.detail is None else [False, effect.detail]
                self.effects[index] = Effect("step_failed", token.node, kept)
        self.error = {"step": end.name}
        self._finish("FAILED")

    def _end_result(self, end: Step, token: Token) -> Any:
        scope = self._scope(token)
        result: Any = end.result
        return _rendered(result, scope) if type(result) is tuple else result.evaluate(scope)


def _names_another_lease(event: ReferenceEvent) -> bool:
    """Tell whether an event is a failure, sent beside its job, of another lease than the job has."""
    is_beside = event.kind in {"failed", "item_failed"} and not event.through_job
    return is_beside and event.leases > 0 and event.lease not in {None, event.leases}


def _outcome(result: Any) -> Outcome:
    """Return a result, unwrapped once if it is an envelope."""
    if isinstance(result, Mapping) and "data" in result and result.keys() <= ENVELOPE:
        return Outcome(result["data"], result.get("status") or "COMPLETED", result.get("error"))
    return Outcome(result)


def _stored(data: Any) -> Any:
    """Return a result of the broker as its event has it: one that looks like an envelope is in an envelope."""
    looks_like_one = isinstance(data, Mapping) and "data" in data and data.keys() <= ENVELOPE
    return {"data": data} if looks_like_one else data


def _key_text(value: Any) -> str:
    """Return a key as text: a number or a boolean is its JSON text."""
    if not isinstance(value, str | int | float):
        raise EvaluationError(f"{value!r} is no key")
    return value if isinstance(value, str) else json.dumps(value)


def _rendered(inputs: Inputs, scope: Any, *, without: Iterable[str] = ()) -> dict[str, Any]:
    return {name: value.evaluate(scope) for name, value in inputs if name not in without}


def _merged_values(default: Any, value: Any) -> Any:
    """Merge two values: mappings key by key, anything else is replaced."""
    if isinstance(default, Mapping) and isinstance(value, Mapping):
        return {**default, **{key: _merged_values(default.get(key), item) for key, item in value.items()}}
    return value

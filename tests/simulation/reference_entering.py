"""How tokens enter steps in the reference: joins, visits, waits for signals, and the end."""

from __future__ import annotations

import json
from typing import Any

from tests.simulation.expressions import EvaluationError, Outcome, is_true
from tests.simulation.joins import merge, next_ready_join, reachable_steps
from tests.simulation.plans import Signal, Step
from tests.simulation.reference_items import Iterating
from tests.simulation.reference_leaving import WAITING
from tests.simulation.reference_model import (
    Awaited,
    Effect,
    Items,
    Row,
    Token,
)
from tests.simulation.reference_state import (
    TEMPLATE_ERROR,
    rendered,
    stored,
)


class Entering(Iterating):
    """What begins visits."""

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
                    self._cancel_others(token.step)
                else:
                    self._spend_others(token.step)
                self._enter(token.step, gathered)

    def _take_waiting(self, name: str) -> list[Token]:
        gathered = [token for token in self.waiting if token.step == name]
        self.waiting = [token for token in self.waiting if token.step != name]
        return gathered

    def _cancel_others(self, join: str) -> None:
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
        self.visited[token.node] = token

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
            token.inputs = {**token.arc_inputs, **rendered(step.inputs, self._scope(token), without=token.arc_inputs)}
            self._begin(step, token)
        except EvaluationError:
            if self._fails_again(token) or not self._is_caught(token, TEMPLATE_ERROR):
                made = self.outcomes.get(name, {}).get(token.visit)
                self._fail_token(token, data=None if made is None else stored(made.data))

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
        if token.items is None and step.kind in {"action", "iterator"}:
            self.place_job(token.node, (step.pool, step.priority), self._scope(token))
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

    def _begin_signal(self, step: Step, spec: Signal, token: Token) -> None:
        """Send a signal, or wait for one; a kept one ends the wait at once."""
        key = self.own_key if spec.key is None else _key_text(spec.key.evaluate(self._scope(token)))
        if step.kind == "signal":
            payload = None if spec.payload is None else rendered(spec.payload, self._scope(token))
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
            kept = stored(data) if self._is_spent(token) else None
            if not self._fails_again(token) and self._is_caught(token, TEMPLATE_ERROR, data, kept=kept):
                return
            if self._is_spent(token):
                self.outcomes.setdefault(token.step, {})[token.visit] = Outcome(data, "FAILED", TEMPLATE_ERROR)
            raise
        self._end_visit(token, Outcome(data))

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
        return rendered(result, scope) if type(result) is tuple else result.evaluate(scope)


def _key_text(value: Any) -> str:
    """Return a key as text: a number or a boolean is its JSON text."""
    if not isinstance(value, str | int | float):
        raise EvaluationError(f"{value!r} is no key")
    return value if isinstance(value, str) else json.dumps(value)

"""How tokens leave steps in the reference: results, failures, `catch`, and transitions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.simulation.expressions import MISSING, EvaluationError, Outcome, is_true
from tests.simulation.plans import Retry, Step
from tests.simulation.reference_model import (
    Arc,
    Token,
)
from tests.simulation.reference_state import (
    NO_ERROR,
    TEMPLATE_ERROR,
    ReferenceState,
    rendered,
    stored,
)

WAITING = frozenset({"wait", "approval"})
BY_BROKER = WAITING | {"signal"}  # kinds whose result the broker makes


class Leaving(ReferenceState):
    """What ends visits."""

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
        described = {**error, "step": token.step, "attempt": max(token.failures, 1)}
        described["type"] = described.get("type") or "action_failed"
        self.outcomes.setdefault(token.step, {})[token.visit] = Outcome(data, "FAILED", described, places)
        hands_on = self.steps[token.step].kind == "router" and token.step != "start"
        if not hands_on:
            token.result = data
        scope = self._scope(token, {"error": described})
        try:
            for arc in arcs:
                when = arc.catch and arc.catch.when
                if when is None or is_true(when.evaluate(scope)):
                    inputs = rendered(arc.inputs, scope)
                    break
            else:
                self._forget(token, had)
                token.result = before
                return False
        except EvaluationError:
            self._fail_token(token, data=kept)
            return True
        self.running = [other for other in self.running if other is not token]
        self.emit("step_failed", token.node, [True, stored(data)])
        if not hands_on:
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

    def _fail(self, node: str, error: Mapping[str, Any] = NO_ERROR, kept: Any = None) -> None:
        """Fail a step and the execution."""
        self.error = {**error, "step": node.partition("#")[0]}
        self.emit("step_failed", node, kept)
        self._finish("FAILED")

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

    def _complete_visit(self, token: Token, outcome: Outcome) -> None:
        """End a visit whose action succeeded; its `output` replaces the result."""
        output: Any = self.steps[token.step].output
        if output is not None:
            token.result = outcome.data
            scope = self._scope(token)
            try:
                data = rendered(output, scope) if type(output) is tuple else output.evaluate(scope)
            except EvaluationError:
                kept = stored(outcome.data) if self._is_spent(token) else None
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
            kept = stored(token.result) if has_data and not failed else None
            if not self._is_caught(token, TEMPLATE_ERROR, own, kept=kept):
                self._fail_token(token, data=kept)
            return
        if token.step != "start" or step.kind != "router":
            is_made = step.kind in BY_BROKER or step.output is not None  # by the broker
            made = stored(token.result) if is_made and not failed else None
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
        return [(arc, rendered(arc.inputs, scope)) for arc in sorted(fired)]

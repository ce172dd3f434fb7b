"""A simple interpreter of plans, written from the specification: each step looks at the whole graph again.

It shares no code with the core. It applies the events of one execution, one at a time, and returns the effects of each.
Where the specification has no order, the order of the events counts.
"""

from __future__ import annotations

from typing import Any

from tests.simulation.expressions import Outcome
from tests.simulation.plans import Plan
from tests.simulation.reference_entering import Entering
from tests.simulation.reference_leaving import WAITING
from tests.simulation.reference_model import (
    LIVE,
    Effect,
    ReferenceEvent,
    Token,
)
from tests.simulation.reference_state import (
    COMPENSATING,
    Ended,
    merged_values,
    outcome_of,
)
from tests.simulation.reference_undo import Compensation


class Reference(Entering):
    """One execution of a plan."""

    def __init__(self, plan: Plan, execution_id: int = 0, **start: Any) -> None:
        super().__init__(plan, execution_id, **start)
        self.undo = Compensation(self)

    def apply(self, event: ReferenceEvent) -> list[Effect]:
        """Return the effects of an event."""
        self.effects = []
        self.turn += 1
        self.number = event.number
        try:
            self._apply(event)
        except Ended:
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
        elif self.status not in LIVE | {"NEW"} and event.kind != "start":
            self.undo.apply_after_end(event)
        if event.kind == "start" or self.status not in LIVE - {COMPENSATING}:
            return
        if event.kind in {"pause", "resume", "slot"}:
            self._hold(event)
            return
        if event.kind == "signal":
            self._receive(event)
            return
        if event.kind == "cancel":
            self._finish("CANCELLED")
        if event.kind == "deadline" and self.deadline is not None:
            self._finish("FAILED")
        if event.kind == "late":
            self._report_late(event)
            return
        self._apply_to_node(event)

    def _report_late(self, event: ReferenceEvent) -> None:
        """Report once that the execution or a visit is late; nothing else changes."""
        if not event.node and self.late_after is not None and self.is_admitted and not self.is_late:
            self.is_late = True
            self.emit("execution_late")
        for token in self.running:
            late_after = self.steps[token.step].late_after
            if event.node and token.node == event.node and late_after is not None and not token.is_late:
                token.is_late = True
                self.emit("step_late", token.node)

    def _apply_to_node(self, event: ReferenceEvent) -> None:
        """Apply an event of a visit."""
        for token in self.running:
            if token.node == event.node:
                self._apply_to_visit(token, event)
                self._move_tokens()
                return
        if self.undo.apply_late(event):
            self._move_tokens()

    def _apply_to_visit(self, token: Token, event: ReferenceEvent) -> None:
        """Apply an event of an open visit."""
        if self.steps[token.step].kind in WAITING:
            self._apply_to_wait(token, event)
        elif names_another_lease(event):
            return
        elif token.items is not None and event.kind != "failed":
            self._apply_to_items(token, token.items, event)
        elif self._is_outdated(token, event):
            return
        elif event.kind == "completed":
            iterates = self.steps[token.step].iterate is not None
            outcome = outcome_of(event.value)._replace(failed=() if iterates else None)
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

    def _hold(self, event: ReferenceEvent) -> None:
        """Pause, resume or admit the execution."""
        if event.kind == "slot":
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
        self.workload = merged_values(self.workload, event.value)
        self.add_tags()
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

        An answer of a cancelled child does not count. A result of an action always counts.
        """
        failed = event.kind == "failed"
        lease = event.leases if failed and event.lease is None else event.lease or 0
        return (failed or self.steps[token.step].kind == "playbook") and 0 < lease <= token.failed_lease

    def _failed_attempt(self, token: Token, event: ReferenceEvent) -> None:
        step = self.steps[token.step]
        self.undo.note_attempt(token, event)
        self.undo.leave(token, event)
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
            self._cancel_items(token, token.items)
        self._failed(token, event.value)

    def is_of_other_attempt(self, token: Token, event: ReferenceEvent) -> bool:
        """Tell whether an event is not of the present attempt of a visit."""
        return names_another_lease(event) or (token.items is None and self._is_outdated(token, event))


def names_another_lease(event: ReferenceEvent) -> bool:
    """Tell whether an event is a failure, sent beside its job, of another lease than the job has."""
    is_beside = event.kind in {"failed", "item_failed"} and not event.through_job
    return is_beside and event.leases > 0 and event.lease not in {None, event.leases}

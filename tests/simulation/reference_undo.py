"""The compensation of the reference: what succeeded and can be undone, what is draining, and one undo at a time.

Written from the specification, as the rest of the reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.simulation.expressions import EvaluationError
from tests.simulation.plans import Compensate, Step

if TYPE_CHECKING:
    from tests.simulation.reference import Reference
    from tests.simulation.reference_model import ReferenceEvent, Token

UNDO = "!undo"
UNSURE = frozenset({"timeout", "lost_lease"})  # types of errors after which an action may have had its effect


@dataclass(eq=False, slots=True, kw_only=True)
class UndoRow:
    """A visit or an item that is to be undone, was undone, or may have had an effect (`unknown`).

    `turn` is that of the event which reported its success. `children` are executions that undo what they did.
    """

    token: Token
    item_index: int | None
    turn: int
    status: str = "open"
    children: list[int] = field(default_factory=list)
    inputs: dict[str, Any] = field(default_factory=dict)
    result: Any = None

    @property
    def node(self) -> str:
        """The node of the visit or of the item."""
        return self.token.node if self.item_index is None else f"{self.token.node}.{self.item_index}"

    @property
    def order(self) -> tuple[int, int, str, int]:
        """The place among the undos: the highest is undone first.

        Several rows of one turn are of unknown outcome, so no order of them is wrong: the name decides.
        """
        index = -1 if self.item_index is None else self.item_index
        return self.turn, index, self.token.step, self.token.visit


class Compensation:
    """The undos of one execution."""

    def __init__(self, reference: Reference) -> None:
        self._of = reference
        self.rows: list[UndoRow] = []
        self._end = ""  # the status that the execution gets when all is undone
        self._draining: list[Token] = []
        self._current: UndoRow | None = None
        self._failures = 0
        self._failed_lease = 0
        self._is_due = False
        self.error: Mapping[str, Any] | None = None  # why the execution undoes
        self._first = 0  # the number of the first attempt of the undo that runs, if a child does it
        self._asked: list[int] = []  # children that the undo which runs has asked or will ask
        self._counts = {"done": 0, "failed": 0}  # of this undo
        self._later: int | None = None  # it has ended, and undoes: the number of the answer that its parent waits for

    # What succeeded.

    def of_step(self, step: Step, index: int | None) -> Compensate | None:
        """Return what undoes a visit of a step or one of its items."""
        if index is None:
            return step.compensate
        return step.iterate.compensate if step.iterate else None

    def succeed(self, token: Token, event: ReferenceEvent, result: Any, index: int | None = None) -> None:
        """Note that the action, the child or the items of a visit succeeded."""
        step = self._of.steps[token.step]
        own = self.of_step(step, index)
        if own is None and event.undo_child is None:
            return
        if index is None and own is not None:
            for row in self.rows:
                if row.token is token and row.status == "open":
                    row.status = "superseded"
        known = None if own else self._open_row(token, index)
        row = known or UndoRow(token=token, item_index=index, turn=0, inputs=self._inputs_of(token, index))
        if known is None:
            self.rows.append(row)
        row.turn, row.result = self._of.turn, result
        self._emit_row(row, event.undo_child if own is None else None)

    def leave(self, token: Token, event: ReferenceEvent, index: int | None = None) -> None:
        """Note a child that failed and left something to undo."""
        if event.undo_child is not None and self.of_step(self._of.steps[token.step], index) is None:
            self.succeed(token, event, None, index)

    def _open_row(self, token: Token, index: int | None) -> UndoRow | None:
        rows = (row for row in self.rows if row.token is token and row.item_index == index and row.status == "open")
        return next(rows, None)

    def _inputs_of(self, token: Token, index: int | None) -> dict[str, Any]:
        return token.items.inputs[index] if token.items and index is not None else token.inputs

    def set_result(self, token: Token, result: Any) -> None:
        """Let the undo of a visit see its output."""
        for row in self.rows:
            if row.token is token and row.item_index is None:
                row.result = result

    def note_attempt(self, token: Token, event: ReferenceEvent, index: int | None = None) -> None:
        """Note whether a failed attempt may have had an effect."""
        step = self._of.steps[token.step]
        by_child = step.kind == "playbook" or bool(step.iterate and step.iterate.path)
        lease = event.leases if event.lease is None else event.lease
        failed_lease = token.failed_lease
        if token.items is not None and index is not None:
            failed_lease = token.items.failed_leases.get(index, 0)
        error_type = event.value.get("type") if isinstance(event.value, Mapping) else None
        is_of_child = isinstance(event.value, Mapping) and "child_execution_id" in event.value
        if (error_type in UNSURE and not is_of_child) or (not by_child and lease > failed_lease + 1):
            token.unsure.add(index)

    def give_up(self, token: Token, index: int | None = None) -> None:
        """List a visit or an item that ended without success, and that may have had an effect.

        An iterator that did not succeed is not undone as a whole beside its items.
        """
        step = self._of.steps[token.step]
        if index is None and (self.of_step(step, 0) or any(self._is_open_row_of(row, token) for row in self.rows)):
            return
        if index in token.unsure and self.of_step(step, index) is not None:
            inputs = self._inputs_of(token, index)
            row = UndoRow(token=token, item_index=index, turn=self._of.turn, status="unknown", inputs=inputs)
            self.rows.append(row)
            self._emit_row(row)

    def _emit_row(self, row: UndoRow, child: int | None = None) -> None:
        row.children += [] if child is None else [child]
        self._of.emit("undo", row.node, [row.status, child])

    # The begin.

    @property
    def has_open(self) -> bool:
        """Tell whether there is something to undo."""
        return any(row.status == "open" for row in self.rows)

    @property
    def holds_end(self) -> bool:
        """Tell whether a visit that is over may still succeed."""
        return bool(self._draining)

    def is_needed(self) -> bool:
        """Tell whether there is something to undo, or an action may still succeed."""
        return self.has_open or any(map(self._may_succeed, [*self._of.running, *self._draining]))

    def _may_succeed(self, token: Token) -> bool:
        step, items = self._of.steps[token.step], token.items
        if token.begun == self._of.turn:
            return False  # its jobs and children are dropped with the turn
        if items is not None:
            is_complete = not items.open and items.next == len(items.values)
            return (bool(items.open) and self.of_step(step, 0) is not None) or (
                is_complete and step.compensate is not None
            )
        return step.compensate is not None and not token.is_due and not token.is_kept

    @property
    def _may_undo(self) -> bool:
        """Tell whether the execution may have something to undo: then nobody knows whether a child has."""
        steps = self._of.steps.values()
        return self.has_open or any(self.of_step(step, index) for step in steps for index in (None, 0))

    def _has_child(self, token: Token) -> bool:
        if token.begun == self._of.turn:
            return False
        if token.items is not None:
            return bool(token.items.open and token.items.iterate.path)
        is_child = self._of.steps[token.step].kind == "playbook"
        return is_child and not token.is_due and not token.is_kept

    def close(self, token: Token) -> None:
        """Await a visit that is over while the execution goes on, if it may still succeed."""
        if self._may_succeed(token) or (self._may_undo and self._has_child(token)):
            self._draining.append(token)

    def begin(self, status: str) -> None:
        """Begin: the execution ends with this status when all is undone."""
        self._end, self.error = status, self._of.error
        for token in self._of.running:
            if self._may_succeed(token) or self._has_child(token):
                self._draining.append(token)
            else:
                self.give_up(token)
        self._of.emit("execution_compensating")

    # Events.

    def apply_after_end(self, event: ReferenceEvent) -> None:
        """Apply an event of an execution that has ended: it may undo what it did."""
        if event.kind == "undo":
            self._begin_later(event.value)
        elif event.kind == "abandon" and self._later is not None:
            self._abandon()
        elif event.is_undo and event.kind.removeprefix("item_") == "settled":
            self._close(event, {"open", "failed", "unknown"} if self._later is None else set(), "settled")
        elif event.is_undo and self._later is not None:
            self._apply_to_undo(event)
        elif event.is_undo and event.kind.removeprefix("item_") == "completed" and not event.by_child:
            row = self._close(event, {"unknown"}, "done")
            if row is not None:
                self._of.emit("compensation_completed", row.node)

    def _close(self, event: ReferenceEvent, statuses: set[str], status: str) -> UndoRow | None:
        """Close the row of an event if it has one of these statuses."""
        for row in self.rows:
            if row.token.node == event.node and row.item_index == event.item_index and row.status in statuses:
                row.status = status
                return row
        return None

    def _begin_later(self, context: Mapping[str, Any]) -> None:
        answer = context.get("answer", 0)
        if self._later is not None:
            self._later = answer or self._later
            return
        wanted = {"open", "failed", "unknown"} if context.get("unknown") else {"open", "failed"}
        left = [row for row in self.rows if row.status in wanted]
        if not left:
            if answer:
                self._of.emit("undo ended", "", [answer, True])
            return
        for row in left:
            row.status = "open"
        self._draining = []
        self._later, self.error, self._counts = answer, context["error"], {"done": 0, "failed": 0}
        self.go_on()

    def apply(self, event: ReferenceEvent) -> None:
        """Apply an event of an execution that compensates."""
        if event.kind == "abandon":
            self._abandon()
        elif event.is_undo:
            self._apply_to_undo(event)
        else:
            self.apply_late(event)
            self.go_on()

    def _abandon(self) -> None:
        """End with what is left; what runs and what is draining is listed as unknown."""
        if self._current is not None:
            self._current.status = "unknown"
            if self._asked:
                self._of.emit("abandon child", "", self._asked[-1])
        for token in self._draining:
            for index in self._unfinished(token):
                inputs = self._inputs_of(token, index)
                self.rows.append(
                    UndoRow(token=token, item_index=index, turn=self._of.turn, status="unknown", inputs=inputs)
                )
                self._emit_row(self.rows[-1])
        self._note_error({})
        self._finish("FAILED", fails=True)

    def _unfinished(self, token: Token) -> list[int | None]:
        """Return what may still succeed of a draining visit and has a `compensate`: the visit or its open items."""
        step = self._of.steps[token.step]
        if token.items is not None and token.items.open:
            return [*sorted(token.items.open)] if self.of_step(step, 0) else []
        has_row = any(self._is_open_row_of(row, token) for row in self.rows)
        return [None] if step.compensate and not has_row else []

    @staticmethod
    def _is_open_row_of(row: UndoRow, token: Token) -> bool:
        return row.token is token and row.status == "open"

    def apply_late(self, event: ReferenceEvent) -> bool:
        """Apply an event about a visit that is over; false if there is none, or nothing can come of it."""
        for token in self._draining:
            if token.node == event.node:
                self._drain(token, event)
                return True
        kind, over = event.kind.removeprefix("item_"), self._of.visited.get(event.node)
        if kind != "completed" or event.undo_child is None or over is None or event.is_undo:
            return False
        rows = [row for row in self.rows if row.token is over and row.item_index == event.item_index]
        if any(row.status != "open" or not row.children or event.undo_child in row.children for row in rows):
            return False  # only an open row of other children gets one more
        self.succeed(over, event, self._of.late_result(event), event.item_index)
        return True

    def _drain(self, token: Token, event: ReferenceEvent) -> None:
        """End a draining visit, or one of its items, by the event that reports its end."""
        index, kind = event.item_index, event.kind.removeprefix("item_")
        items = token.items
        if kind == "gathered" and items is not None and not items.open:
            kind = "completed"
        kind = "failed" if self._is_cancelled(token, event) else kind
        if kind not in {"completed", "failed"} or self._of.is_of_other_attempt(token, event):
            return
        if items is not None and index is None and event.kind == "completed":
            return
        if index is not None and (items is None or index not in items.open):
            return
        self._note_end(token, event, kind)
        if items is not None and index is not None:
            items.open.remove(index)
            if kind == "failed":
                self.give_up(token, index)
        if items is not None and items.open:
            return
        self._draining.remove(token)
        if not any(row.token is token and row.item_index is None for row in self.rows):
            self.give_up(token)

    @staticmethod
    def _is_cancelled(token: Token, event: ReferenceEvent) -> bool:
        """Tell whether the child of a draining item would be started again: it is not, so the item ends."""
        if event.kind != "item_due" or token.items is None or event.item_index not in token.items.due:
            return False
        return event.lease in {None, token.items.failures.get(event.item_index, 0) + 1}

    def _note_end(self, token: Token, event: ReferenceEvent, kind: str) -> None:
        """Note what a draining visit or item did."""
        if kind == "completed":
            self.succeed(token, event, self._of.late_result(event), event.item_index)
        elif event.kind != "item_due":
            self.note_attempt(token, event, event.item_index)
            self.leave(token, event, event.item_index)

    def go_on(self) -> None:
        """Begin the next undo if nothing is draining and none runs; end if none is left."""
        while self._undoes and not self._draining and self._current is None:
            rows = [row for row in self.rows if row.status == "open"]
            if not rows:
                self._finish(self._end)
                return
            self._begin_undo(max(rows, key=lambda row: row.order))

    @property
    def _undoes(self) -> bool:
        return self._of.status == "COMPENSATING" or self._later is not None

    def _begin_undo(self, row: UndoRow) -> None:
        self._first = 1 if self._later is None else self._of.number
        self._current, self._failures, self._failed_lease, self._asked = row, 0, 0, []
        self._of.emit("compensation_started", row.node)
        if row.children:
            row.status, self._failed_lease = "running", self._first - 1
            self._asked = [*row.children]
            self._of.emit("undo child", "", self._asked[-1])
            return
        action = self._action(row)
        try:
            inputs = self._of.undo_inputs(action, row)
            if action.path is None:
                self._of.place_undo(action, row)
        except EvaluationError:
            self._fail_undo()
            return
        row.status = "running"
        if action.path is not None:
            self._failed_lease = self._first - 1
            self._of.emit("child", row.node + UNDO, (None, action.path, inputs))
        else:
            self._of.emit("job", row.node + UNDO, inputs)

    def _action(self, row: UndoRow) -> Compensate:
        action = self.of_step(self._of.steps[row.token.step], row.item_index)
        if action is None:
            raise TypeError(f"{row.node} has no compensate")
        return action

    def _apply_to_undo(self, event: ReferenceEvent) -> None:
        row = self._current
        if row is None or event.node != row.token.node or event.item_index != row.item_index:
            return
        kind = event.kind.removeprefix("item_")
        by_child = bool(row.children) or self._action(row).path is not None
        lease = event.leases if kind == "failed" and event.lease is None else event.lease or 0
        is_beside = kind == "failed" and not event.through_job and event.leases > 0
        if is_beside and event.lease not in {None, event.leases}:
            return
        if (kind == "failed" or by_child) and 0 < lease <= self._failed_lease:
            return
        if kind == "completed" and len(self._asked) > 1:
            self._asked.pop()
            self._first, self._failed_lease = self._of.number, self._of.number - 1
            self._of.emit("undo child", "", self._asked[-1])
        elif kind == "completed":
            row.status = "done"
            self._counts["done"] += 1
            self._of.emit("compensation_completed", row.node)
            self._current = None
            self.go_on()
        elif kind == "failed":
            self._fail_attempt(row, event, lease, by_child=by_child)
        elif kind == "due" and self._is_due and event.lease in {None, self._first + self._failures}:
            self._is_due = False
            self._of.emit(
                "child", row.node + UNDO, (None, self._action(row).path, self._of.undo_inputs(self._action(row), row))
            )

    def _fail_attempt(self, row: UndoRow, event: ReferenceEvent, lease: int, *, by_child: bool) -> None:
        self._failures += 1
        self._failed_lease = max(self._failed_lease, self._first - 1 + self._failures if by_child else lease)
        retry = None if row.children else self._action(row).retry
        if retry and event.may_retry and self._of.wants_retry(retry, self._failures, row.inputs, event.value):
            self._is_due = by_child
            delay = retry.initial_delay * retry.backoff_multiplier ** (self._failures - 1)
            self._of.emit("undo_retry", row.node + UNDO, float(min(delay, retry.max_delay)))
            return
        self._fail_undo()

    def _fail_undo(self) -> None:
        if self._current is not None:
            self._current.status = "failed"
            self._counts["failed"] += 1
            self._of.emit("compensation_failed", self._current.node)
            self._note_error({"step": self._current.token.step})
        self._finish("FAILED", fails=True)

    def _note_error(self, error: Mapping[str, Any]) -> None:
        """Give the execution the error of its undo, unless it has failed or had ended before."""
        if self._end != "FAILED" and self._later is None:
            self._of.error = {"type": "compensation", **error}

    # The end.

    def _finish(self, status: str, *, fails: bool = False) -> None:
        self._draining, self._current, self._asked = [], None, []
        if self._later is None:
            self._of.end_compensation(status, self.counts())
            self._counts = {"done": 0, "failed": 0}
            return
        self._of.emit("execution_undo_failed" if fails else "execution_undone")
        self._of.emit("compensation", "", self.counts())
        self._of.emit("undo ended", "", [self._later, not fails])
        self._later = None

    def counts(self) -> dict[str, int]:
        """Return how many undos of this compensation ended in each way, and how many are left."""
        statuses = [row.status for row in self.rows]
        left = statuses.count("open") + statuses.count("failed") - self._counts["failed"]
        return {**self._counts, "unknown": statuses.count("unknown"), "left": left}

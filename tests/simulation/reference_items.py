"""Iterators of the reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.simulation.expressions import EvaluationError, Outcome, is_true
from tests.simulation.plans import Iterate
from tests.simulation.reference_leaving import Leaving
from tests.simulation.reference_model import (
    Items,
    ReferenceEvent,
    Token,
)
from tests.simulation.reference_state import (
    TEMPLATE_ERROR,
    outcome_of,
    rendered,
    stored,
)

ITEMS_PER_TURN = 100  # items that one turn starts
EVERY = 100  # per cent


class Iterating(Leaving):
    """What starts and ends items."""

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
            scope = self._scope(token, {"item": items.values[items.next]})
            inputs = {**token.inputs, **rendered(items.iterate.inputs, scope)}
            self.emit("iteration_started", token.node, items.next)
            if items.iterate.path is None:
                self._place_item(token, items.iterate, items.next, scope)
            items.open.add(items.next)
            items.inputs[items.next] = inputs
            self.emit("child" if items.iterate.path else "job", token.node, (items.next, items.iterate.path, inputs))
            items.next += 1
        if not items.open and len(items.results) == len(items.values):
            self.emit("post", token.node, "iterator_completed")

    def _place_item(self, token: Token, iterate: Iterate, index: int, scope: Any) -> None:
        step = self.steps[token.step]
        pool = step.pool if iterate.pool is None else iterate.pool
        priority = step.priority if iterate.priority is None else iterate.priority
        self.place_job(f"{token.node}.{index}", (pool, priority), scope)

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
            self.undo.succeed(token, event, outcome_of(event.value).data, index)
            self.emit("iteration_completed", token.node, index)
            items.results[index] = outcome_of(event.value).data
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
        self.undo.leave(token, event, index)
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
        error = {"type": "action_failed", **event.value, "step": token.step, "attempt": failures}
        is_broken = False
        try:
            is_caught = self._is_item_caught(token, items, index, error)
        except EvaluationError:
            is_caught, is_broken = False, True
        if is_caught:
            made = stored(items.results[index])
            self.emit("iteration_completed", token.node, [index, {"data": None} if made is None else made])
            self._start_items(token, items)
            return
        self.emit("iteration_failed", token.node, index)
        items.failed.add(index)
        if is_broken or self._fails_by_items(token, items):
            self._cancel_items(token, items)
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

    def _cancel_items(self, token: Token, items: Items) -> None:
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
                items.results[index] = rendered(result, scope) if type(result) is tuple else result.evaluate(scope)
                return True
        return False

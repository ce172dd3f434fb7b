"""Runs a task once for each item of a collection, for iterators that the broker does not expand.

There are two forms: an `iterator` job with a `task`, and any other job with a `loop`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from noetl_broker.playbook.diagnostics import json_type_name
from noetl_broker.playbook.items import parse_tolerance
from noetl_broker.playbook.keywords import INPUT_WORDS, LIST_KEYS, words_of_item
from noetl_broker.playbook.model import Tolerance
from noetl_broker.playbook.step_types import OWN_KEYS
from noetl_broker.playbook.template_reads import word_of_inputs
from noetl_broker.template import WORKER_WORDS, TemplateError, compile_condition, is_true
from noetl_broker.worker.deferred import Deferred, Path, Renderer, template_fault
from noetl_broker.worker.errors import FinalFault, ToolFault, shortened

ASYNC_CONCURRENCY = 8
SHOWN_CHARACTERS = 80

Run = Callable[[Mapping[str, Any], Path, Mapping[str, Any]], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerIteration:
    """The items, the name of an item in templates, the task's action, and its path in the job's action."""

    items: list[Any]
    element: str
    task: Mapping[str, Any]
    path: Path
    concurrency: int
    tolerate: Tolerance | None  # None: all may fail


def iterates(action: Mapping[str, Any]) -> bool:
    """Whether the worker repeats the task of this job."""
    return action.get("type") == "iterator" or isinstance(action.get("loop"), Mapping)


def iteration_of(action: Mapping[str, Any], renderer: Renderer) -> WorkerIteration:
    """Read an iterator and choose its items: `where`, `order_by`, `limit`, `enumerate`, `chunk`, in this order.

    Raises ToolFault, not retryable.
    """
    is_loop = isinstance(action.get("loop"), Mapping)
    keys: Mapping[str, Any] = action["loop"] if is_loop else action
    element = keys.get("element")
    if not isinstance(element, str):
        raise FinalFault("the iterator has no `element`", kind="bad_job")
    collection = keys.get("collection")
    if isinstance(collection, str) or renderer.marks:
        # If the job does not mark its templates, only a template for the whole list is rendered; items are data.
        collection = renderer.render(collection, ("loop", "collection") if is_loop else ("collection",))
    items = _chosen(_items(collection), keys, element, renderer)
    task = {key: value for key, value in action.items() if key != "loop"} if is_loop else _nested(action)
    is_parallel = str(keys.get("mode") or "sequential").lower() in ("async", "parallel")
    concurrency = _whole(keys.get("concurrency"), "concurrency", least=1) or ASYNC_CONCURRENCY
    return WorkerIteration(
        items=items,
        element=element,
        task=task,
        path=() if is_loop else ("task",),
        concurrency=concurrency if is_parallel else 1,
        tolerate=_tolerance(keys),
    )


def _nested(action: Mapping[str, Any]) -> dict[str, Any]:
    """The `task` of an iterator as an action; its inputs from all keys are merged."""
    task = action.get("task")
    if not isinstance(task, Mapping) or not isinstance(task.get("type", task.get("tool")), str):
        raise FinalFault("the iterator's `task` has no type", kind="bad_job")
    kind = task.get("type", task.get("tool"))
    args: dict[str, Any] = {}
    for word in input_words(task, kind):
        given = task[word]
        if not isinstance(given, Mapping):
            message = f"the inputs of the iterator's task must be a mapping, its `{word}` is {json_type_name(given)}"
            raise FinalFault(message, kind="bad_value")
        args |= given
    return {**task, "type": kind, "name": action.get("name"), word_of_inputs(task): args}


def input_words(task: Mapping[str, Any], kind: str) -> Iterator[str]:
    """The keys under which a task has inputs; a later one overrides an earlier one."""
    lists = (word for word in LIST_KEYS.get(kind, ()) if isinstance(task.get(word), list))
    own = OWN_KEYS.get(kind, frozenset()).union(lists)
    return (word for word in INPUT_WORDS if word not in own and task.get(word) is not None)


def _items(collection: Any) -> list[Any]:
    if isinstance(collection, Mapping):
        return [{"key": key, "value": value} for key, value in collection.items()]
    if isinstance(collection, list):
        return collection
    raise FinalFault(
        f"the iterator's `collection` must be a list or a mapping, it is {excerpt(collection)}", kind="bad_value"
    )


def excerpt(value: Any) -> str:
    """The JSON text of a value for an error, cut with dots."""
    return shortened(json.dumps(value), SHOWN_CHARACTERS)


def _chosen(items: list[Any], keys: Mapping[str, Any], element: str, renderer: Renderer) -> list[Any]:
    total = len(items)
    # A condition cannot read the worker's words: such a name is a step.
    words = {key: value for key, value in renderer.words.items() if key not in WORKER_WORDS}
    choosing = replace(renderer, words=words)

    def value_of(expression: Any, index: int, item: Any) -> Any:
        if renderer.marks and not isinstance(expression, Deferred):
            return expression  # the broker rendered it
        try:
            template = compile_condition(expression, "iterator", worker_words=frozenset(), max_source_chars=None)
        except TemplateError as fault:
            raise template_fault(fault) from None
        return choosing.evaluate(template, words_of_item(element, item, index, total))

    def has(key: str) -> bool:
        # In a job with marked templates a null was rendered: a null in the playbook does not reach the job.
        return key in keys and (renderer.marks or keys[key] is not None)

    if has("where"):
        items = [item for index, item in enumerate(items) if is_true(value_of(keys["where"], index, item))]
    if has("order_by"):
        ranked = [(value_of(keys["order_by"], index, item), item) for index, item in enumerate(items)]
        try:
            items = [item for _, item in sorted(ranked, key=lambda pair: pair[0])]
        except TypeError as error:
            kinds = " and ".join(sorted({json_type_name(rank) for rank, _ in ranked}))
            message = f"the iterator's `order_by` gives values that have no order: {kinds}"
            raise FinalFault(message, kind="bad_value") from error
    items = items[: _whole(renderer.render(keys.get("limit"), ("limit",)), "limit", least=0)]
    if keys.get("enumerate") is True:
        # Keys in the order of jsonb, as in items that the broker makes.
        items = [{"item": item, "index": index} for index, item in enumerate(items)]
    if (size := _whole(renderer.render(keys.get("chunk"), ("chunk",)), "chunk", least=1)) is not None:
        items = [items[start : start + size] for start in range(0, len(items), size)]
    return items


def _tolerance(keys: Mapping[str, Any]) -> Tolerance | None:
    """How many items may fail; None with `on_error: continue`."""
    value = keys.get("tolerate")
    if value is None:
        return None if keys.get("on_error") == "continue" else Tolerance()
    try:
        return parse_tolerance(value)
    except ValueError:
        message = f"the iterator's `tolerate` must be a number of items or a percentage, it is {excerpt(value)}"
        raise FinalFault(message, kind="bad_value") from None


def _too_many(failed: int, total: int, tolerate: Tolerance, index: int, fault: ToolFault) -> ToolFault:
    """The fault of an iterator after one failed item too many: the item's own fault if none may fail."""
    if tolerate == Tolerance():
        fault.details.setdefault("index", index)
        return fault
    message = f"{failed} of {total} items failed, and tolerate is {tolerate}; item {index}: {fault.message}"
    details = {**fault.details, "index": index}
    return ToolFault(message, kind="too_many_items_failed", retryable=fault.retryable, **details)


def _whole(value: Any, what: str, *, least: int) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        message = f"the iterator's `{what}` must be a whole number of at least {least}, it is {excerpt(value)}"
        raise FinalFault(message, kind="bad_value")
    return value


async def iterate(iteration: WorkerIteration, run: Run) -> tuple[list[Any], dict[int, ToolFault]]:
    """Run the task for each item, `concurrency` at a time; returns the results by index, and the faults.

    The result of a failed item is None. One failed item too many cancels the other items, and its fault is raised.
    """
    results: list[Any] = [None] * len(iteration.items)
    failed: dict[int, ToolFault] = {}
    remaining = iter(enumerate(iteration.items))

    async def lane() -> None:
        for index, item in remaining:
            words = words_of_item(iteration.element, item, index, len(iteration.items))
            try:
                results[index] = await run(iteration.task, iteration.path, words)
            except ToolFault as fault:
                failed[index] = fault
                tolerate, total = iteration.tolerate, len(iteration.items)
                if tolerate is not None and not tolerate.allows(len(failed), total):
                    raise _too_many(len(failed), total, tolerate, index, fault) from None

    lane_count = min(iteration.concurrency, len(iteration.items))
    try:
        async with asyncio.TaskGroup() as group:
            lanes = [group.create_task(lane()) for _ in range(lane_count)]
    except* ToolFault as faults:
        raise first_of(faults) from None
    if any(task.cancelled() for task in lanes):
        # The group ends without an error then, but items are missing.
        raise ToolFault("the task of an item cancelled itself", kind="CancelledError")
    return results, failed


def first_of(group: BaseExceptionGroup[ToolFault]) -> ToolFault:
    """The first fault of a group."""
    first = group.exceptions[0]
    return first_of(first) if isinstance(first, BaseExceptionGroup) else first

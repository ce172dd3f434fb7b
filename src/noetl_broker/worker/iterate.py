"""Runs a task once for each item of a collection, where the broker leaves the iterating to the worker.

Two forms arrive: a job of type `iterator` with a `task`, and a job of any other type with a `loop`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from noetl_broker.playbook.findings import kind_of
from noetl_broker.playbook.reads import word_of_inputs
from noetl_broker.playbook.vocabulary import INPUT_WORDS, LIST_KEYS, OWN_KEYS
from noetl_broker.template import WORKER_WORDS, TemplateError, compile_condition, is_true
from noetl_broker.worker.faults import ToolFault, shortened
from noetl_broker.worker.finish import Finisher, Left, Path, refused

ASYNC_CONCURRENCY = 8
SHOWN_CHARACTERS = 80
CHOOSING = ("collection", "where", "order_by", "limit", "chunk")

Run = Callable[[Mapping[str, Any], Path, Mapping[str, Any]], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    """How to repeat: the items, the name of each, the task's action and its place in the job's action."""

    items: list[Any]
    element: str
    task: Mapping[str, Any]
    path: Path
    concurrency: int
    failing_ends: bool


def iterates(action: Mapping[str, Any]) -> bool:
    """Tell whether a job's task is to be repeated by the worker."""
    return action.get("type") == "iterator" or isinstance(action.get("loop"), Mapping)


def iteration_of(action: Mapping[str, Any], finisher: Finisher) -> Iteration:
    """Read how a job repeats, and choose its items: `where`, `order_by`, `limit`, `enumerate`, `chunk`, in this order.

    Raises ToolFault, not retryable.
    """
    looped = isinstance(action.get("loop"), Mapping)
    keys: Mapping[str, Any] = action["loop"] if looped else action
    element = keys.get("element")
    if not isinstance(element, str):
        raise ToolFault("the iterator has no `element`", kind="bad_job", retryable=False)
    finisher = _with_inputs_read(action, keys, element, finisher)
    collection = keys.get("collection")
    if isinstance(collection, str) or finisher.marks:
        # Where the job does not say, only a template for the whole is still one; the items of a list are data.
        collection = finisher.finish(collection, ("loop", "collection") if looped else ("collection",))
    items = _chosen(_items(collection), keys, element, finisher)
    task = {key: value for key, value in action.items() if key != "loop"} if looped else _nested(action)
    side_by_side = str(keys.get("mode") or "sequential").lower() in ("async", "parallel")
    concurrency = _whole(keys.get("concurrency"), "concurrency", least=1) or ASYNC_CONCURRENCY
    return Iteration(
        items=items,
        element=element,
        task=task,
        path=() if looped else ("task",),
        concurrency=concurrency if side_by_side else 1,
        failing_ends=keys.get("on_error") != "continue",
    )


def _with_inputs_read(action: Mapping[str, Any], keys: Mapping[str, Any], element: str, finisher: Finisher) -> Finisher:
    """Give what finishes how to repeat: the inputs that it reads are finished before, if they know of no item."""
    word = word_of_inputs(action)
    args, read = action.get(word), finisher.names_in({key: keys.get(key) for key in CHOOSING})
    if read is None or not isinstance(args, Mapping) or (word not in read and read.isdisjoint(args)):
        return finisher
    words = words_of(element, None, 0, 0)
    known = {
        key: value for key, value in args.items() if words.keys().isdisjoint(finisher.names_in(value, words) or ())
    }
    seen = finisher.with_inputs(known, (word,), {})
    return replace(seen, args={**args, **seen.args})


def _nested(action: Mapping[str, Any]) -> dict[str, Any]:
    """Make the `task` of an iterator an action of its own, its words for inputs merged."""
    task = action.get("task")
    if not isinstance(task, Mapping) or not isinstance(task.get("type", task.get("tool")), str):
        raise ToolFault("the iterator's `task` has no type", kind="bad_job", retryable=False)
    kind = task.get("type", task.get("tool"))
    args: dict[str, Any] = {}
    for word in input_words(task, kind):
        given = task[word]
        if not isinstance(given, Mapping):
            message = f"the inputs of the iterator's task must be a mapping, its `{word}` is {kind_of(given)}"
            raise ToolFault(message, kind="bad_value", retryable=False)
        args |= given
    return {**task, "type": kind, "name": action.get("name"), word_of_inputs(task): args}


def input_words(task: Mapping[str, Any], kind: str) -> Iterator[str]:
    """Give the words under which a task of a type has inputs, the weakest first."""
    lists = (word for word in LIST_KEYS.get(kind, ()) if isinstance(task.get(word), list))
    own = OWN_KEYS.get(kind, frozenset()).union(lists)
    return (word for word in INPUT_WORDS if word not in own and task.get(word) is not None)


def _items(collection: Any) -> list[Any]:
    if isinstance(collection, Mapping):
        return [{"key": key, "value": value} for key, value in collection.items()]
    if isinstance(collection, list):
        return collection
    raise ToolFault(
        f"the iterator's `collection` must be a list or a mapping, it is {told(collection)}",
        kind="bad_value",
        retryable=False,
    )


def told(value: Any) -> str:
    """Write what something is in place of what it must be; dots say that it was cut."""
    return shortened(json.dumps(value), SHOWN_CHARACTERS)


def _chosen(items: list[Any], keys: Mapping[str, Any], element: str, finisher: Finisher) -> list[Any]:
    total = len(items)
    # A condition knows no word of the worker: one that is a step's name is that step.
    words = {key: value for key, value in finisher.words.items() if key not in WORKER_WORDS}
    choosing = replace(finisher, words=words)

    def value_of(expression: Any, index: int, item: Any) -> Any:
        if finisher.marks and not isinstance(expression, Left):
            return expression  # the broker rendered it
        try:
            template = compile_condition(expression, "iterator", worker_words=frozenset(), max_source_chars=None)
        except TemplateError as fault:
            raise refused(fault) from None
        return choosing.evaluated(template, words_of(element, item, index, total))

    def asks(key: str) -> bool:
        # A null is what the broker rendered: one that is written so is not in the job.
        return key in keys and (finisher.marks or keys[key] is not None)

    if asks("where"):
        items = [item for index, item in enumerate(items) if is_true(value_of(keys["where"], index, item))]
    if asks("order_by"):
        ranked = [(value_of(keys["order_by"], index, item), item) for index, item in enumerate(items)]
        try:
            items = [item for _, item in sorted(ranked, key=lambda pair: pair[0])]
        except TypeError as error:
            kinds = " and ".join(sorted({kind_of(rank) for rank, _ in ranked}))
            message = f"the iterator's `order_by` gives values that have no order: {kinds}"
            raise ToolFault(message, kind="bad_value", retryable=False) from error
    items = items[: _whole(finisher.finish(keys.get("limit"), ("limit",)), "limit", least=0)]
    if keys.get("enumerate") is True:
        # Its keys in the order in which the items of a broker come from jsonb.
        items = [{"item": item, "index": index} for index, item in enumerate(items)]
    if (size := _whole(finisher.finish(keys.get("chunk"), ("chunk",)), "chunk", least=1)) is not None:
        items = [items[start : start + size] for start in range(0, len(items), size)]
    return items


def _whole(value: Any, what: str, *, least: int) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        message = f"the iterator's `{what}` must be a whole number of at least {least}, it is {told(value)}"
        raise ToolFault(message, kind="bad_value", retryable=False)
    return value


def words_of(element: str, item: Any, index: int, count: int) -> dict[str, Any]:
    """Give the words that templates of one iteration see: the element by its name, and `_loop`."""
    return {element: item, "_loop": {"index": index, "count": count, "item": item}}


async def iterate(iteration: Iteration, run: Run) -> tuple[list[Any], dict[int, ToolFault]]:
    """Run the task for each item, `concurrency` at a time, and give the results by index, and the faults.

    With `on_error: continue` a failed item's place holds None; otherwise the first failure ends the others and is
    raised.
    """
    results: list[Any] = [None] * len(iteration.items)
    failed: dict[int, ToolFault] = {}
    following = iter(enumerate(iteration.items))

    async def lane() -> None:
        for index, item in following:
            words = words_of(iteration.element, item, index, len(iteration.items))
            try:
                results[index] = await run(iteration.task, iteration.path, words)
            except ToolFault as fault:
                if iteration.failing_ends:
                    fault.details.setdefault("index", index)
                    raise
                failed[index] = fault

    side_by_side = min(iteration.concurrency, len(iteration.items))
    try:
        async with asyncio.TaskGroup() as group:
            lanes = [group.create_task(lane()) for _ in range(side_by_side)]
    except* ToolFault as faults:
        raise first_of(faults) from None
    if any(task.cancelled() for task in lanes):
        # A group takes that for a good end, though nobody cancelled the group and items are missing.
        raise ToolFault("the task of an item cancelled itself", kind="CancelledError")
    return results, failed


def first_of(group: BaseExceptionGroup[ToolFault]) -> ToolFault:
    """Give the first fault of a group."""
    first = group.exceptions[0]
    return first_of(first) if isinstance(first, BaseExceptionGroup) else first

"""Explains an execution, a step, a visit, or an item of an iterator, by the name that a person gives.

An explanation goes into blocks: what their executions wait for, or why they failed, stands behind the reasons of the
step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from noetl_broker.broker.state.state import is_live
from noetl_broker.errors import OperatorFault
from noetl_broker.explain.explain import explain_execution, explain_step
from noetl_broker.explain.facts import Facts
from noetl_broker.explain.item import explain_item
from noetl_broker.explain.reason import Reason
from noetl_broker.explain.without_values import facts_without_values, without_values
from noetl_broker.history.record import History
from noetl_broker.node_ids import read_item_name, read_node, read_visit
from noetl_broker.playbook.blocks import MARK
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.playbook.model import Step
from noetl_broker.store.admin.blocks import find_child
from noetl_broker.store.admin.explain_facts import load_history_and_facts, load_item_and_facts
from noetl_broker.store.admin.progress import has_step
from noetl_broker.store.connect.connection import Connection

MOST_BLOCKS = 3  # of one execution, that are explained with it
DEEPEST = 4  # blocks in blocks
SAID_ABOVE = frozenset({"remedy", "no_broker", "deadline"})


class _Asked(NamedTuple):
    """The sources of an explanation; `shown` takes values out of facts."""

    connection: Connection
    rules: PlaybookRules
    shown: Callable[[Facts], Facts]
    depth: int = 0


async def explain_part(
    connection: Connection, execution_id: int, part: str | None, rules: PlaybookRules, *, shows_values: bool = True
) -> Reason:
    """Explain `load`, `load#2`, `load[3]`, `pay.charge` in the block of `pay`, or without a part the execution.

    Raises NotFoundFault, OperatorFault. For an item, no history is replayed. `shows_values` false: without values of
    payloads, results and errors.
    """
    shown = (lambda facts: facts) if shows_values else facts_without_values
    why = await _explain(_Asked(connection, rules, shown), execution_id, part)
    return why if shows_values else without_values(why)


async def _explain(asked: _Asked, execution_id: int, part: str | None) -> Reason:
    connection = asked.connection
    if part is not None and "." in part and not await has_step(connection, execution_id, part):
        inner = await _in_block(connection, execution_id, part)
        if inner is not None:
            return await _explain(asked, *inner)
    item = read_item_name(part) if part is not None else None
    if item is not None and part is not None and not await has_step(connection, execution_id, part):
        found, facts = await load_item_and_facts(connection, execution_id, item)
        why = explain_item(found, asked.shown(facts))
        child, path = found["child_execution_id"], found["child_path"] or ""
        return await _with_blocks(asked, why, [child] if child is not None and MARK in path else [])
    name, number = read_visit(part) if part is not None else (None, None)
    history, facts = await load_history_and_facts(connection, execution_id, asked.rules)
    shown = asked.shown(facts)
    if name is None:
        why = explain_execution(history, shown)
        return await _with_blocks(asked, why, [*_blocks_of_execution(history, facts)])
    why = explain_step(history, shown, name, number)
    step = _step_of(history, name)
    has_block = step is not None and step.call is not None and step.call.block is not None
    child = await find_child(connection, execution_id, name, number) if has_block else None
    return await _with_blocks(asked, why, [] if child is None else [child])


async def _in_block(connection: Connection, execution_id: int, part: str) -> tuple[int, str] | None:
    """The child that `pay.charge` or `pack[3].pick` is in, and the rest of the name; None if it is none."""
    names = part.split(".")
    for length in range(len(names) - 1, 0, -1):
        try:
            step, visit, index = read_node(".".join(names[:length]))
        except OperatorFault:
            continue
        child = await find_child(connection, execution_id, step, visit, index)
        if child is not None:
            return child, ".".join(names[length:])
    return None


def _step_of(history: History | None, name: str) -> Step | None:
    playbook = None if history is None or isinstance(history.playbook, str) else history.playbook
    return None if playbook is None else playbook.steps.get(name)


def _blocks_of_execution(history: History | None, facts: Facts) -> Iterator[int]:
    """The running blocks, or the block that failed the execution."""
    if is_live(facts.status):
        yield from (child.execution_id for child in facts.children if child.path.startswith(f"{facts.path}{MARK}"))
        return
    error = facts.error if isinstance(facts.error, dict) else {}
    step, child = _step_of(history, str(error.get("step"))), error.get("child_execution_id")
    task = step.iteration.task if step is not None and step.iteration is not None else step
    if task is not None and task.call is not None and task.call.block is not None and isinstance(child, int):
        yield child


async def _with_blocks(asked: _Asked, why: Reason, blocks: list[int]) -> Reason:
    """The explanation, followed by the explanations of these executions."""
    if asked.depth >= DEEPEST or not blocks:
        return why
    deeper = asked._replace(depth=asked.depth + 1)
    inner = [_of_block(await _explain(deeper, block, None)) for block in blocks[:MOST_BLOCKS]]
    return replace(why, because=(*why.because, *inner))


def _of_block(why: Reason) -> Reason:
    """The explanation without what the explanation of the parent says: nobody retries a block alone."""
    return replace(why, because=tuple(reason for reason in why.because if reason.kind not in SAID_ABOVE))

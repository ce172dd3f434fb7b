"""What a step reads of its own inputs beside its action, so that the broker makes and loads them only for that.

A visit's inputs stand in its job. What a step evaluates when its action has ended (its `next`, its retry conditions,
the result of `end`) may name them; for most steps it does not, and the syntax trees say so beforehand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from noetl_broker.playbook.inputs import split_inputs, trees_of
from noetl_broker.playbook.model import Inputs, Step
from noetl_broker.template import Template, Tree

PER_ITEM = frozenset({"_loop", "now", "uuid"})  # beside the element: words that give each item a value of its own


def reads_inputs(step: Step, arriving: Iterable[Inputs]) -> bool:
    """Whether what is evaluated after the step's action may name an input; `arriving`: those of its incoming arcs."""
    named: set[str] = set()
    for template in _after_action(step):
        named |= _named(template)
        if template.results is None:
            return True
    if not named:
        return False
    possible: set[str] = {"args"}
    for inputs in (step.inputs, *arriving):
        keys = _keys(inputs)
        if keys is None:
            return True
        possible |= keys
    return not named.isdisjoint(possible)


def share_inputs(step: Step) -> Step:
    """Give a loop of the broker's with those of its inputs as the step's that it reads beside its items.

    They are rendered once, the others for each item: a loop without items needs none of them.
    """
    iteration = step.iteration
    if iteration is None or not iteration.expanded or step.type == "iterator":
        return step
    chosen = (iteration.collection, iteration.where, iteration.order_by, iteration.limit, iteration.chunk)
    reading = (*_after_action(step), *(part for part in chosen if part is not None))
    asked = frozenset().union(*(_named(template) for template in reading))
    once, each = split_inputs(iteration.task.inputs, asked, PER_ITEM | {iteration.element})
    return replace(step, inputs=once, iteration=replace(iteration, task=replace(iteration.task, inputs=each)))


def _after_action(step: Step) -> Iterator[Template | Tree]:
    for entry in step.next:
        if entry.condition is not None:
            yield entry.condition
        for target in (*entry.then, *entry.otherwise):
            yield from (tree for _, tree in trees_of(target.inputs))
    if step.retry is not None:
        yield from (template for template in (step.retry.retry_when, step.retry.stop_when) if template is not None)
    yield from (tree for tree in (step.result, step.save_data) if tree is not None)


def _named(template: Template | Tree) -> frozenset[str]:
    """What a template names; an input of a transition that is left for a worker takes along what it reads."""
    return template.names | template.worker_names if isinstance(template, Tree) else template.names


def _keys(inputs: Inputs) -> set[str] | None:
    """The names that these inputs may give; None where a template decides that."""
    if inputs.whole is not None:
        return None
    below = _keys(inputs.base) if inputs.base is not None else set()
    return None if below is None else below | inputs.keys.keys()

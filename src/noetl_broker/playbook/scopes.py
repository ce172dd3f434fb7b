"""The inputs that the templates of each step find by name.

Inputs have levels: workbook action < step < task of an iterator < transition. A loop's task is the step itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from noetl_broker.playbook.diagnostics import path_text
from noetl_broker.playbook.inputs import deferred_names, names_of, trees_of
from noetl_broker.playbook.model import NO_INPUTS, Inputs, Step
from noetl_broker.playbook.reader import NO_NAMES, Reading, Use


class Seen(NamedTuple):
    """The inputs that a template finds by name.

    `names` are always given; `possible` are given by some transition. `complete`: no template decides on more names.
    `deferred` are names of inputs with a deferred string.
    """

    names: frozenset[str] = NO_NAMES
    possible: frozenset[str] = NO_NAMES
    complete: bool = True
    deferred: frozenset[str] = NO_NAMES


class Scopes:
    """The inputs that the templates of each step see, by the location of the template."""

    def __init__(self, reading: Reading, steps: Mapping[str, Step]) -> None:
        arcs = arriving_inputs(steps)
        reading.work.spend(sum(1 + len(inputs.keys) for found in arcs.values() for _, inputs in found))
        self._steps = steps
        self._arriving = {name: _merged([inputs for _, inputs in arcs.get(name, ())]) for name in steps}
        self._after: dict[str, Seen] = {}
        self._fields: dict[str, Seen] = {}
        self._keys: dict[str, tuple[dict[str, str], dict[str, str]]] = {}

    def of_inputs(self, step: Step) -> Seen:
        """Give what the own inputs of a step see: inputs of transitions."""
        return self._arriving[step.name]

    def of_task_inputs(self, step: Step) -> Seen:
        """Give what the inputs of a task see: the inputs of its iterator, or in a loop what the step's inputs see."""
        return self.of_next(step) if step.type == "iterator" else self._arriving[step.name]

    def of_next(self, step: Step) -> Seen:
        """Give what templates after the action see: inputs of the step and of transitions."""
        if step.name not in self._after:
            arriving = self._arriving[step.name]
            seen = _with_inputs(arriving, step.inputs)
            of_items = NO_NAMES if step.type == "iterator" else deferred_names(task_inputs(step))
            self._after[step.name] = seen._replace(deferred=seen.deferred | of_items)
        return self._after[step.name]

    def of_fields(self, step: Step) -> Seen:
        """Give what the fields of a task see: all inputs."""
        if step.name not in self._fields:
            self._fields[step.name] = _with_inputs(self.of_next(step), task_inputs(step))
        return self._fields[step.name]

    def of_use(self, use: Use) -> Seen:
        """Give what a template of a step sees, by its role."""
        step = self._steps[use.part.step or ""]
        of_item = step.iteration is not None and step.iteration.expanded and use.part.role in {"retry", "catch"}
        if use.part.role in {"fields", "compensate"} or of_item:
            return self.of_fields(step)
        if use.part.role != "inputs":
            return self.of_next(step)
        return self.of_task_inputs(step) if path_text(use.location) in self._keys_of(step)[1] else self.of_inputs(step)

    def is_rendered(self, use: Use) -> bool:
        """Whether an input is rendered at all: no stronger level replaces it."""
        step, location = self._steps[use.part.step or ""], path_text(use.location)
        own, task = self._keys_of(step)
        if step.type == "iterator" and location in task:
            return True
        key = own.get(location, task.get(location))
        return key is not None and key not in self.of_inputs(step).names

    def _keys_of(self, step: Step) -> tuple[dict[str, str], dict[str, str]]:
        """Give the keys of a step's inputs, and of its task's, by their locations."""
        if step.name not in self._keys:
            own, task = ({tree.at: key for key, tree in trees_of(one)} for one in (step.inputs, task_inputs(step)))
            self._keys[step.name] = own, task
        return self._keys[step.name]


def arriving_inputs(steps: Mapping[str, Step]) -> dict[str, list[tuple[str, Inputs]]]:
    """Give the inputs that each step gets from transitions: by target, arc by arc, with the arc's source."""
    arriving: dict[str, list[tuple[str, Inputs]]] = {}
    for step in steps.values():
        for target in step.targets:
            arriving.setdefault(target.step, []).append((step.name, target.inputs))
    return arriving


def task_inputs(step: Step) -> Inputs:
    """Give the inputs of a task that the broker expands; for any other task they are fields of the step's job."""
    iteration = step.iteration
    return iteration.task.inputs if iteration is not None and iteration.expanded else NO_INPUTS


def _merged(arcs: list[Inputs]) -> Seen:
    """Give the names that arrive at a step: the names that every arc gives, and the names that any arc gives."""
    if not arcs:
        return Seen()
    names = [names_of(inputs) for inputs in arcs]
    complete = all(map(_are_complete, arcs))
    return Seen(frozenset.intersection(*names), frozenset().union(*names), complete)


def _with_inputs(seen: Seen, inputs: Inputs) -> Seen:
    """Give what a template sees that finds these inputs too."""
    if inputs.empty:
        return seen
    names = names_of(inputs)
    complete = seen.complete and _are_complete(inputs)
    return Seen(seen.names | names, seen.possible | names, complete, seen.deferred | deferred_names(inputs))


def _are_complete(inputs: Inputs) -> bool:
    """Whether no template gives more names."""
    return inputs.whole is None and inputs.base is None

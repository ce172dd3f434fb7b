"""What the templates of each step find by name: the inputs of its levels, the strongest of which transitions give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from noetl_broker.playbook.findings import path_text
from noetl_broker.playbook.inputs import given_keys, trees_of
from noetl_broker.playbook.model import NO_INPUTS, Inputs, Playbook, Step
from noetl_broker.playbook.reading import NO_NAMES, Use

Names = frozenset[str] | None  # None: a template decides


class Given(NamedTuple):
    """The inputs of one step: `names` of all, `arriving` of those that transitions give, `step` without its task's.

    `own` and `task` are the keys of the step's inputs and of its task's by their places, as far as no stronger level of
    the step itself overrides them; `looped`: the task is the step itself.
    """

    names: Names
    arriving: Names
    step: Names
    own: Mapping[str, str]
    task: Mapping[str, str]
    looped: bool

    def seen_by(self, use: Use) -> Names:
        """Give the inputs that a template finds: an input those over it, fields those of the task too."""
        if use.part.role != "inputs":
            return self.names if use.part.role == "fields" else self.step
        of_task = path_text(use.place) in self.task and not self.looped
        return self.step if of_task else self.arriving

    def is_rendered(self, use: Use) -> bool:
        """Whether an input is rendered at all: no stronger level overrides it."""
        place = path_text(use.place)
        if place in self.task and not self.looped:
            return True
        key = self.own.get(place, self.task.get(place))
        return key is not None and key not in (self.arriving or NO_NAMES)


def given_to_steps(playbook: Playbook) -> dict[str, Given]:
    """Give for each step what its templates find by name."""
    arriving = arriving_inputs(playbook)
    return {
        name: _given(step, [inputs for _, inputs in arriving.get(name, ())]) for name, step in playbook.steps.items()
    }


def arriving_inputs(playbook: Playbook) -> dict[str, list[tuple[str, Inputs]]]:
    """Give for each step that a transition leads to the inputs that it gives, arc by arc, with the arc's source."""
    arriving: dict[str, list[tuple[str, Inputs]]] = {}
    for step in playbook.steps.values():
        for entry in step.next:
            for target in (*entry.then, *entry.otherwise):
                arriving.setdefault(target.step, []).append((step.name, target.inputs))
    return arriving


def _given(step: Step, arriving: list[Inputs]) -> Given:
    task = step.iteration.task.inputs if step.iteration is not None else NO_INPUTS
    return Given(
        names=_names([step.inputs, task, *arriving]),
        arriving=_names(arriving),
        step=_names([step.inputs, *arriving]),
        own=dict(_places(step.inputs)),
        task=dict(_places(task)),
        looped=step.type != "iterator",
    )


def _names(levels: list[Inputs]) -> Names:
    sets = [given_keys(inputs) for inputs in levels]
    known = [keys for keys in sets if keys is not None]
    return frozenset().union(*known) if len(known) == len(sets) else None


def _places(inputs: Inputs) -> Iterator[tuple[str, str]]:
    return ((tree.at, key) for key, tree in trees_of(inputs))

"""Inputs that are left for a worker which does not have what they see: the values that they read go with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.inputs import render_inputs
from noetl_broker.broker.unfinished import refused
from noetl_broker.playbook.findings import path_text
from noetl_broker.playbook.reads import ARGS, at_path, first_met, input_paths, part_read, with_value
from noetl_broker.template import closed, read_by_text

if TYPE_CHECKING:
    from collections.abc import Collection

    from noetl_broker.broker.draft import Draft
    from noetl_broker.broker.given import Given
    from noetl_broker.broker.unfinished import Unfinished
    from noetl_broker.playbook.model import Inputs, Target
    from noetl_broker.template import Path, Scope


def render_handed(draft: Draft, target: Target, scope: Scope, given: Given, unfinished: Unfinished | None) -> Given:
    """The inputs that a transition gives: the next worker has none of the inputs `given` to the visit that it leaves.

    Raises TemplateError as `render_inputs` does, and where what is left cannot take along what it reads of them.
    """
    handed = render_inputs(draft, target.inputs, scope, unfinished=unfinished)
    return close(draft, handed, target.inputs, given, given.values.keys()) if handed.left else handed


def close(draft: Draft, left: Given, inputs: Inputs, seen: Given, names: Collection[str]) -> Given:
    """Inputs with the values of these names, as they have `seen` them, in what is left of them.

    Raises TemplateError where one of these can itself only be finished by a worker.
    """
    values, known = left.values, {ARGS: seen.values, **seen.values}
    for path in left.left:
        text = at_path(values, path)
        read = read_by_text(text)[0].intersection(names)
        if first_met(text, ((ARGS, name) for name in names)):
            read |= {ARGS}
        if not read:
            continue
        at = _place(inputs, path)
        met = first_met(text, (one for one in input_paths(seen.left, seen.values) if one[0] in read))
        if met is not None:
            raise refused(text, at, met)
        alone = closed(text, at, {name: part_read(text, name, known[name]) for name in read}, draft.allowance)
        values = with_value(values, path, alone)
    return left._replace(values=values)


def _place(inputs: Inputs, path: Path) -> str:
    """Where an input stands in the playbook."""
    tree = inputs.keys.get(str(path[0])) or inputs.whole
    if tree is None:
        return path_text(path) if inputs.base is None else _place(inputs.base, path)
    return tree.at

"""Reads inputs: the mappings under six words, merged by the strength of the word, then level by level."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from noetl_broker.playbook.diagnostics import Location, json_type_name
from noetl_broker.playbook.keywords import INPUT_WORDS
from noetl_broker.playbook.model import NO_INPUTS, Inputs, Step
from noetl_broker.playbook.reader import NO_NAMES, Reading, TemplateSite
from noetl_broker.playbook.template_reads import ARGS, reads_of
from noetl_broker.template import Template, Tree

PER_ITEM = frozenset({"_loop", "now", "uuid"})  # like the element, these differ from item to item
Aliases = Mapping[str, tuple[str, ...] | None]


def read_inputs(
    reading: Reading, raw: Mapping[str, Any], location: Location, part: TemplateSite, own: frozenset[str] = NO_NAMES
) -> Inputs:
    """Merge the input words of one level; `own` are words that the step's type uses for something else."""
    inputs = NO_INPUTS
    for word in INPUT_WORDS:
        value = raw.get(word)
        if word in own or value is None:
            continue
        where = (*location, word)
        if isinstance(value, dict):
            keys = {key: reading.tree(item, (*where, key), part) for key, item in value.items()}
            inputs = merge(inputs, Inputs(keys=keys, aliases={word: tuple(value)}))
        elif is_one_template(value):
            whole = reading.tree(value, where, part)
            if whole.deferred:
                message = f"`{word}` is one template, and only a worker can render it"
                hint = f'write a mapping: {word}: {{name: "{{{{ … }}}}"}}'
                reading.report.error("worker-word", where, message, hint)
            inputs = merge(inputs, Inputs(whole=whole, aliases={word: None}))
        else:
            reading.report.error(
                "bad-inputs",
                where,
                f"`{word}` is {json_type_name(value)}, not a mapping or one template that gives one",
                f'write {word}: {{name: value}} or {word}: "{{{{ step }}}}"',
            )
    return inputs


def merge(under: Inputs, over: Inputs) -> Inputs:
    """Lay one level of inputs over another, key by key."""
    if under.empty:
        return over
    if over.empty:
        return under
    aliases = _merged_aliases(under.aliases, over.aliases)
    if over.whole is None and over.base is None:
        return Inputs(base=under.base, whole=under.whole, keys={**under.keys, **over.keys}, aliases=aliases)
    base = under if over.base is None else merge(under, over.base)
    return Inputs(base=base, whole=over.whole, keys=over.keys, aliases=aliases)


def split_inputs(inputs: Inputs, read: frozenset[str], names: frozenset[str]) -> tuple[Inputs, Inputs]:
    """Split inputs: first the inputs in `read` that read none of these `names`, then the others and deferred ones.

    A template for a whole level may give any name. Then the inputs are not split: all go to one side.
    """
    bound = {
        key for key, tree in trees_of(inputs) if tree.deferred or key in names or not names.isdisjoint(_reads(tree))
    }
    if inputs.whole is None and inputs.base is None:
        free = inputs.keys.keys() - bound
        once = {key: tree for key, tree in inputs.keys.items() if key in free and not read.isdisjoint((key, ARGS))}
        each = {key: tree for key, tree in inputs.keys.items() if key not in once}
        return replace(inputs, keys=once), replace(inputs, keys=each)
    if bound or not read:
        return NO_INPUTS, inputs
    return inputs, Inputs(aliases=inputs.aliases)


def trees_of(inputs: Inputs) -> Iterator[tuple[str, Tree]]:
    """Give all trees with their keys, the weakest first; the template for a whole level has no key."""
    if inputs.base is not None:
        yield from trees_of(inputs.base)
    if inputs.whole is not None:
        yield "", inputs.whole
    yield from inputs.keys.items()


def names_of(inputs: Inputs) -> frozenset[str]:
    """Give the names that inputs certainly give."""
    below = NO_NAMES if inputs.base is None else names_of(inputs.base)
    return below.union(inputs.keys)


def deferred_names(inputs: Inputs) -> frozenset[str]:
    """Give the names of inputs that have a deferred string."""
    return frozenset(key for key, tree in trees_of(inputs) if tree.deferred)


def _reads(tree: Tree) -> frozenset[str]:
    """Give the names that a tree reads, with the names of functions."""
    read = (reads_of(template.source) for template in tree.broker_templates())
    return frozenset(str(path[0]) for paths in read for path in paths) | tree.names | tree.worker_names


def _merged_aliases(under: Aliases, over: Aliases) -> Aliases:
    merged = dict(under)
    for word, keys in over.items():
        before = merged.get(word, ())
        merged[word] = None if keys is None or before is None else tuple(dict.fromkeys((*before, *keys)))
    return merged


def raw_inputs(*levels: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the inputs of several levels as written; a template for the whole is under `args`."""
    merged: dict[str, Any] = {}
    for raw in levels:
        for word in INPUT_WORDS:
            value = raw.get(word)
            if isinstance(value, dict):
                merged.update(value)
            elif value is not None:
                merged["args"] = value
    return merged


def is_one_template(value: object) -> bool:
    """Whether a value is a string that begins with `{{` and ends with `}}`."""
    text = value.strip() if isinstance(value, str) else ""
    return text.startswith("{{") and text.endswith("}}")


def reads_inputs(step: Step, arriving: Iterable[Inputs]) -> bool:
    """Whether a template that is evaluated after the step's action may name an input.

    Only then the broker loads the inputs of a visit, which are in its job. `arriving` has the inputs of its arcs.
    """
    named: set[str] = set()
    for template in _after_action(step):
        named |= template.names
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
    """Move the inputs that a loop itself reads from its task to the step, if the broker expands the loop.

    These inputs are rendered once, the others for each item: a loop without items needs none of them.
    """
    iteration = step.iteration
    if iteration is None or not iteration.expanded or step.type == "iterator":
        return step
    chosen = (iteration.collection, iteration.where, iteration.order_by, iteration.limit, iteration.chunk)
    reading = (*_after_action(step), *(part for part in chosen if part is not None))
    read = frozenset().union(*(template.names for template in reading))
    once, each = split_inputs(iteration.task.inputs, read, PER_ITEM | {iteration.element})
    return replace(step, inputs=once, iteration=replace(iteration, task=replace(iteration.task, inputs=each)))


def _after_action(step: Step) -> Iterator[Template | Tree]:
    for entry in (*step.next, *step.catch):
        if entry.condition is not None:
            yield entry.condition
    if step.output is not None:
        yield step.output
    for target in step.targets:
        yield from (tree for _, tree in trees_of(target.inputs))
    if step.retry is not None:
        yield from (template for template in (step.retry.retry_when, step.retry.stop_when) if template is not None)
    yield from (tree for tree in (step.result, step.save_data) if tree is not None)
    if step.wait is not None and step.wait.when is not None:
        yield step.wait.when


def _keys(inputs: Inputs) -> set[str] | None:
    """Give the names of inputs; None if a template decides them."""
    if inputs.whole is not None:
        return None
    below = _keys(inputs.base) if inputs.base is not None else set()
    return None if below is None else below | inputs.keys.keys()

"""Reads inputs: one mapping under any of six words, merged by the strength of the word, then level under level."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from noetl_broker.playbook.findings import Place, kind_of
from noetl_broker.playbook.model import NO_INPUTS, Inputs
from noetl_broker.playbook.reading import NO_NAMES, Part, Reading
from noetl_broker.playbook.reads import ARGS, reads_of
from noetl_broker.playbook.vocabulary import INPUT_WORDS
from noetl_broker.template import Tree

Aliases = Mapping[str, tuple[str, ...] | None]


def read_inputs(
    reading: Reading, raw: Mapping[str, Any], place: Place, part: Part, own: frozenset[str] = NO_NAMES
) -> Inputs:
    """Merge the input words of one level; words that the step's type owns (`own`) are not inputs."""
    inputs = NO_INPUTS
    for word in INPUT_WORDS:
        value = raw.get(word)
        if word in own or value is None:
            continue
        where = (*place, word)
        if isinstance(value, dict):
            keys = {key: reading.tree(item, (*where, key), part) for key, item in value.items()}
            inputs = merge(inputs, Inputs(keys=keys, aliases={word: tuple(value)}))
        elif is_one_template(value):
            whole = reading.tree(value, where, part)
            if whole.left:
                message = f"`{word}` is one template, which the broker evaluates, and it names a word of the worker"
                hint = f'write a mapping, whose values may: {word}: {{name: "{{{{ … }}}}"}}'
                reading.report.error("worker-word", where, message, hint)
            inputs = merge(inputs, Inputs(whole=whole, aliases={word: None}))
        else:
            reading.report.error(
                "bad-inputs",
                where,
                f"`{word}` is {kind_of(value)}, and inputs are a mapping or one template that gives one",
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


def split_inputs(inputs: Inputs, asked: frozenset[str], names: frozenset[str]) -> tuple[Inputs, Inputs]:
    """Part inputs into those that are `asked` for, and know nothing of these `names`, and the others.

    Where a template gives a level of them, it may give whatever is asked for, and all go together: what is under it
    must stay there.
    """
    bound = {key for key, tree in trees_of(inputs) if key in names or not names.isdisjoint(_read(tree))}
    if inputs.whole is None and inputs.base is None:
        free = inputs.keys.keys() - bound
        once = {key: tree for key, tree in inputs.keys.items() if key in free and not asked.isdisjoint((key, ARGS))}
        each = {key: tree for key, tree in inputs.keys.items() if key not in once}
        return replace(inputs, keys=once), replace(inputs, keys=each)
    if bound or not asked:
        return NO_INPUTS, inputs
    return inputs, Inputs(aliases=inputs.aliases)


def trees_of(inputs: Inputs) -> Iterator[tuple[str, Tree]]:
    """Give all that is rendered, the weakest first, with its key; a template for a whole level has none."""
    if inputs.base is not None:
        yield from trees_of(inputs.base)
    if inputs.whole is not None:
        yield "", inputs.whole
    yield from inputs.keys.items()


def _read(tree: Tree) -> frozenset[str]:
    """Give the names that a tree reads, those of functions among them."""
    read = (reads_of(template.source) for _, template in tree.leaving(lambda _: True))
    return frozenset(str(path[0]) for paths in read for path in paths) | tree.names | tree.worker_names


def _merged_aliases(under: Aliases, over: Aliases) -> Aliases:
    merged = dict(under)
    for word, keys in over.items():
        before = merged.get(word, ())
        merged[word] = None if keys is None or before is None else tuple(dict.fromkeys((*before, *keys)))
    return merged


def raw_inputs(*levels: Mapping[str, Any]) -> dict[str, Any]:
    """Give the inputs of several levels as written, merged; one template for the whole stands under `args`."""
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
    """Whether a value is a string that is one `{{ expression }}` as far as its ends show."""
    text = value.strip() if isinstance(value, str) else ""
    return text.startswith("{{") and text.endswith("}}")


def given_keys(inputs: Inputs) -> frozenset[str] | None:
    """Give the names that inputs will certainly give; None if a template decides them."""
    if inputs.whole is not None or inputs.base is not None:
        return None
    return frozenset(inputs.keys)

"""What a worker that iterates is told: how to repeat, as templates, and what, with its workbook action."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from noetl_broker.playbook.fields import Fields
from noetl_broker.playbook.inputs import is_one_template
from noetl_broker.playbook.model import Inputs, Raw
from noetl_broker.playbook.reading import NO_NAMES, Part, Reading
from noetl_broker.playbook.reads import ARGS
from noetl_broker.playbook.tasks import Declared, Layer, Surroundings, read_fields, read_task_inputs
from noetl_broker.playbook.vocabulary import INPUT_WORDS, ITERATION_KEYS, TOOL_WORDS
from noetl_broker.template import Tree

OF_A_TASK = frozenset({"name", "task", "tool", "timeout", "priority"})  # of the broker's keys; no others are rendered
EXPRESSIONS = ("collection", "where", "order_by")


def as_templates(declared: Declared, *, refused: Collection[str] = ()) -> Declared:
    """Give what a worker iterates with its expressions as templates, without those that are `refused`, and no `task`.

    A worker evaluates no bare expression: what it may evaluate, the job says by its templates. The `loop` of an
    iterator is more of its keys, over all others.
    """
    loop, place = declared.lookup("loop")
    if declared.kind == "iterator":
        keys = (loop or {}).items()
        over = {key: value for key, value in keys if key in ITERATION_KEYS and value is not None}
        layers = tuple(
            Layer(raw=_with_template(_without(layer.raw, {*refused, "task"})), place=layer.place)
            for layer in (*declared.layers, Layer(raw=over, place=place))
        )
        return Declared(type=declared.type, kind=declared.kind, layers=layers)
    loop = _without(loop, refused)
    layers = tuple(_with_loop(layer, loop if (*layer.place, "loop") == place else None) for layer in declared.layers)
    return Declared(type=declared.type, kind=declared.kind, layers=layers)


def read_repeated(reading: Reading, name: str, task: Declared, around: Surroundings) -> tuple[Fields, Raw]:
    """Read the task that a worker repeats, with its workbook action: its fields, and what is never rendered.

    A worker knows no workbook, so the inputs of both levels stand merged under `args`. They are finished for each item,
    and what reads one of them with them.
    """
    inputs = read_task_inputs(reading, name, task, around, "fields")
    given = _names_given(inputs)
    seen = Surroundings(names=around.names | given, worker=around.worker | given)
    fields, plain = read_fields(reading, name, task, seen, OF_A_TASK)
    place = task.layers[-1].place
    kind = reading.tree(task.type, (*place, "type"), Part(step=name, role="fields"))
    return Fields({**fields.parts, "type": kind, **_said(reading, inputs, task)}, fields.at), plain


def _names_given(inputs: Inputs) -> frozenset[str]:
    """Give the names under which the task's fields surely find its own inputs: a template may give more."""
    below = NO_NAMES if inputs.base is None else _names_given(inputs.base)
    return below if inputs.empty else below.union(inputs.keys, {ARGS})


def _said(reading: Reading, inputs: Inputs, task: Declared) -> dict[str, Tree | Fields]:
    """Give the inputs as the job says them: under `args`, and under the author's own words.

    What lies under a template that gives them all is under weaker words, in the order in which a worker merges them,
    and under none that the task's tool reads itself: that one is there as the author wrote it, or not at all.
    """
    levels, place = [*_levels(inputs)], task.layers[-1].place
    taken = task.own | TOOL_WORDS.get(task.type, NO_NAMES)
    words = [word for word in reversed(INPUT_WORDS) if word not in taken]
    if len(levels) > len(words):
        message = f"the inputs have {len(levels)} levels, and a worker that iterates merges at most {len(words)}"
        reading.report.error("bad-inputs", place, message, "write one mapping under `args`")
    said = dict(zip(words, levels, strict=False))
    # Said once more under any word, what is deeper than these would come over what is over it.
    strongest = [level.parts for level in levels[:2] if isinstance(level, Fields)]
    for word, keys in inputs.aliases.items():
        own = {key: parts[key] for parts in reversed(strongest) for key in keys or () if key in parts}
        if own:
            said.setdefault(word, Fields(own, levels[0].at))
        elif keys is None and inputs.whole is not None:
            said.setdefault(word, inputs.whole)
    return said


def _levels(inputs: Inputs) -> Iterator[Tree | Fields]:
    """Give what is merged, the strongest first."""
    if inputs.keys:
        yield Fields(inputs.keys, next(iter(inputs.keys.values())).at)
    if inputs.whole is not None:
        yield inputs.whole
    if inputs.base is not None:
        yield from _levels(inputs.base)


def _without(raw: Raw, keys: Collection[str]) -> Raw:
    return {key: value for key, value in raw.items() if key not in keys}


def _with_loop(layer: Layer, loop: Raw | None) -> Layer:
    """Give a layer with this `loop`; None where another layer's counts."""
    own = {key: value for key, value in layer.raw.items() if key != "loop" or loop is not None}
    return Layer(raw=own | {"loop": _with_template(loop)} if loop is not None else own, place=layer.place)


def _with_template(raw: Raw) -> Raw:
    bare = {key: raw[key] for key in EXPRESSIONS if isinstance(raw.get(key), str) and not is_one_template(raw[key])}
    return {**raw, **{key: f"{{{{ {value} }}}}" for key, value in bare.items()}}

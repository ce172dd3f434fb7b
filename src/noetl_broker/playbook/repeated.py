"""What a worker that iterates is told: how to repeat, as templates, and what, with its workbook action."""

from __future__ import annotations

from collections.abc import Collection

from noetl_broker.playbook.inputs import is_one_template
from noetl_broker.playbook.model import Raw
from noetl_broker.playbook.tasks import Declared, Layer

EXPRESSIONS = ("collection", "where", "order_by")


def with_task(declared: Declared, task: Declared, *, looped: bool, refused: Collection[str] = ()) -> Declared:
    """Give what a worker iterates: its expressions as templates, and its task with the keys of the workbook action.

    Those expressions that are `refused` are left out.

    A worker knows no workbook, and evaluates no bare expression: what it may evaluate, the job says by its templates.
    """
    if looped:
        loop, place = declared.lookup("loop")
        loop = {key: value for key, value in loop.items() if key not in refused}
        layers = tuple(
            _with_loop(layer, loop if (*layer.place, "loop") == place else None) for layer in declared.layers
        )
        return Declared(type=declared.type, kind=declared.kind, layers=layers)
    merged: Raw = {}
    for layer in task.layers:
        merged |= layer.raw
    *below, top = (
        Layer(raw=_with_template({k: v for k, v in layer.raw.items() if k not in refused}), place=layer.place)
        for layer in declared.layers
    )
    layers = (*below, Layer(raw={**top.raw, "task": {**merged, "type": task.type}}, place=top.place))
    return Declared(type=declared.type, kind=declared.kind, layers=layers)


def _with_loop(layer: Layer, loop: Raw | None) -> Layer:
    """Give a layer with this `loop`; None where another layer's counts."""
    own = {key: value for key, value in layer.raw.items() if key != "loop" or loop is not None}
    return Layer(raw=own | {"loop": _with_template(loop)} if loop is not None else own, place=layer.place)


def _with_template(raw: Raw) -> Raw:
    bare = {key: raw[key] for key in EXPRESSIONS if isinstance(raw.get(key), str) and not is_one_template(raw[key])}
    return {**raw, **{key: f"{{{{ {value} }}}}" for key, value in bare.items()}}

"""Worlds in which a playbook's templates find what they read, and a condition is true, or false.

What a template reads is traced back to who gives it: an input to the template that gave it, a result to its step, a
workload key to the payload. A condition is turned into assignments of what it reads by its syntax tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from itertools import chain, islice, pairwise, product
from operator import eq, ge, gt, le, lt, ne
from random import Random
from typing import Any, NamedTuple

from jinja2 import nodes

from noetl_broker.playbook import Playbook
from noetl_broker.playbook.given import arriving_inputs
from noetl_broker.playbook.model import Inputs, Step
from noetl_broker.playbook.reading import Reading, Use, templates_of
from noetl_broker.playbook.reads import at_path, handed_on, reads_of
from noetl_broker.template import OLD_WORKLOAD_WORD, WORKER_WORDS, WORKLOAD_WORDS, Path, Template
from noetl_broker.template.engine import parse
from tests.corpus.scripted import World

WORDS = frozenset({*WORKLOAD_WORDS, OLD_WORKLOAD_WORD, "execution_id", *WORKER_WORDS})
FACETS = frozenset({"data", "result"})
LEAVES: tuple[Any, ...] = (1, "text", [], {}, 0, True, [{"a": 1}], None)
MOST_WISHES = 24
MOST_DEPTH = 6  # of inputs handed on from step to step

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": eq,
    "ne": ne,
    "lt": lt,
    "lteq": le,
    "gt": gt,
    "gteq": ge,
    "in": lambda left, right: left in right,
    "notin": lambda left, right: left not in right,
}
Wish = dict[Path, Any]  # a value for each path that a condition reads


class Giver(NamedTuple):
    """Who gives what a template reads: a step's data (its name), or the payload (None), and the path in that."""

    step: str | None
    path: Path


class Worlds:
    """Makes worlds for one playbook."""

    def __init__(self, playbook: Playbook, reading: Reading) -> None:
        self.playbook = playbook
        self.arriving = arriving_inputs(playbook)
        self.defaults = _raw_defaults(playbook)
        self.read = [*chain.from_iterable(self._givers_read(use) for use in reading.uses)]

    def plausible(self, leaf: Any = 1, random: Random | None = None) -> World:
        """Give one in which whatever a template reads is there."""
        world = World({}, {})
        for giver, is_list in self.read:
            value = random.choice(LEAVES) if random is not None else leaf
            self.put(world, giver, [value] if is_list else value, replace=False)
        return world

    def for_condition(self, step: Step, template: Template, *, outcome: bool) -> Iterator[World]:
        """Give worlds in which the condition of a step's `next` has this outcome, and its step is reached."""
        ways = [*self._way_to(step.name), (step, template, outcome)]
        options = [[*islice(wishes(condition.source, want), MOST_WISHES)] for _, condition, want in ways]
        for leaf in (1, "text"):
            for chosen in islice(product(*options), MOST_WISHES):
                world = self.plausible(leaf)
                for (owner, _, _), wish in zip(ways, chosen, strict=True):
                    self.grant(world, owner, wish)
                yield world

    def grant(self, world: World, step: Step, wish: Wish) -> None:
        """Let what a condition of the step reads have these values."""
        for path, value in wish.items():
            for giver in self.givers(step, "next", path):
                self.put(world, giver, value, replace=True)

    def put(self, world: World, giver: Giver, value: Any, *, replace: bool) -> None:
        """Let a giver give a value; defaults that the workload has need nobody."""
        value = deepcopy(value)
        if giver.step is None:
            default = at_path(self.defaults, giver.path)
            needed = default is None or giver.path in self.playbook.unfinished or _reads_itself(giver.path, default)
            if giver.path and (replace or needed):
                _set(world.payload, giver.path, value, replace=replace)
        else:
            holder = {"": world.data.get(giver.step, {})}
            _set(holder, ("", *giver.path), value, replace=replace)
            world.data[giver.step] = holder[""]

    def givers(self, step: Step, role: str, path: Path, depth: int = 0) -> list[Giver]:
        """Give who gives what a template of a step reads."""
        root, rest = str(path[0]), path[1:]
        key, below = (str(rest[0]), rest[1:]) if root == "args" and rest else (root, rest)
        trees = [*self._trees(step, role, key)] if depth < MOST_DEPTH else []
        if trees:
            found = [(owner, what, handed_on(source)) for owner, what, source in trees]
            return [*chain.from_iterable(self.givers(o, w, (*p, *below), depth + 1) for o, w, p in found if p)]
        if root in self.playbook.steps:
            return [Giver(root, _without_facet(rest))]
        if root == "results" and rest:
            return [Giver(str(rest[0]), _without_facet(rest[1:]))]
        if root in ("result", "this"):
            return [Giver(name, _without_facet(rest)) for name in self._handing_on(step, role)]
        if root in (*WORKLOAD_WORDS, OLD_WORKLOAD_WORD):
            return [Giver(None, rest)]
        return [Giver(None, path)] if root in self.playbook.workload else []

    def _trees(self, step: Step, role: str, key: str) -> Iterator[tuple[Step, str, str]]:
        levels: list[tuple[Step, str, Inputs]] = [
            (self.playbook.steps[source], "next", inputs) for source, inputs in self.arriving.get(step.name, ())
        ]
        if role != "inputs":
            levels.append((step, "inputs", step.inputs))
        for owner, what, inputs in levels:
            if key in inputs.keys:
                yield owner, what, inputs.keys[key].source

    def _handing_on(self, step: Step, role: str) -> set[str]:
        if role in ("next", "retry") and step.kind != "control":
            return {step.name}
        found, fresh = set(), [step.name]
        while fresh:
            target = fresh.pop()
            for source, _ in self.arriving.get(target, ()):
                if source not in found:
                    found.add(source)
                    fresh.extend([source] if self.playbook.steps[source].kind == "control" else [])
        return {name for name in found if self.playbook.steps[name].kind != "control"}

    def _givers_read(self, use: Use) -> Iterator[tuple[Giver, bool]]:
        if use.part.step is None:  # a default of the workload: it may read what only the payload gives
            for _, text in templates_of(use):
                yield from (
                    (Giver(None, path), False) for path in sorted(reads_of(text), key=repr) if path[0] not in WORDS
                )
            return
        step = self.playbook.steps[use.part.step]
        is_list = use.part.role == "iteration" and use.place[-1] == "collection"
        for _, text in templates_of(use):
            for path in sorted(reads_of(text), key=repr):
                yield from ((giver, is_list) for giver in self.givers(step, use.part.role, path))

    def _way_to(self, name: str) -> list[tuple[Step, Template, bool]]:
        """Give the conditions of a shortest way to a step, each with the outcome that it takes."""
        before: dict[str, list[tuple[Step, Template, bool]]] = {"start": []}
        layer = ["start"]
        while layer and name not in before:
            following = []
            for source in layer:
                step = self.playbook.steps[source]
                for number, entry in enumerate(step.next):
                    for target in (*entry.then, *entry.otherwise):
                        if target.step not in before:
                            before[target.step] = [*before[source], *_outcomes(step, number, target in entry.then)]
                            following.append(target.step)
            layer = following
        return before.get(name, [])


def _outcomes(step: Step, number: int, then: bool) -> Iterator[tuple[Step, Template, bool]]:  # noqa: FBT001 - as named
    entry = step.next[number]
    if entry.condition is not None:
        yield step, entry.condition, then
    elif any(earlier.condition is not None for earlier in step.next[:number]) or entry.kind == "else":
        yield from ((step, other.condition, False) for other in step.next if other.condition is not None)


def wishes(source: str, outcome: bool) -> Iterator[Wish]:  # noqa: FBT001 - as named
    """Give assignments that let a condition, as far as it is understood, have the outcome."""
    text = source if "{{" in source else f"{{{{ {source} }}}}"
    output = parse(text).body[0]
    yield from _wishes(output.nodes[0], outcome) if isinstance(output, nodes.Output) else ()


def _wishes(node: nodes.Node, outcome: bool) -> Iterator[Wish]:  # noqa: FBT001 - as named
    if isinstance(node, nodes.Not):
        yield from _wishes(node.node, not outcome)
    elif isinstance(node, nodes.And | nodes.Or):
        both = isinstance(node, nodes.And) is outcome
        left, right = [*_wishes(node.left, outcome)], [*_wishes(node.right, outcome)]
        yield from (one | other for one, other in product(left, right)) if both else chain(left, right)
    elif isinstance(node, nodes.Compare) and len(node.ops) == 1:
        yield from _compared(node, outcome)
    elif isinstance(node, nodes.Test) and node.name in ("defined", "none"):
        path = _path(node.node)
        absent = outcome is (node.name == "none")
        if path is not None:
            yield {path: None if absent else 1}
    else:
        path = _path(node)
        if path is not None:
            yield from ({path: value} for value in ((True, 1, "x", [1]) if outcome else (False, 0, "", [])))


def _compared(node: nodes.Compare, outcome: bool) -> Iterator[Wish]:  # noqa: FBT001 - as named
    operator, left, right = node.ops[0].op, node.expr, node.ops[0].expr
    for subject, other in ((left, right), (right, left)):
        path = _path(subject)
        if path is None:
            continue
        size = isinstance(subject, nodes.Filter) and subject.name in ("length", "count")
        if isinstance(other, nodes.Const | nodes.List | nodes.Tuple):
            constant = other.as_const()
            for value in _candidates(constant):
                if _holds(operator, *((value, constant) if subject is left else (constant, value))) is outcome:
                    yield {path: [0] * value if size and isinstance(value, int) else value}
        elif _path(other) is not None:
            for one, two in ((1, 1), (1, 2), (2, 1), (100, 1), (-100, 1), (1, [1]), ("a", "b")):
                pair = (one, two) if subject is left else (two, one)
                if _holds(operator, *pair) is outcome:
                    yield {path: one, _path(other) or (): two}


def _candidates(constant: Any) -> Iterator[Any]:
    if isinstance(constant, list | tuple):
        yield from (*constant, "other", 12345)
    elif isinstance(constant, int | float):
        yield from (constant, constant + 1, max(constant - 1, 0), constant - 1)
    else:
        yield from (constant, f"not {constant}", None, 1)


def _holds(operator: str, left: Any, right: Any) -> bool | None:
    try:
        return bool(OPERATORS[operator](left, right))
    except TypeError:
        return None


def _path(node: nodes.Node) -> Path | None:
    """Give what an expression reads, through filters that change nothing of note; None where it is more than that."""
    if isinstance(node, nodes.Filter) and node.node is not None:
        return _path(node.node)
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr) and node.node.attr == "get":
        under = _path(node.node.node)
        key = node.args[0].as_const() if node.args and isinstance(node.args[0], nodes.Const) else None
        return (*under, key) if under and isinstance(key, str) else None
    if isinstance(node, nodes.Name):
        return (node.name,)
    if isinstance(node, nodes.Getattr | nodes.Getitem):
        under = _path(node.node)
        key = node.attr if isinstance(node, nodes.Getattr) else getattr(node.arg, "value", None)
        return (*under, key) if under and isinstance(key, str | int) else None
    return None


def _reads_itself(path: Path, default: Any) -> bool:
    return isinstance(default, str) and any(read == path for read in reads_of(default))


def _without_facet(path: Path) -> Path:
    return path[1:] if path[:1] and path[0] in FACETS else path


def _raw_defaults(playbook: Playbook) -> Any:
    document = playbook.document
    return document.get("workload") or document.get("spec") or {}


def _set(holder: Any, path: Iterable[str | int], value: Any, *, replace: bool) -> None:
    """Put a value at a path, making mappings and lists on the way; what is there already stays unless told."""
    parts = [*path]
    last = parts[-1]
    for part, following in pairwise(parts):
        under = _there(holder, part)
        if isinstance(following, int) != isinstance(under, list) or not isinstance(under, dict | list):
            under = [] if isinstance(following, int) else {}
            _store(holder, part, under)
        holder = under
    before = _there(holder, last)
    if before is None or (replace and not (isinstance(before, dict) and before and not isinstance(value, dict))):
        _store(holder, last, value)


def _there(holder: Any, part: str | int) -> Any:
    return at_path(holder, (part,))


def _store(holder: Any, part: str | int, value: Any) -> None:
    if isinstance(holder, list) and isinstance(part, int):
        holder.extend([None] * (part + 1 - len(holder)))
    holder[part] = value

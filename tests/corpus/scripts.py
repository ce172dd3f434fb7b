"""Scripts with values for all that a playbook's templates read, and for both outcomes of its conditions.

What a template reads is traced to its source: an input to its template, a result to its step, a workload key to the
payload. The syntax tree of a condition gives assignments of what it reads.
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
from noetl_broker.playbook.model import Inputs, Step
from noetl_broker.playbook.reader import Reading, Use, templates_of
from noetl_broker.playbook.scopes import arriving_inputs
from noetl_broker.playbook.template_reads import at_path, reads_of
from noetl_broker.template import OLD_WORKLOAD_WORD, WORKER_WORDS, WORKLOAD_WORDS, Path, Template
from noetl_broker.template.engine import parse
from tests.corpus.scripted_run import Script

WORDS = frozenset({*WORKLOAD_WORDS, OLD_WORKLOAD_WORD, "execution_id", *WORKER_WORDS})
FACETS = frozenset({"data", "result"})
LEAVES: tuple[Any, ...] = (1, "text", [], {}, 0, True, [{"a": 1}], None)
MAX_ASSIGNMENTS = 24
MAX_DEPTH = 6  # of inputs that are passed from step to step

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
Assignment = dict[Path, Any]  # values by path, for what a condition reads


class Source(NamedTuple):
    """The source of what a template reads: the data of a step, or the payload (None), and a path in it."""

    step: str | None
    path: Path


class ScriptWriter:
    """Writes scripts for one playbook."""

    def __init__(self, playbook: Playbook, reading: Reading) -> None:
        self.playbook = playbook
        self.arriving = arriving_inputs(playbook.steps)
        self.defaults = _raw_defaults(playbook)
        self.read = [*chain.from_iterable(self._sources_read(use) for use in reading.uses)]

    def plausible(self, leaf: Any = 1, random: Random | None = None) -> Script:
        """Return a script with a value for all that templates read."""
        script = Script({}, {})
        for origin, is_list in self.read:
            value = random.choice(LEAVES) if random is not None else leaf
            self.set_value(script, origin, [value] if is_list else value, replace=False)
        return script

    def for_condition(self, step: Step, template: Template, *, outcome: bool) -> Iterator[Script]:
        """Yield scripts with which a step is reached, and a condition of its `next` has this outcome."""
        ways = [*self._path_to(step.name), (step, template, outcome)]
        options = [[*islice(assignments(condition.source, want), MAX_ASSIGNMENTS)] for _, condition, want in ways]
        for leaf in (1, "text"):
            for chosen in islice(product(*options), MAX_ASSIGNMENTS):
                script = self.plausible(leaf)
                for (owner, _, _), assignment in zip(ways, chosen, strict=True):
                    self.assign(script, owner, assignment)
                yield script

    def assign(self, script: Script, step: Step, assignment: Assignment) -> None:
        """Set the values that a condition of the step reads."""
        for path, value in assignment.items():
            for origin in self.sources(step, "next", path):
                self.set_value(script, origin, value, replace=True)

    def set_value(self, script: Script, origin: Source, value: Any, *, replace: bool) -> None:
        """Set the value of a source, unless a default of the workload is enough."""
        value = deepcopy(value)
        if origin.step is None:
            default = at_path(self.defaults, origin.path)
            needed = default is None or origin.path in self.playbook.deferred or _reads_itself(origin.path, default)
            if origin.path and (replace or needed):
                _set(script.payload, origin.path, value, replace=replace)
        else:
            holder = {"": script.data.get(origin.step, {})}
            _set(holder, ("", *origin.path), value, replace=replace)
            script.data[origin.step] = holder[""]

    def sources(self, step: Step, role: str, path: Path, depth: int = 0) -> list[Source]:
        """Return the sources of what a template of a step reads."""
        root, rest = str(path[0]), path[1:]
        key, below = (str(rest[0]), rest[1:]) if root == "args" and rest else (root, rest)
        trees = [*self._trees(step, role, key)] if depth < MAX_DEPTH else []
        if trees:
            found = [(owner, what, _passed_path(source)) for owner, what, source in trees]
            return [*chain.from_iterable(self.sources(o, w, (*p, *below), depth + 1) for o, w, p in found if p)]
        if root in self.playbook.steps:
            return [Source(root, _without_facet(rest))]
        if root == "results" and rest:
            return [Source(str(rest[0]), _without_facet(rest[1:]))]
        if root in ("result", "this"):
            return [Source(name, _without_facet(rest)) for name in self._result_steps(step, role)]
        if root in (*WORKLOAD_WORDS, OLD_WORKLOAD_WORD):
            return [Source(None, rest)]
        return [Source(None, path)] if root in self.playbook.workload else []

    def _trees(self, step: Step, role: str, key: str) -> Iterator[tuple[Step, str, str]]:
        levels: list[tuple[Step, str, Inputs]] = [
            (self.playbook.steps[source], "next", inputs) for source, inputs in self.arriving.get(step.name, ())
        ]
        if role != "inputs":
            levels.append((step, "inputs", step.inputs))
        for owner, what, inputs in levels:
            if key in inputs.keys:
                yield owner, what, inputs.keys[key].source

    def _result_steps(self, step: Step, role: str) -> set[str]:
        if role in ("next", "retry") and step.has_action:
            return {step.name}
        found, fresh = set(), [step.name]
        while fresh:
            target = fresh.pop()
            for source, _ in self.arriving.get(target, ()):
                if source not in found:
                    found.add(source)
                    fresh.extend([source] if not self.playbook.steps[source].has_action else [])
        return {name for name in found if self.playbook.steps[name].has_action}

    def _sources_read(self, use: Use) -> Iterator[tuple[Source, bool]]:
        if use.part.step is None:  # a default of the workload may read keys of the payload
            for _, text in templates_of(use):
                yield from (
                    (Source(None, path), False) for path in sorted(reads_of(text), key=repr) if path[0] not in WORDS
                )
            return
        step = self.playbook.steps[use.part.step]
        is_list = use.part.role == "iteration" and use.location[-1] == "collection"
        for _, text in templates_of(use):
            for path in sorted(reads_of(text), key=repr):
                yield from ((origin, is_list) for origin in self.sources(step, use.part.role, path))

    def _path_to(self, name: str) -> list[tuple[Step, Template, bool]]:
        """Return the conditions on a shortest path to a step, with the outcomes that lead to it."""
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


def _outcomes(step: Step, number: int, then: bool) -> Iterator[tuple[Step, Template, bool]]:
    entry = step.next[number]
    if entry.condition is not None:
        yield step, entry.condition, then
    elif any(earlier.condition is not None for earlier in step.next[:number]) or entry.kind == "else":
        yield from ((step, other.condition, False) for other in step.next if other.condition is not None)


def assignments(source: str, outcome: bool) -> Iterator[Assignment]:
    """Yield assignments with which a condition has this outcome; none if it is too complex."""
    text = source if "{{" in source else f"{{{{ {source} }}}}"
    output = parse(text).body[0]
    yield from _assignments(output.nodes[0], outcome) if isinstance(output, nodes.Output) else ()


def _assignments(node: nodes.Node, outcome: bool) -> Iterator[Assignment]:
    if isinstance(node, nodes.Not):
        yield from _assignments(node.node, not outcome)
    elif isinstance(node, nodes.And | nodes.Or):
        both = isinstance(node, nodes.And) is outcome
        left, right = [*_assignments(node.left, outcome)], [*_assignments(node.right, outcome)]
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


def _compared(node: nodes.Compare, outcome: bool) -> Iterator[Assignment]:
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
    """Return the path that an expression reads, also through filters; None if it is more complex."""
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
    """Set the value at a path, with new mappings and lists where needed; an existing value stays unless `replace`."""
    parts = [*path]
    last = parts[-1]
    for part, following in pairwise(parts):
        under = _at(holder, part)
        if isinstance(following, int) != isinstance(under, list) or not isinstance(under, dict | list):
            under = [] if isinstance(following, int) else {}
            _set_item(holder, part, under)
        holder = under
    before = _at(holder, last)
    if before is None or (replace and not (isinstance(before, dict) and before and not isinstance(value, dict))):
        _set_item(holder, last, value)


def _at(holder: Any, part: str | int) -> Any:
    return at_path(holder, (part,))


def _set_item(holder: Any, part: str | int, value: Any) -> None:
    if isinstance(holder, list) and isinstance(part, int):
        holder.extend([None] * (part + 1 - len(holder)))
    holder[part] = value


def _passed_path(source: str) -> Path | None:
    """Return the path of a template that is only a path: (a, b) for `{{ a.b }}`."""
    body = parse(source.strip()).body
    output = body[0].nodes if len(body) == 1 and isinstance(body[0], nodes.Output) else []
    read = reads_of(source)
    one = len(output) == len(read) == 1 and isinstance(output[0], nodes.Name | nodes.Getattr | nodes.Getitem)
    return next(iter(read)) if one else None

"""Refuses what reads an input that only the worker can finish: to the broker its text would pass for the value.

A string of a step's inputs that names a worker-side word (`env`, `secret`, …) travels to the worker as a template. What
the broker itself evaluates with the same inputs (`next`, retry conditions, the result of `end`) would get its text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from jinja2 import TemplateSyntaxError, nodes

from noetl_broker.playbook.findings import path_text
from noetl_broker.playbook.model import Inputs, Playbook, Step
from noetl_broker.playbook.reading import NO_NAMES, Reading, Use, shortened, strings
from noetl_broker.template import Path, Tree, read_by_text
from noetl_broker.template.engine import parse

ARGS = "args"
# Beside the result of `end`, what the broker evaluates with a visit's inputs; of an iterator only where it is expanded.
EVALUATED = frozenset({"next", "retry", "iteration"})
TELLS_NOTHING = frozenset({"defined", "undefined"})  # tests that ask whether there is a value, not which
Unfinished = Mapping[Path, str]  # where in a step's inputs such a string stands, and where in the document


def refuse_unfinished(reading: Reading, playbook: Playbook) -> None:
    """Report each template of the broker that reads an input which is still a template for the worker."""
    arriving: dict[str, list[Inputs]] = {}
    for step in playbook.steps.values():
        for entry in step.next:
            for target in (*entry.then, *entry.otherwise):
                arriving.setdefault(target.step, []).append(target.inputs)
    found = {name: _unfinished(step, arriving.get(name, ())) for name, step in playbook.steps.items()}
    for name, step in playbook.steps.items():
        if step.kind in ("playbook", "iterator"):
            _refuse_payload(reading, step, found[name])
    for use in reading.uses:
        name = use.part.step or ""
        if (
            found.get(name)
            and not use.names.isdisjoint(_roots(found[name]))
            and _is_evaluated(use, playbook.steps[name])
        ):
            _refuse(reading, use, found[name])


def _is_evaluated(use: Use, step: Step) -> bool:
    """Whether the broker renders it at all: the `save` of `end` only where nothing else is the result."""
    if use.part.role == "iteration":
        return step.iteration is not None and step.iteration.expanded
    if use.part.role != "result":
        return use.part.role in EVALUATED
    return path_text(use.place) == step.result.at if step.result is not None else step.kind == "control"


def _unfinished(step: Step, arriving: Iterable[Inputs]) -> Unfinished:
    """Give the strings that may still be templates; an own input counts unless every transition overrides it."""
    found: dict[Path, str] = {}
    given: frozenset[str] | None = None
    for inputs in arriving:
        found |= _left(inputs)
        names = frozenset(key for key, _ in _effective(inputs))
        given = names if given is None else given & names
    leave = _roots(found)
    for key, tree in _effective(step.inputs):
        if given is None or key not in given:
            found |= {(key, *path): _at(tree, path) for path in tree.left}
            found |= {(key, *path): _at(tree, path) for path, _ in tree.reading(leave)}
    return found


def _refuse_payload(reading: Reading, step: Step, unfinished: Unfinished) -> None:
    """What a child is started with is data: no worker stands between the step and the child."""
    task = step if step.iteration is None else step.iteration.task
    if task.call is None:
        return
    places = {path_text(place): place for use in reading.uses for place, _ in strings(use.value, use.place)}
    own = {} if task is step else _left(task.inputs)
    for path, at in {**unfinished, **own}.items():
        reading.report.error(
            "unfinished-input",
            places.get(at, ()),
            f"the input `{path_text(path)}` of the step `{step.name}` is for a worker to finish, and the playbook that"
            " it starts would get its text",
            "write that template in the playbook that is started, or let an action return the value",
        )


def _roots(unfinished: Unfinished) -> frozenset[str]:
    """Give the names under which a template may read such a string."""
    return frozenset(str(path[0]) for path in unfinished) | {ARGS} if unfinished else NO_NAMES


def _left(inputs: Inputs) -> dict[Path, str]:
    return {(key, *path): _at(tree, path) for key, tree in _effective(inputs) for path in tree.left}


def _effective(inputs: Inputs) -> Iterator[tuple[str, Tree]]:
    """Give the inputs of one level by key, without those that a stronger one overrides."""
    if inputs.base is not None:
        yield from ((key, tree) for key, tree in _effective(inputs.base) if key not in inputs.keys)
    yield from inputs.keys.items()


def _at(tree: Tree, path: Path) -> str:
    return tree.at + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)


def _refuse(reading: Reading, use: Use, unfinished: Unfinished) -> None:
    # A condition may stand without braces, or be a number; a tree holds its templates anywhere.
    texts = [*strings(use.value, use.place)]
    if not texts and isinstance(use.value, str):
        texts = [(use.place, f"{{{{ {use.value} }}}}")]
    for place, text in texts:
        if _is_left(text, use.part.worker):
            continue
        named = {path: at for path, at in unfinished.items() if any(_meet(read, path) for read in _reads(text))}
        for path, at in named.items():
            reading.report.error(
                "unfinished-input",
                place,
                f"`{shortened(text)}` reads the input `{path_text(path)}` of the step `{use.part.step}`, which only a"
                f" worker can finish ({at})",
                _remedy(use),
            )


def _remedy(use: Use) -> str:
    if use.part.role == "next" and use.part.worker:  # the inputs of a transition, which may hold such strings too
        return "write that template here, for the next worker, or let an action return the value and read its result"
    return "let an action return what is needed here, and read its result"


def _is_left(text: str, worker: frozenset[str]) -> bool:
    """Whether the string is itself left for the next worker."""
    return bool(worker) and not read_by_text(text)[0].isdisjoint(worker)


def _meet(read: Path, path: Path) -> bool:
    """Whether what is read contains the string, or lies inside it."""
    if read[0] == ARGS and path[0] != ARGS:
        read = read[1:]
    return all(one == other for one, other in zip(read, path, strict=False))


def _reads(text: str) -> Iterator[Path]:
    """Give what a template reads, each as a name with the constant keys after it."""
    try:
        yield from _read(parse(text))
    except (TemplateSyntaxError, ValueError, RecursionError):  # its own error is in the report
        return


def _read(node: nodes.Node) -> Iterator[Path]:
    if isinstance(node, nodes.Test) and node.name in TELLS_NOTHING and _chain(node.node) is not None:
        return
    chain = _chain(node)
    if chain is not None:
        yield chain
        return
    called = _chain(node.node) if isinstance(node, nodes.Call) else None
    if called is not None and len(called) > 1:  # a method: it sees all of what it is asked of
        yield called[:-1]
    for child in node.iter_child_nodes():
        yield from _read(child)


def _chain(node: nodes.Node) -> Path | None:
    """Give `a.b['c'][0]` as ("a", "b", "c", 0); None for anything else."""
    if isinstance(node, nodes.Name):
        return (node.name,)
    if isinstance(node, nodes.Getattr):
        under = _chain(node.node)
        return None if under is None else (*under, node.attr)
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        under = _chain(node.node)
        return under if under is None or not isinstance(node.arg.value, str | int) else (*under, node.arg.value)
    return None

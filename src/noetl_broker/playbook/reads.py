"""What a template reads, as paths: `a.b['c'][0]` and `a.b.get('c')[0]` are the path (a, b, c, 0)."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from jinja2 import TemplateSyntaxError, nodes

from noetl_broker.playbook.vocabulary import SCOPE_WORDS
from noetl_broker.template import JSON, OLD_WORKLOAD_WORD, WORKER_WORDS, WORKLOAD_WORDS, Leave, Path, read_by_text
from noetl_broker.template.engine import parse

if TYPE_CHECKING:
    from noetl_broker.playbook.model import Playbook

CACHED_SOURCES = 8_192
TELLS_NOTHING = frozenset({"defined", "undefined"})  # tests that ask whether there is a value, not which
ARGS = "args"
WORDS_FOR_WORKLOAD = (*WORKLOAD_WORDS, OLD_WORKLOAD_WORD)
LASTING_WORDS = frozenset({*WORKER_WORDS, *WORDS_FOR_WORKLOAD, "execution_id", "results"})


@lru_cache(maxsize=CACHED_SOURCES)
def reads_of(source: str) -> frozenset[Path]:
    """Give all that a template reads, its own variables too; of one that is no template: nothing.

    A condition may stand without braces.
    """
    tree = _parsed(source)
    return frozenset() if tree is None else frozenset(_read(tree))


@lru_cache(maxsize=CACHED_SOURCES)
def needed_by(source: str) -> frozenset[str]:
    """Give the names without which a template surely fails: read in any case, and not asked for or given a default."""
    tree = _parsed(source)
    if tree is None:
        return frozenset()
    asks = [node for node in tree.find_all(nodes.Expr) if isinstance(node, nodes.Test | nodes.Filter)]
    asked = {path[0] for node in asks for path in _asked(node)}
    return frozenset(str(path[0]) for path in _surely_read(tree)) - {str(name) for name in asked}


@lru_cache(maxsize=CACHED_SOURCES)
def handed_on(source: str) -> Path | None:
    """Give what a template hands on as it is: `{{ a.b }}` is (a, b); None where it makes anything of it."""
    tree = _parsed(source.strip())
    if tree is None or len(tree.body) != 1 or not isinstance(tree.body[0], nodes.Output):
        return None
    output = tree.body[0].nodes
    return _chain(output[0]) if len(output) == 1 else None


def first_met(source: str, paths: Iterable[Path]) -> Path | None:
    """Give the first of these paths that a template reads: what it reads contains it, or lies inside it."""
    reads = reads_of(source)
    return next((path for path in paths if any(meet(read, path) for read in reads)), None)


@lru_cache(maxsize=CACHED_SOURCES)
def defaults_read(source: str, defaults: tuple[Path, ...]) -> tuple[tuple[Path, Path], ...]:
    """Give which of these paths in the workload a template may read, each as it names it and as it is."""
    found: dict[Path, Path] = {}
    for read in sorted(reads_of(source), key=repr):
        if read[0] in WORDS_FOR_WORKLOAD:
            found |= {(read[0], *path): path for path in defaults if meet(read[1:], path)}
        elif read[0] not in SCOPE_WORDS:
            found |= {path: path for path in defaults if path[0] == read[0] and meet(read, path)}
    return tuple(found.items())


def part_read(source: str, name: str, value: JSON) -> JSON:
    """Give of a name's value what a template may read of it: mappings without the keys that it does not name."""
    tree = _parsed(source)
    asked = () if tree is None else (path for test in tree.find_all(nodes.Test) for path in _asked(test))
    return _part(value, [path[1:] for path in {*reads_of(source), *asked} if path[0] == name])


def _part(value: JSON, paths: Collection[Path]) -> JSON:
    if not isinstance(value, dict) or () in paths:
        return value
    keys = {path[0] for path in paths}
    return {
        key: _part(item, [path[1:] for path in paths if path[0] == key]) for key, item in value.items() if key in keys
    }


def reads_one_of(paths: Collection[Path]) -> Leave:
    """Give the question whether a template reads one of these paths."""
    return lambda template: first_met(template.source, paths)


def meet(read: Path, path: Path) -> bool:
    """Whether one of two paths begins with the other."""
    return all(one == other for one, other in zip(read, path, strict=False))


def input_paths(left: Iterable[Path], inputs: Collection[str]) -> frozenset[Path]:
    """Give paths in the inputs as templates read them: by name, and under `args` where no input is called so."""
    found = frozenset(left)
    return found if ARGS in inputs else found | {(ARGS, *path) for path in found}


def workload_paths(left: Iterable[Path], hidden: Collection[str]) -> frozenset[Path]:
    """Give paths in the workload as templates read them: under its words, and by its keys.

    `hidden` are names that mean something else there: inputs, the element of an iterator.
    """
    left = tuple(left)
    words = [word for word in WORDS_FOR_WORKLOAD if word not in hidden]
    named = frozenset(path for path in left if path[0] not in hidden and path[0] not in SCOPE_WORDS)
    return named | {(word, *path) for path in left for word in words}


def travels(source: str, playbook: Playbook, *inputs: Container[str], closed: frozenset[str] = frozenset()) -> bool:
    """Whether a text for the worker means the same in another visit: it names no input, no result handed on.

    The names `closed` are not those any more: the values of these travel in it.
    """
    lasting = (playbook.workload, playbook.steps, LASTING_WORDS)
    return all(
        any(name in names for names in lasting) and not any(name in names for names in inputs)
        for name in read_by_text(source)[0] - closed
    )


def word_of_inputs(action: Mapping[str, JSON]) -> str:
    """Give the key under which a job says its inputs: `args`, or `data` where `args` is a list of the type's own."""
    return "data" if isinstance(action.get(ARGS), list) else ARGS


def at_path(value: JSON, path: Path) -> JSON:
    """Give the value at a path; None where there is none."""
    try:
        for part in path:
            value = value[part]
    except (LookupError, TypeError):
        return None
    return value


def with_value(value: JSON, path: Path, part: JSON) -> JSON:
    """Give a JSON value with another part at a path that is there; nothing is changed."""
    if not path:
        return part
    copy: JSON = dict(value) if isinstance(value, Mapping) else list(value)
    copy[path[0]] = with_value(value[path[0]], path[1:], part)
    return copy


def _parsed(source: str) -> nodes.Template | None:
    texts = [f"{{{{ {source} }}}}"]
    if "{{" in source or "{%" in source:
        texts.insert(0, source)
    for text in texts:
        try:
            return parse(text)
        except (TemplateSyntaxError, ValueError, RecursionError):  # its own error is in the report
            continue
    return None


def _read(node: nodes.Node) -> Iterator[Path]:
    if isinstance(node, nodes.Test) and node.name in TELLS_NOTHING and _chain(node.node) is not None:
        return
    chain = _chain(node)
    if chain is not None:
        yield chain
        return
    called = _chain(node.node) if isinstance(node, nodes.Call) else None
    if isinstance(node, nodes.Call) and called is not None and len(called) > 1:
        key = _key_asked_for(node)
        # any other method sees all of what it is asked of
        yield called[:-1] if key is None else (*called[:-1], key)
        children: Iterable[nodes.Node] = (*node.args, *node.kwargs)
    else:
        children = node.iter_child_nodes()
    for child in children:
        yield from _read(child)


def _surely_read(node: nodes.Node) -> Iterator[Path]:
    """Give what is read whatever the values are: the branches of a choice are not."""
    chain = _chain(node)
    if chain is not None:
        yield chain
    elif isinstance(node, nodes.CondExpr | nodes.If):
        yield from _surely_read(node.test)
    elif isinstance(node, nodes.And | nodes.Or):
        yield from _surely_read(node.left)
    elif isinstance(node, nodes.For):
        yield from _surely_read(node.iter)
    else:
        for child in node.iter_child_nodes():
            yield from _surely_read(child)


def _asked(node: nodes.Test | nodes.Filter) -> Iterator[Path]:
    """Give what a test asks whether it is there, or a filter gives a default for."""
    if node.name in TELLS_NOTHING or node.name in ("default", "d"):
        yield from () if node.node is None else _read(node.node)


def _chain(node: nodes.Node) -> Path | None:
    if isinstance(node, nodes.Name):
        return (node.name,)
    if isinstance(node, nodes.Getattr):
        under = _chain(node.node)
        return None if under is None else (*under, node.attr)
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        under = _chain(node.node)
        return under if under is None or not isinstance(node.arg.value, str | int) else (*under, node.arg.value)
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr) and not (node.args[1:] or node.kwargs):
        under, key = _chain(node.node.node), _key_asked_for(node)
        return None if under is None or key is None else (*under, key)
    return None


def _key_asked_for(call: nodes.Call) -> str | None:
    """Give `a` of `x.get('a')`, with or without what stands in its place; None for any other call."""
    asks = isinstance(call.node, nodes.Getattr) and call.node.attr == "get" and call.args
    key = call.args[0] if asks else None
    return key.value if isinstance(key, nodes.Const) and isinstance(key.value, str) else None

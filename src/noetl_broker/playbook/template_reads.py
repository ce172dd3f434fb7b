"""What a template reads, as paths: `a.b['c'][0]` and `a.b.get('c')[0]` are the path (a, b, c, 0)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache

from jinja2 import TemplateSyntaxError, nodes

from noetl_broker.playbook.keywords import SCOPE_WORDS
from noetl_broker.template import JSON, OLD_WORKLOAD_WORD, WORKLOAD_WORDS, Path
from noetl_broker.template.engine import parse

CACHED_SOURCES = 8_192
EXISTENCE_TESTS = frozenset({"defined", "undefined"})  # they do not read the value
ARGS = "args"
WORDS_FOR_WORKLOAD = (*WORKLOAD_WORDS, OLD_WORKLOAD_WORD)


@lru_cache(maxsize=CACHED_SOURCES)
def reads_of(source: str) -> frozenset[Path]:
    """Give the paths that a template reads, with those of its own variables; none if it does not parse.

    A condition may have no braces.
    """
    tree = _parsed(source)
    return frozenset() if tree is None else frozenset(_read(tree))


@lru_cache(maxsize=CACHED_SOURCES)
def required_names(source: str) -> frozenset[str]:
    """Give the names without which a template always fails: it reads them, and neither tests nor defaults them."""
    tree = _parsed(source)
    if tree is None:
        return frozenset()
    tests = [node for node in tree.find_all(nodes.Expr) if isinstance(node, nodes.Test | nodes.Filter)]
    optional = {path[0] for node in tests for path in _paths_tested(node)}
    return frozenset(str(path[0]) for path in _always_read(tree)) - {str(name) for name in optional}


def first_overlapping(source: str, paths: Iterable[Path]) -> Path | None:
    """Give the first of these paths that contains, or lies inside, a path that the template reads."""
    reads = reads_of(source)
    return next((path for path in paths if any(overlap(read, path) for read in reads)), None)


def overlap(read: Path, path: Path) -> bool:
    """Whether one of two paths begins with the other."""
    return all(one == other for one, other in zip(read, path, strict=False))


def workload_paths(paths: Iterable[Path], hidden: Collection[str]) -> frozenset[Path]:
    """Give paths in the workload as templates read them: under `workload` and its aliases, and by key.

    `hidden` are names with another meaning: inputs, the element of an iterator.
    """
    paths = tuple(paths)
    words = [word for word in WORDS_FOR_WORKLOAD if word not in hidden]
    named = frozenset(path for path in paths if path[0] not in hidden and path[0] not in SCOPE_WORDS)
    return named | {(word, *path) for path in paths for word in words}


def word_of_inputs(action: Mapping[str, JSON]) -> str:
    """Give the key of the inputs in a job: `args`, or `data` where `args` is a container's list."""
    return "data" if isinstance(action.get(ARGS), list) else ARGS


def at_path(value: JSON, path: Path) -> JSON:
    """Give the value at a path; None if there is none."""
    try:
        for part in path:
            value = value[part]
    except (LookupError, TypeError):
        return None
    return value


def with_value(value: JSON, path: Path, part: JSON) -> JSON:
    """Give a copy of a JSON value with another part at an existing path."""
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
        except (TemplateSyntaxError, ValueError, RecursionError):  # reported elsewhere
            continue
    return None


def _read(node: nodes.Node) -> Iterator[Path]:
    if isinstance(node, nodes.Test) and node.name in EXISTENCE_TESTS and _chain(node.node) is not None:
        return
    chain = _chain(node)
    if chain is not None:
        yield chain
        return
    called = _chain(node.node) if isinstance(node, nodes.Call) else None
    if isinstance(node, nodes.Call) and called is not None and len(called) > 1:
        key = _key_asked_for(node)
        # any other method reads the whole value
        yield called[:-1] if key is None else (*called[:-1], key)
        children: Iterable[nodes.Node] = (*node.args, *node.kwargs)
    else:
        children = node.iter_child_nodes()
    for child in children:
        yield from _read(child)


def _always_read(node: nodes.Node) -> Iterator[Path]:
    """Give the paths that are read whatever the values are: no branches of a choice."""
    chain = _chain(node)
    if chain is not None:
        yield chain
    elif isinstance(node, nodes.CondExpr | nodes.If):
        yield from _always_read(node.test)
    elif isinstance(node, nodes.And | nodes.Or):
        yield from _always_read(node.left)
    elif isinstance(node, nodes.For):
        yield from _always_read(node.iter)
    else:
        for child in node.iter_child_nodes():
            yield from _always_read(child)


def _paths_tested(node: nodes.Test | nodes.Filter) -> Iterator[Path]:
    """Give the paths whose existence is tested, or that have a default."""
    if node.name in EXISTENCE_TESTS or node.name in ("default", "d"):
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
    """Give `a` of `x.get('a')`, with or without a default; None for any other call."""
    has_key = isinstance(call.node, nodes.Getattr) and call.node.attr == "get" and call.args
    key = call.args[0] if has_key else None
    return key.value if isinstance(key, nodes.Const) and isinstance(key.value, str) else None

"""The reads of a template as paths: `a.b['c'][0]` and `a.b.get('c')[0]` are the path (a, b, c, 0)."""

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
    """Give the paths that a template reads, also of its own variables; none if it does not parse.

    A condition may have no braces.
    """
    tree = _parsed(source)
    return frozenset() if tree is None else frozenset(_read(tree))


@lru_cache(maxsize=CACHED_SOURCES)
def required_names(source: str) -> frozenset[str]:
    """Give the names without which a template always fails: it reads them without a test or a default."""
    tree = _parsed(source)
    if tree is None:
        return frozenset()
    tests = [node for node in tree.find_all(nodes.Expr) if isinstance(node, nodes.Test | nodes.Filter)]
    optional = {path[0] for node in tests for path in _paths_tested(node)}
    return frozenset(str(path[0]) for path in _always_read(tree)) - {str(name) for name in optional}


def workload_key_read(source: str, keys: Collection[str], hidden: Collection[str]) -> str | None:
    """Give one of these keys of the workload that a template reads, by its name or under `workload`.

    The aliases of `workload` count, too. `hidden` are names with another meaning: inputs, the element of an iterator.
    """
    for read in reads_of(source) if keys else ():
        if read[0] not in hidden and (read[0] in WORDS_FOR_WORKLOAD or read[0] not in SCOPE_WORDS):
            found = _key_read(read, keys, WORDS_FOR_WORKLOAD)
            if found is not None:
                return found
    return None


def input_read(source: str, names: Collection[str], hidden: Collection[str]) -> str | None:
    """Give one of these inputs that a template reads, by its name or under `args`; `hidden` as above."""
    for read in reads_of(source) if names else ():
        found = _key_read(read, names, (ARGS,)) if read[0] not in hidden else None
        if found is not None:
            return found
    return None


def _key_read(read: Path, keys: Collection[str], words: Collection[str]) -> str | None:
    """Give the key that a path reads; of a path that is one of `words` alone, and so reads all keys, the first."""
    if read[0] not in words:
        return str(read[0]) if read[0] in keys else None
    if len(read) == 1:
        return min(keys)
    return str(read[1]) if read[1] in keys else None


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

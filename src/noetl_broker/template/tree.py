"""JSON values whose strings may be templates: fields, inputs, results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from noetl_broker.template.allowance import MAX_SOURCE_CHARS
from noetl_broker.template.budget import Evaluation
from noetl_broker.template.compiled import cached, names_of, results_of
from noetl_broker.template.errors import TemplateError
from noetl_broker.template.render import Template, compile_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from noetl_broker.template.scope import JSON, Scope

NO_NAMES: Final[frozenset[str]] = frozenset()

Path = tuple[str | int, ...]  # where a string stands in a JSON value: keys of mappings, places in lists
Leave = Callable[[Template], object]  # gives a true value for a template that stays as it is


class _Mapping(NamedTuple):
    """A mapping with a template somewhere below."""

    entries: dict[str, Any]


class _List(NamedTuple):
    """A list with a template somewhere below."""

    items: list[Any]


@dataclass(slots=True, kw_only=True)
class _Reading:
    """What the strings of a tree read, collected while it is compiled."""

    worker_words: frozenset[str]
    reads_deferred: Callable[[str], object] | None
    max_source_chars: int | None
    before: Callable[[str], object] | None
    names: set[str] = field(default_factory=set)
    worker_names: set[str] = field(default_factory=set)
    results: set[str] | None = field(default_factory=set)
    worker_results: set[str] | None = field(default_factory=set)
    templates: int = 0
    deferred: list[Path] = field(default_factory=list)


class Tree:
    """A JSON value whose strings may be templates, at one place of a playbook.

    `names` and `results` are what the broker's templates read, as in `Template`; `templates` is their number.
    `deferred` are the paths of deferred strings, which the worker renders; `worker_names` and `worker_results` are what
    they read, without the worker's own words. `constant`: it has no template at all.
    """

    __slots__ = (
        "_root",
        "at",
        "constant",
        "deferred",
        "names",
        "results",
        "templates",
        "worker_names",
        "worker_results",
    )

    def __init__(self, at: str, root: Any, reading: _Reading) -> None:
        """Take what `compile_tree` made."""
        self.at = at
        self._root = root
        self.templates = reading.templates
        self.deferred: tuple[Path, ...] = tuple(reading.deferred)
        self.constant = not reading.templates and not self.deferred
        self.names = frozenset(reading.names)
        self.results = _frozen(reading.results)
        self.worker_names = frozenset(reading.worker_names)
        self.worker_results = _frozen(reading.worker_results)

    @property
    def fixed(self) -> JSON:
        """The value of a constant tree, shared."""
        return self._root

    def render(self, scope: Scope, leave: Leave | None = None) -> JSON:
        """Give the value with its templates evaluated, within the steps of one evaluation.

        Parts without a template of the broker are shared, not copied. Templates stay as they are if `leave` gives a
        true value for them. Raises TemplateError with the place of the string; `NotLoaded` passes through.
        """
        if not self.templates:
            return self._root
        run = Evaluation(scope)
        try:
            return _rendered_except(self._root, run, leave) if leave else _rendered(self._root, run)
        finally:
            run.close()

    def evaluate(self, scope: Scope) -> JSON:
        """As `render`, for a value that is read but not written."""
        return self._root.evaluate(scope) if isinstance(self._root, Template) else self.render(scope)

    def broker_templates(self) -> Iterator[Template]:
        """Give the templates that the broker renders."""
        return (template for _, template in _templates(self._root, ()))

    def templates_by_path(self) -> Iterator[tuple[Path, Template]]:
        """Give the templates that the broker renders, with their paths."""
        return _templates(self._root, ())

    def deferred_texts(self) -> Iterator[tuple[Path, str]]:
        """Give the deferred strings with their paths."""
        for path in self.deferred:
            node = self._root
            for part in path:
                parts: Any = node[0] if isinstance(node, _Mapping | _List) else node
                node = parts[part]
            yield path, node

    @property
    def source(self) -> str:
        """The text of a tree that is one template, else its place."""
        return self._root.source if isinstance(self._root, Template) else self.at

    def __repr__(self) -> str:
        """Show the place."""
        return f"Tree(at={self.at!r})"


def compile_tree(
    value: JSON,
    at: str,
    *,
    worker_words: frozenset[str] = NO_NAMES,
    reads_deferred: Callable[[str], object] | None = None,
    max_source_chars: int | None = MAX_SOURCE_CHARS,
    before: Callable[[str], object] | None = None,
) -> Tree:
    """Compile a JSON value.

    A string is deferred if it reads a word of the worker, or if `reads_deferred` says so.
    Keys of mappings are never templates. `before` is called with each string first, and may raise. Raises TemplateError
    with the place of the string.
    """
    reading = _Reading(
        worker_words=worker_words, reads_deferred=reads_deferred, max_source_chars=max_source_chars, before=before
    )
    return Tree(at, _compiled(value, at, (), reading), reading)


def _frozen(results: set[str] | None) -> frozenset[str] | None:
    return None if results is None else frozenset(results)


def _united(results: set[str] | None, more: frozenset[str] | None) -> set[str] | None:
    return None if results is None or more is None else results | more


def _compiled(value: JSON, at: str, path: Path, reading: _Reading) -> Any:
    if type(value) is str:
        return _compiled_text(value, at, path, reading)
    if type(value) is dict:
        entries = {key: _compiled(child, f"{at}.{key}", (*path, key), reading) for key, child in value.items()}
        return value if _same(entries.values(), value.values()) else _Mapping(entries)
    if type(value) is list:
        items = [_compiled(child, f"{at}[{index}]", (*path, index), reading) for index, child in enumerate(value)]
        return value if _same(items, value) else _List(items)
    return value


def _same(compiled: Any, values: Any) -> bool:
    return all(one is other for one, other in zip(compiled, values, strict=True))


def _compiled_text(source: str, at: str, path: Path, reading: _Reading) -> Any:
    if reading.before is not None:
        reading.before(source)
    try:
        template = compile_text(source, at, max_source_chars=reading.max_source_chars)
    except TemplateError as fault:
        # A worker may know more filters than the broker: the names decide whether the string is deferred.
        names, results = _read_by(source, fault)
        if not names & reading.worker_words:
            raise
    else:
        if template.constant:
            return source
        names, results = template.names, template.results
        reads_deferred = reading.reads_deferred is not None and reading.reads_deferred(source)
        if not reads_deferred and not names & reading.worker_words:
            reading.templates += 1
            reading.names |= names
            reading.results = _united(reading.results, results)
            return template
    reading.deferred.append(path)
    reading.worker_names |= names - reading.worker_words
    reading.worker_results = _united(reading.worker_results, results)
    return source


@cached
def read_by_text(source: str) -> tuple[frozenset[str], frozenset[str] | None]:
    """Give what a deferred string reads: its names, and the steps named through `results` (None: unknown).

    Raises TemplateError if it is not a template.
    """
    try:
        template = compile_text(source, "", max_source_chars=None)
    except TemplateError as fault:
        return _read_by(source, fault)
    return template.names, template.results


def _read_by(source: str, fault: TemplateError) -> tuple[frozenset[str], frozenset[str] | None]:
    return names_of(source, fault), results_of(source)


def _rendered(node: Any, run: Evaluation) -> JSON:
    kind = type(node)
    if kind is Template:
        return node.run_and_count(run)
    if kind is _Mapping:
        return {key: _rendered(child, run) for key, child in node.entries.items()}
    if kind is _List:
        return [_rendered(child, run) for child in node.items]
    return node


def _rendered_except(node: Any, run: Evaluation, leave: Leave) -> JSON:
    kind = type(node)
    if kind is Template:
        return node.source if leave(node) else node.run_and_count(run)
    if kind is _Mapping:
        return {key: _rendered_except(child, run, leave) for key, child in node.entries.items()}
    if kind is _List:
        return [_rendered_except(child, run, leave) for child in node.items]
    return node


def _templates(node: Any, path: Path) -> Iterator[tuple[Path, Template]]:
    kind = type(node)
    if kind is Template:
        yield path, node
    elif kind is _Mapping:
        for key, child in node.entries.items():
            yield from _templates(child, (*path, key))
    elif kind is _List:
        for index, child in enumerate(node.items):
            yield from _templates(child, (*path, index))

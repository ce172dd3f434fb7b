"""The state that all readers of a document share: the report, known names, compiled templates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from noetl_broker.playbook.diagnostics import Location, PlaybookRules, Report, path_text
from noetl_broker.playbook.fields import union_of_results
from noetl_broker.playbook.model import Arc
from noetl_broker.playbook.template_reads import input_read, workload_key_read
from noetl_broker.playbook.work_budget import Work, weight_of
from noetl_broker.template import (
    WORKER_WORDS,
    Template,
    TemplateError,
    Tree,
    compile_condition,
    compile_tree,
    read_by_text,
)

Role = Literal["workload", "inputs", "fields", "next", "retry", "catch", "result", "iteration", "compensate"]
NO_NAMES: frozenset[str] = frozenset()
QUOTED_CHARS = 60  # of a template in a message
COST_OF_CHAR = 2  # units of work: one character of a template
COST_OF_COPY = 4  # units of work: one comparison, or one entry of a copy
COST_OF_ACTION = 20  # units of work: one value of a workbook action, for each step that calls it


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateSite:
    """The site of a template: its step and role, the further `names` that it finds, its worker-side words.

    Without worker-side words the broker renders it, or an error says why not. `deferred` are inputs that it may read.
    """

    step: str | None
    role: Role
    names: frozenset[str] = NO_NAMES
    worker: frozenset[str] = NO_NAMES
    deferred: frozenset[str] = NO_NAMES


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """A compiled template or tree, kept for checks that need the whole playbook."""

    location: Location
    value: Any
    part: TemplateSite
    names: frozenset[str]  # all that it names, deferred strings too
    results: frozenset[str] | None  # steps that it reads through `results`; None: not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """The code of a python step, kept for checks that need the whole playbook.

    `is_plain`: it stands in the document as it is. `is_nested`: it belongs to an iterator's `task`. `libs` are names
    that the worker imports for it.
    """

    step: str
    location: Location
    text: str
    is_plain: bool
    is_nested: bool
    libs: frozenset[str]


class CallOfPath(NamedTuple):
    """A step that calls a playbook: the path and the version as written."""

    location: Location
    path: str
    version: Any


class WrittenBlock(NamedTuple):
    """The steps of a block as written, and their location; its limit on executions, and its location."""

    workflow: list[Any]
    location: Location
    concurrency: Any
    limit_location: Location


@dataclass(slots=True, kw_only=True)
class Reading:
    """The state of reading one document."""

    report: Report
    rules: PlaybookRules
    work: Work  # that may still be done
    path: str = "?"  # of the playbook, or of the block
    location: Location = ()  # of the steps of a block
    steps: Mapping[str, int] = field(default_factory=dict)  # a step's index in the workflow
    actions: Mapping[str, tuple[dict[str, Any], Location]] = field(default_factory=dict)  # of the workbook
    arcs: list[Arc] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    programs: list[Program] = field(default_factory=list)
    calls: list[CallOfPath] = field(default_factory=list)
    limits: dict[Location, str] = field(default_factory=dict)  # that do not count per bucket, and their keys
    blocks: dict[str, WrittenBlock] = field(default_factory=dict)  # by the step that has it
    deferred_keys: frozenset[str] = NO_NAMES  # of the workload: their defaults have a deferred string
    broken: bool = False  # an arc could not be read, so the graph is incomplete
    templates: set[str] = field(default_factory=set)  # different texts so far
    paid: set[str] = field(default_factory=set)  # strings whose reading is charged
    weights: dict[str, int] = field(default_factory=dict)  # of the workbook's actions

    def of_block(self, path: str, location: Location) -> Reading:
        """Give the reading of a block in the same document: its steps are its own, limits and actions are shared."""
        return Reading(
            report=self.report,
            rules=self.rules,
            work=self.work,
            path=path,
            location=location,
            actions=self.actions,
            calls=self.calls,
            limits=self.limits,
            templates=self.templates,
            paid=self.paid,
            weights=self.weights,
        )

    @property
    def worker_words(self) -> frozenset[str]:
        """The worker-side words of steps; a word that is a step's name means that step."""
        return WORKER_WORDS.difference(self.steps)

    def charge_action(self, name: str) -> None:
        """Charge the work of reading a workbook action for one more step that calls it."""
        if name not in self.weights:
            self.weights[name] = COST_OF_ACTION * weight_of(self.actions[name][0])
        self.work.spend(self.weights[name])

    def tree(self, value: Any, location: Location, part: TemplateSite) -> Tree:
        """Compile a value whose strings may be templates; report an error for each bad string."""
        at = path_text(location)
        if self._are_too_many((text for _, text in strings(value, location)), location):
            return compile_tree(None, at)
        try:
            tree = compile_tree(
                value,
                at,
                worker_words=part.worker,
                reads_deferred=self._reads_deferred(part),
                max_source_chars=self.rules.template_max_source_chars,
                before=self._charge,
            )
        except TemplateError as error:
            for where, what in [*self._bad_strings(value, location, part)] or [(location, error)]:
                message = f"the template `{shortened(what.template)}` does not compile: {what.message}"
                self.report.error("bad-template", where, message, "write text with {{ expression }} in it")
            return compile_tree(None, at)
        if not tree.constant:
            names, results = tree.names | tree.worker_names, union_of_results((tree.results, tree.worker_results))
            self.uses.append(Use(location=location, value=value, part=part, names=names, results=results))
        return tree

    def is_deferred(self, text: str, part: TemplateSite) -> bool:
        """Whether a template that compiles is left for the worker."""
        reads_deferred = self._reads_deferred(part)
        return not part.worker.isdisjoint(read_by_text(text)[0]) or bool(reads_deferred and reads_deferred(text))

    def _reads_deferred(self, part: TemplateSite) -> Callable[[str], object] | None:
        """Give a test whether a string for a worker reads a deferred input or workload key; None if none can."""
        keys = self.deferred_keys if part.worker else NO_NAMES
        if not (keys or part.deferred):
            return None
        return lambda source: workload_key_read(source, keys, part.names) or input_read(source, part.deferred, NO_NAMES)

    def condition(self, value: Any, location: Location, part: TemplateSite, code: str = "bad-when") -> Template | None:
        """Compile a condition; report an error and give None if it is not one expression."""
        if self._are_too_many((str(value),), location):
            return None
        self._charge(str(value))
        try:
            template = compile_condition(
                value,
                path_text(location),
                worker_words=self.worker_words,
                max_source_chars=self.rules.template_max_source_chars,
            )
        except TemplateError as error:
            word = location[-1]
            self.report.error(code, location, f"bad `{word}`: {error.message}", f'write {word}: "{{{{ expression }}}}"')
            return None
        self.uses.append(Use(location=location, value=value, part=part, names=template.names, results=template.results))
        return template

    def _charge(self, text: str) -> None:
        """Charge the work of reading a string; a string that was read before is cached."""
        self.work.spend(1 if text in self.paid else 1 + COST_OF_CHAR * len(text))
        self.paid.add(text)

    def _are_too_many(self, more: Iterable[str], location: Location) -> bool:
        """Count different templates; past the limit report the first location, and compile no more."""
        most = self.rules.max_templates
        within = len(self.templates) <= most
        self.templates.update(more)
        if within and len(self.templates) > most:
            hint = "split it into several playbooks, or use an iterator"
            self.report.error(
                "too-many-templates", location, f"the playbook has more than {most:,} different templates", hint
            )
        return len(self.templates) > most

    def _bad_strings(
        self, value: Any, location: Location, part: TemplateSite
    ) -> Iterator[tuple[Location, TemplateError]]:
        for where, text in strings(value, location):
            if self.report.is_full("error"):
                return
            self.work.spend(COST_OF_CHAR * len(text))
            try:
                compile_tree(
                    text,
                    path_text(where),
                    worker_words=part.worker,
                    max_source_chars=self.rules.template_max_source_chars,
                )
            except TemplateError as error:
                yield where, error


def strings(value: Any, location: Location) -> Iterator[tuple[Location, str]]:
    """Give each string of a value that may be a template, with its location."""
    if isinstance(value, str):
        if "{{" in value or "{%" in value or "{#" in value:
            yield location, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from strings(item, (*location, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from strings(item, (*location, index))


def templates_of(use: Use) -> list[tuple[Location, str]]:
    """Give the templates of a use with their locations; a condition may have no braces, or be a number."""
    found = [*strings(use.value, use.location)]
    if not found and isinstance(use.value, str):
        return [(use.location, f"{{{{ {use.value} }}}}")]
    return found


def shortened(template: object) -> str:
    """Give a template on one line, cut where it is long."""
    text = " ".join(str(template).split())
    return f"{text[:QUOTED_CHARS]}…" if len(text) > QUOTED_CHARS else text

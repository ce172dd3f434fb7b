"""What every reader of a part of the document shares: the report, the names that exist, and compiled templates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from noetl_broker.playbook.fields import union_of_results
from noetl_broker.playbook.findings import Place, Report, Rules, path_text
from noetl_broker.playbook.model import Arc
from noetl_broker.playbook.work import Work, weight_of
from noetl_broker.template import WORKER_WORDS, Template, TemplateError, Tree, compile_condition, compile_tree

Role = Literal["workload", "inputs", "fields", "next", "retry", "result", "iteration"]
NO_NAMES: frozenset[str] = frozenset()
QUOTED = 60  # characters of a template that a message repeats
PARSED = 2  # units of work for a character of a template
MADE = 4  # units of work for one of two lists that are held against each other, or for an entry of a copy
READ_AGAIN = 20  # units of work, and a kilobyte, for each value of an action that one more step calls


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Whose template it is: what it finds beside the common names, and which words it leaves to the worker."""

    step: str | None
    role: Role
    names: frozenset[str] = NO_NAMES
    worker: frozenset[str] = NO_NAMES


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """A compiled template or tree, kept for the warnings about names."""

    place: Place
    value: Any
    part: Part
    names: frozenset[str]  # all it names, whoever renders it
    results: frozenset[str] | None  # what it reads of `results`; None: not known


@dataclass(slots=True, kw_only=True)
class Reading:
    """The state of reading one document."""

    report: Report
    rules: Rules
    work: Work  # that may still be done
    steps: Mapping[str, int] = field(default_factory=dict)  # a step's place in the workflow
    actions: Mapping[str, tuple[dict[str, Any], Place]] = field(default_factory=dict)  # of the workbook
    arcs: list[Arc] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    broken: bool = False  # an arc could not be read, so the graph is not the author's
    templates: set[str] = field(default_factory=set)  # the texts read so far
    paid: set[str] = field(default_factory=set)  # the strings whose reading was counted
    weights: dict[str, int] = field(default_factory=dict)  # of the workbook's actions

    @property
    def worker_words(self) -> frozenset[str]:
        """The words that are the worker's in a step: one that a step is called means that step."""
        return WORKER_WORDS.difference(self.steps)

    def pay_for_action(self, name: str) -> None:
        """Count the work of reading an action of the workbook once more, for one more step that calls it."""
        if name not in self.weights:
            self.weights[name] = READ_AGAIN * weight_of(self.actions[name][0])
        self.work.spend(self.weights[name])

    def tree(self, value: Any, place: Place, part: Part) -> Tree:
        """Compile a value whose strings may be templates; an error is reported for each bad string."""
        at = path_text(place)
        if self._are_too_many((text for _, text in strings(value, place)), place):
            return compile_tree(None, at)
        try:
            tree = compile_tree(
                value,
                at,
                worker_words=part.worker,
                max_source_chars=self.rules.template_max_source_chars,
                before=self._pay_for,
            )
        except TemplateError as error:
            for where, what in [*self._bad_strings(value, place, part)] or [(place, error)]:
                message = f"the template `{shortened(what.template)}` does not compile: {what.message}"
                self.report.error("bad-template", where, message, "write text with {{ expression }} in it")
            return compile_tree(None, at)
        if not tree.constant:
            names, results = tree.names | tree.worker_names, union_of_results((tree.results, tree.worker_results))
            self.uses.append(Use(place=place, value=value, part=part, names=names, results=results))
        return tree

    def condition(self, value: Any, place: Place, part: Part, code: str = "bad-when") -> Template | None:
        """Compile a condition; None, and an error in the report, if it is not one expression."""
        if self._are_too_many((str(value),), place):
            return None
        self._pay_for(str(value))
        try:
            template = compile_condition(
                value,
                path_text(place),
                worker_words=self.worker_words,
                max_source_chars=self.rules.template_max_source_chars,
            )
        except TemplateError as error:
            word = place[-1]
            self.report.error(code, place, f"bad `{word}`: {error.message}", f'write {word}: "{{{{ expression }}}}"')
            return None
        self.uses.append(Use(place=place, value=value, part=part, names=template.names, results=template.results))
        return template

    def _pay_for(self, text: str) -> None:
        """Count the work of reading a string; one that was read before is remembered."""
        self.work.spend(1 if text in self.paid else 1 + PARSED * len(text))
        self.paid.add(text)

    def _are_too_many(self, more: Iterable[str], place: Place) -> bool:
        """Count templates that differ; past the bound nothing more is compiled, and the first place is reported."""
        most = self.rules.max_templates
        within = len(self.templates) <= most
        self.templates.update(more)
        if within and len(self.templates) > most:
            hint = "make several playbooks of it, or one that iterates"
            self.report.error("too-many-templates", place, f"it has more than {most:,} different templates", hint)
        return len(self.templates) > most

    def _bad_strings(self, value: Any, place: Place, part: Part) -> Iterator[tuple[Place, TemplateError]]:
        for where, text in strings(value, place):
            if self.report.is_full("error"):
                return
            self.work.spend(PARSED * len(text))
            try:
                compile_tree(
                    text,
                    path_text(where),
                    worker_words=part.worker,
                    max_source_chars=self.rules.template_max_source_chars,
                )
            except TemplateError as error:
                yield where, error


def strings(value: Any, place: Place) -> Iterator[tuple[Place, str]]:
    """Give every string of a value that could be a template, with its place."""
    if isinstance(value, str):
        if "{{" in value or "{%" in value or "{#" in value:
            yield place, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from strings(item, (*place, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from strings(item, (*place, index))


def templates_of(use: Use) -> list[tuple[Place, str]]:
    """Give the templates of a use with their places; a condition may stand without braces, or be a number."""
    found = [*strings(use.value, use.place)]
    if not found and isinstance(use.value, str):
        return [(use.place, f"{{{{ {use.value} }}}}")]
    return found


def shortened(template: object) -> str:
    """Give a template on one line, cut where it is long."""
    text = " ".join(str(template).split())
    return f"{text[:QUOTED]}…" if len(text) > QUOTED else text

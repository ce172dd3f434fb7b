"""Refuses what reads a text that only a worker can finish: to the broker it would pass for the value.

A string of a step's inputs that names a worker-side word (`env`, `secret`, …) travels to the worker as a template, and
so does one that reads such a default of the workload. A transition may hand it on as it is. What the broker itself
evaluates (conditions, the result of `end`, what a child is given) would get its text: an error where it is certain, a
warning where the text is a default, which a payload may replace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from noetl_broker.playbook.findings import Place, path_text
from noetl_broker.playbook.given import Given, Names, arriving_inputs, given_to_steps
from noetl_broker.playbook.model import NO_INPUTS, Inputs, Playbook, Step
from noetl_broker.playbook.reading import MADE, NO_NAMES, Reading, Use, shortened, strings, templates_of
from noetl_broker.playbook.reads import ARGS, defaults_read, first_met, handed_on, input_paths, travels
from noetl_broker.playbook.work import Work
from noetl_broker.template import WORKER_WORDS, Path, Tree, read_by_text

RETURN_IT = "let an action return what is needed here, and read its result"
UNLESS = "which only a worker can finish: unless the payload brings another, the step fails"


class Text(NamedTuple):
    """A text that only a worker can finish: its source, where it stands, and the default that it reads, if one.

    `closed` are the names whose values travel in it.
    """

    source: str
    at: str
    default: str | None = None
    closed: frozenset[str] = NO_NAMES


Texts = Mapping[Path, Text]  # by the path under which templates read it, or by its path in a step's inputs


def refuse_unfinished(reading: Reading, playbook: Playbook) -> None:
    """Report each template of the broker that reads a text which is still a template for the worker."""
    given = given_to_steps(playbook)
    arriving = arriving_inputs(playbook)
    texts = {name: _texts_of(reading.work, playbook, given, name, arriving.get(name, ())) for name in playbook.steps}
    for use in reading.uses:
        if use.part.step is None:
            continue
        step, own = playbook.steps[use.part.step], given[use.part.step]
        if _is_evaluated(use, step) or (use.part.role == "inputs" and not use.part.worker):
            _refuse_words(reading, playbook, use, own.seen_by(use))
        if _is_evaluated(use, step):
            _refuse_reads(reading, playbook, use, texts[step.name], own.seen_by(use))
        elif use.part.role == "next":
            _refuse_changes(reading, playbook, use, texts[step.name], own.names)
    places = {path_text(place): place for use in reading.uses for place, _ in strings(use.value, use.place)}
    for name, step in playbook.steps.items():
        if _calls(step):
            _refuse_payload(reading, name, texts[name], places)


def _is_evaluated(use: Use, step: Step) -> bool:
    """Whether the broker evaluates it; the `save` of `end` only where nothing else is the result."""
    role, worker = use.part.role, bool(use.part.worker)
    if role == "result":
        return path_text(use.place) == step.result.at if step.result is not None else step.kind == "control"
    if role == "iteration":
        return step.iteration is not None and step.iteration.expanded
    return role in ("next", "retry", "fields") and not worker


def _calls(step: Step) -> bool:
    """Whether its inputs are the payload of another execution."""
    return step.call is not None or (step.iteration is not None and step.iteration.task.call is not None)


def _texts_of(
    work: Work, playbook: Playbook, given: Mapping[str, Given], name: str, arriving: Iterable[tuple[str, Inputs]]
) -> Texts:
    """Give the inputs that may still be such texts; an own input counts unless every transition overrides it."""
    step, found = playbook.steps[name], dict[Path, Text]()
    everywhere: frozenset[str] | None = None
    for source, inputs in arriving:
        left = given[source].names
        closed = NO_NAMES if left is None else left | {ARGS}
        level = _level(inputs, Readable(work, playbook, {}, left))
        work.spend(len(found) + len(inputs.keys))
        found |= {path: text._replace(closed=closed) for path, text in level.items()}
        names = frozenset(inputs.keys)
        everywhere = names if everywhere is None else everywhere & names
    task = step.iteration.task.inputs if step.iteration is not None else NO_INPUTS
    for inputs in (step.inputs, task):
        own = _level(inputs, Readable(work, playbook, found, given[name].arriving))
        found |= {path: text for path, text in own.items() if path[0] not in (everywhere or NO_NAMES)}
    return found


def _level(inputs: Inputs, readable: Readable) -> dict[Path, Text]:
    """Give such texts of one level of inputs, by their paths in it."""
    found = {} if inputs.base is None else _level(inputs.base, readable)
    if inputs.whole is not None:
        path = handed_on(inputs.whole.source)
        for read, inside in readable.by(inputs.whole.source) if path else ():
            if path and len(read) > len(path) and read[: len(path)] == path:
                found[read[len(path) :]] = inside._replace(at=inputs.whole.at)
    named = {path[0] for path in found}
    for key, tree in inputs.keys.items():
        readable.work.spend(1 + len(found) * (key in named))
        if key in named:
            found = {path: text for path, text in found.items() if path[0] != key}
        for path, source in tree.left_texts():
            found[key, *path] = Text(source, _at(tree, path))
        for path, template in tree.leaving(lambda template: any(readable.by(template.source))):
            _, text = next(readable.by(template.source))
            found[key, *path] = Text(template.source, _at(tree, path), text.default)
    return found


class Readable(NamedTuple):
    """Such texts as templates read them that find inputs of these names (None: not known)."""

    work: Work  # that may still be done
    playbook: Playbook
    inputs: Texts  # by their paths in the inputs
    names: Names

    def by(self, source: str) -> Iterator[tuple[Path, Text]]:
        """Give those that a template reads, as it names them; the certain ones, of inputs, first."""
        yield from sorted(self._inputs_by(source), key=lambda pair: pair[1].default is not None)
        yield from self.defaults_by(source)

    def defaults_by(self, source: str) -> Iterator[tuple[Path, Text]]:
        """Give the defaults of the workload among them."""
        defaults = self.playbook.unfinished
        self.work.spend(MADE * len(defaults))
        for read, path in defaults_read(source, tuple(defaults)) if defaults else ():
            bare = read == path
            hidden = bare if self.names is None else read[0] in self.names
            if not hidden:
                named = path_text(("workload", *path))
                yield read, Text(defaults[path], named, named)

    def _inputs_by(self, source: str) -> Iterator[tuple[Path, Text]]:
        self.work.spend(MADE * len(self.inputs))
        for path, text in self.inputs.items():
            read = first_met(source, input_paths((path,), self.names or ()))
            if read is not None:
                yield read, text


def _at(tree: Tree, path: Path) -> str:
    return tree.at + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)


def _refuse_words(reading: Reading, playbook: Playbook, use: Use, names: Names) -> None:
    """Report a word of the workers where the broker evaluates; in a condition it is an error of its own."""
    known = playbook.steps.keys() | playbook.workload.keys() | use.part.names
    if names is None or use.part.role == "workload":
        return
    for place, source in templates_of(use) if use.names & WORKER_WORDS else ():
        for name in sorted((read_by_text(source)[0] & WORKER_WORDS) - known - names):
            message = f"the template names `{name}`, which only a worker knows, and the broker evaluates it"
            reading.report.error("worker-word", place, message, RETURN_IT)


def _refuse_reads(reading: Reading, playbook: Playbook, use: Use, found: Texts, names: Names) -> None:
    """Report what the broker evaluates with such a text."""
    seen = None if names is None else names | use.part.names
    words = use.part.names if use.part.role in ("retry", "iteration") else NO_NAMES  # these hide inputs
    for place, source in templates_of(use):
        reading.work.spend(MADE * len(found))
        for path, text in found.items():
            paths = input_paths((path,), seen or ())
            if first_met(source, (path for path in paths if path[0] not in words)):
                _report(reading, use, place, source, f"the input `{path_text(path)}`", text, RETURN_IT)
        for text in dict.fromkeys(text for _, text in Readable(reading.work, playbook, {}, seen).defaults_by(source)):
            _report(reading, use, place, source, "", text, RETURN_IT)


def _refuse_changes(reading: Reading, playbook: Playbook, use: Use, found: Texts, names: Names) -> None:
    """Report an input of a transition that makes something of such a text; one that hands it on is finished later."""
    remedy = "write that template here, for the next worker, or let an action return the value and read its result"
    for place, source in templates_of(use):
        reading.work.spend(MADE * len(found))
        for path, text in found.items():
            met = first_met(source, input_paths((path,), names or ()))
            lasting = handed_on(source) and travels(text.source, playbook, names or (), closed=text.closed)
            if met and not lasting:
                _report(reading, use, place, source, f"the input `{path_text(path)}`", text, remedy)


def _refuse_payload(reading: Reading, name: str, found: Texts, places: Mapping[str, Place]) -> None:
    """Report what a child would take for data."""
    for path, text in found.items():
        place = places.get(text.at, ())
        what = f"`{shortened(text.source)}` is the input `{path_text(path)}` of the playbook that `{name}` starts"
        if text.default is None:
            message = f"{what}, and only a worker can finish it, but none runs a playbook"
            hint = "let the playbook's own steps name it, and hand on what it is called"
            reading.report.error("unfinished-input", place, message, hint)
        else:
            message = f"{what}, and reads the default `{text.default}`, {UNLESS}"
            reading.report.warning("unfinished-default", place, message, RETURN_IT)


def _report(reading: Reading, use: Use, place: Place, source: str, what: str, text: Text, remedy: str) -> None:
    shown = f"`{shortened(source)}` reads"
    if text.default is None:
        message = f"{shown} {what} of the step `{use.part.step}`, which only a worker can finish ({text.at})"
        reading.report.error("unfinished-input", place, message, remedy)
        return
    through = f"{what}, and with it " if what else ""
    message = f"{shown} {through}the default `{text.default}`, {UNLESS}"
    reading.report.warning("unfinished-default", place, message, RETURN_IT)

"""Deferred strings: templates that a worker renders, because they name what only a worker knows.

A string is deferred if it names a worker-side word (`env`, `secret`, …) or reads a deferred string of the workload. A
field of a task is also deferred if it reads a deferred input. The broker leaves it as it is. Any other template that
reads it is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from noetl_broker.playbook.diagnostics import Place, path_text
from noetl_broker.playbook.inputs import trees_of
from noetl_broker.playbook.keywords import ERROR, RETRY_WORDS, SCOPE_WORDS
from noetl_broker.playbook.model import Entry, Inputs, Iteration, Playbook, Step
from noetl_broker.playbook.reader import COST_OF_COPY, NO_NAMES, Reading, shortened, strings
from noetl_broker.playbook.scopes import PathIndex, Scopes, Seen, names_of, place_in, task_inputs
from noetl_broker.playbook.signals import SIGNAL_PART_NAMES
from noetl_broker.playbook.template_reads import ARGS, WORDS_FOR_WORKLOAD, reads_of
from noetl_broker.template import WORKER_WORDS, Path, Template, Tree

RETURN_IT = "let an action return what is needed here, and read its result"
WRITE_IT = "write that template here"
OF_CATCH = frozenset({ERROR})  # what a template of a `catch` finds beside


class Level(NamedTuple):
    """One level of inputs: of a step, of its task, or of a transition.

    The job of the step `runs` has them. `words` are those of an iterator. `lost` are names that mean another value to
    the worker. `replaced` are names of inputs that are never rendered.
    """

    inputs: Inputs
    runs: Step
    seen: Seen
    words: frozenset[str] = NO_NAMES
    lost: frozenset[str] = NO_NAMES
    replaced: frozenset[str] = NO_NAMES

    def lost_read(self, source: str) -> str | None:
        """Give one of the lost names that a template reads."""
        for read in reads_of(source):
            found = next((str(part) for part in read[: 1 + (read[0] == ARGS)] if part in self.lost), None)
            if found is not None:
                return found
        return None


def defer_defaults(workload: dict[str, Tree]) -> tuple[dict[str, Tree], dict[Path, str]]:
    """Defer each default that reads a deferred one; give all defaults, and the deferred texts by their paths."""
    texts: dict[Path, str] = {}
    defaults = PathIndex()
    found: dict[str, Tree] = {}
    for key, tree in workload.items():
        found[key] = tree.deferring(lambda source: _default_read(source, defaults, NO_NAMES)) if texts else tree
        for path, text in found[key].deferred_texts():
            texts[key, *path] = text
            defaults.add((key, *path))
    return found, texts


def defer_strings(reading: Reading, steps: dict[str, Step], texts: Mapping[Path, str]) -> dict[str, Step]:
    """Give the steps with each string deferred that reads one of these defaults or, in a field, a deferred input."""
    defaults = PathIndex(texts)
    deferring = _Deferring(reading, steps, defaults)
    if defaults:
        steps = {name: deferring.inputs_of(step) for name, step in steps.items()}
    deferring = _Deferring(reading, steps, defaults)
    return {name: deferring.fields_of(step) for name, step in steps.items()}


def refuse_reads(reading: Reading, playbook: Playbook) -> None:
    """Report each template that the broker renders and that only a worker can render."""
    _Refusing(reading, playbook).refuse()


def has_worker(step: Step) -> bool:
    """Whether a worker gets the inputs of a step, in its job or in the jobs of its items."""
    if step.iteration is not None and step.iteration.expanded:
        return step.iteration.task.call is None
    return step.kind == "action"


class _Deferring:
    """Makes strings of steps deferred."""

    def __init__(self, reading: Reading, steps: Mapping[str, Step], defaults: PathIndex) -> None:
        self._reading, self._steps, self._defaults, self._scopes = reading, steps, defaults, Scopes(reading, steps)

    def inputs_of(self, step: Step) -> Step:
        """Defer the inputs of a step, of its task and of its transitions that read a deferred default."""
        scopes = self._scopes
        if has_worker(step):
            inputs = self._deferred(step.inputs, scopes.of_inputs(step).names)
            iteration = step.iteration
            if iteration is not None and iteration.expanded:
                own = self._deferred(iteration.task.inputs, scopes.of_task_inputs(step).names | _words(iteration))
                iteration = replace(iteration, task=replace(iteration.task, inputs=own))
            step = replace(step, inputs=inputs, iteration=iteration)
        names = scopes.of_next(step).names
        return replace(
            step,
            next=tuple(self._entry(entry, names) for entry in step.next),
            catch=tuple(self._entry(entry, names | OF_CATCH) for entry in step.catch),
        )

    def fields_of(self, step: Step) -> Step:
        """Defer the fields of a step's task that read a deferred default or input."""
        seen, iteration = self._scopes.of_fields(step), step.iteration
        expanded = iteration is not None and iteration.expanded
        words = _words(iteration) if iteration is not None and expanded else NO_NAMES

        def is_deferred(source: str) -> bool:
            self._reading.work.spend(COST_OF_COPY)
            if seen.deferred_input(source) is not None:
                return True
            return _default_read(source, self._defaults, seen.names | words) is not None

        step = self._compensates_of(step, seen.names | words)
        if not has_worker(step) or not (seen.deferred or self._defaults):
            return step
        if iteration is None or not expanded:
            return replace(step, fields=step.fields.deferring(is_deferred))
        task = replace(iteration.task, fields=iteration.task.fields.deferring(is_deferred))
        return replace(step, iteration=replace(iteration, task=task))

    def _compensates_of(self, step: Step, names: frozenset[str]) -> Step:
        """Defer the fields and inputs of undo actions that read a deferred default."""
        if not self._defaults:
            return step
        if (undo := step.compensate) is not None and has_worker(undo):
            step = replace(step, compensate=self._compensate(undo, names))
        if (iteration := step.iteration) is not None and (undo := iteration.task.compensate) is not None:
            task = replace(iteration.task, compensate=self._compensate(undo, names) if has_worker(undo) else undo)
            step = replace(step, iteration=replace(iteration, task=task))
        return step

    def _compensate(self, undo: Step, names: frozenset[str]) -> Step:
        def is_deferred(source: str) -> bool:
            return _default_read(source, self._defaults, names) is not None

        return replace(undo, fields=undo.fields.deferring(is_deferred), inputs=self._deferred(undo.inputs, names))

    def _entry(self, entry: Entry, names: frozenset[str]) -> Entry:
        then, otherwise = (
            tuple(
                replace(target, inputs=self._deferred(target.inputs, names))
                if has_worker(self._steps[target.step])
                else target
                for target in targets
            )
            for targets in (entry.then, entry.otherwise)
        )
        return replace(entry, then=then, otherwise=otherwise)

    def _deferred(self, inputs: Inputs, names: frozenset[str]) -> Inputs:
        def is_deferred(source: str) -> bool:
            self._reading.work.spend(COST_OF_COPY)
            return _default_read(source, self._defaults, names) is not None

        keys = {key: tree.deferring(is_deferred) for key, tree in inputs.keys.items()}
        base = None if inputs.base is None else self._deferred(inputs.base, names)
        return replace(inputs, base=base, keys=keys)


class _Refusing:
    """Reports templates that read deferred strings where they may not."""

    def __init__(self, reading: Reading, playbook: Playbook) -> None:
        self._reading, self._playbook = reading, playbook
        self._scopes = Scopes(reading, playbook.steps)
        self._defaults = PathIndex(playbook.deferred)
        self._places: dict[str, Place] = {}

    def refuse(self) -> None:
        for step in self._playbook.steps.values():
            for part, seen, hidden in self._evaluated(step):
                for template in [part] if isinstance(part, Template) else part.broker_templates():
                    self._refuse_evaluated(step, template, seen, hidden, words=part is not template)
            for level in self._levels(step):
                self._refuse_inputs(step, level)

    def _evaluated(self, step: Step) -> Iterator[tuple[Template | Tree, Seen, frozenset[str]]]:
        """Give each template of a step that the broker evaluates, the inputs that it sees, and words that hide some."""
        after, iteration = self._scopes.of_next(step), step.iteration
        parts: list[tuple[Template | Tree | None, Seen, frozenset[str]]] = []
        parts += [(entry.condition, after, NO_NAMES) for entry in step.next]
        parts += [(entry.condition, after, OF_CATCH) for entry in step.catch]
        parts.append((step.output, after, NO_NAMES))
        if step.retry is not None:
            parts += [(one, after, RETRY_WORDS) for one in (step.retry.retry_when, step.retry.stop_when)]
        if step is self._playbook.end:
            parts.append((step.result_template, after, NO_NAMES))
        if iteration is not None and iteration.expanded:
            words = _words(iteration)
            parts += [(one, after, NO_NAMES) for one in (iteration.collection, iteration.limit, iteration.chunk)]
            parts += [(one, after, words) for one in (iteration.where, iteration.order_by)]
            parts += self._of_items(step, iteration)
        if (call := step.call) is not None:
            parts += [(one, after, NO_NAMES) for one in (call.path, call.version, call.return_step)]
        parts += [(one, after, NO_NAMES) for one in _waited_for(step)]
        if step.wait is not None:
            parts.append((step.wait.when, after, SIGNAL_PART_NAMES))
        for part, seen, words in parts:
            if part is not None:
                yield part, seen, words

    def _of_items(
        self, step: Step, iteration: Iteration
    ) -> Iterator[tuple[Template | Tree | None, Seen, frozenset[str]]]:
        """Give the templates of one item, as `_evaluated` does."""
        seen, words, task = self._scopes.of_fields(step), _words(iteration), iteration.task
        if (retry := task.retry) is not None:
            yield from ((one, seen, words | RETRY_WORDS) for one in (retry.retry_when, retry.stop_when))
        for entry in iteration.catch:
            yield from ((one, seen, words | {ERROR}) for one in (entry.when, entry.result))
        if (call := task.call) is not None:
            yield from ((one, seen, words) for one in (call.path, call.version, call.return_step))

    def _levels(self, step: Step) -> Iterator[Level]:
        arriving, after = self._scopes.of_inputs(step), self._scopes.of_next(step)
        rendered = frozenset(key for key, tree in trees_of(step.inputs) if not tree.deferred) - arriving.names
        yield Level(step.inputs, step, arriving, lost=rendered, replaced=arriving.names)
        task, seen = task_inputs(step), self._scopes.of_task_inputs(step)
        if step.iteration is not None and not task.empty:
            nested = step.type == "iterator"
            lost = seen.possible & names_of(task) if nested else NO_NAMES
            yield Level(task, step, seen, _words(step.iteration), lost, NO_NAMES if nested else arriving.names)
        for target in step.targets:
            words = OF_CATCH if self._playbook.arcs[target.arc].branch == "catch" else NO_NAMES
            lost = after.possible | words | {ARGS}
            yield Level(target.inputs, self._playbook.steps[target.step], after, words, lost)

    def _refuse_evaluated(
        self, step: Step, template: Template, seen: Seen, hidden: frozenset[str], *, words: bool
    ) -> None:
        self._reading.work.spend(COST_OF_COPY)
        source, at = template.source, template.at
        named = template.names & WORKER_WORDS - seen.names - hidden if words else NO_NAMES
        for name in sorted(named - self._playbook.steps.keys() - self._playbook.workload.keys()):
            message = f"the broker evaluates this template, and only a worker knows `{name}`"
            self._error("worker-word", at, message, RETURN_IT)
        if (path := seen.deferred_input(source, hidden)) is not None:
            self._refuse_input(step, source, at, seen, path, RETURN_IT)
        if (path := _default_read(source, self._defaults, seen.names | hidden)) is not None:
            message = f"`{shortened(source)}` reads `workload.{path_text(path)}`, which only a worker can render"
            self._error("unfinished-default", at, message, RETURN_IT)

    def _refuse_inputs(self, step: Step, level: Level) -> None:
        wholes = {tree.at for tree in _wholes(level.inputs)}
        for key, tree in trees_of(level.inputs):
            if tree.constant or key in level.replaced:
                continue
            evaluated = tree.at in wholes or not has_worker(level.runs)
            for template in tree.broker_templates():
                if evaluated:
                    self._refuse_evaluated(step, template, level.seen, level.words, words=True)
                elif (path := level.seen.deferred_input(template.source, level.words)) is not None:
                    self._refuse_input(step, template.source, template.at, level.seen, path, WRITE_IT)
            for path, text in tree.deferred_texts() if tree.at not in wholes else ():
                self._refuse_deferred(step, level, text, place_in(tree, path))

    def _refuse_deferred(self, step: Step, level: Level, text: str, at: str) -> None:
        """Report a deferred input that no worker renders, or whose names mean something else to its worker."""
        self._reading.work.spend(COST_OF_COPY)
        runs = level.runs.name
        lost = level.lost_read(text)
        if not has_worker(level.runs):
            message = f"only a worker can render `{shortened(text)}`, and no worker runs the step `{runs}`"
            self._error("unfinished-input", at, message, "name it in the step whose worker needs it")
        elif lost:
            message = f"`{shortened(text)}` reads `{lost}`, which is another value for the worker of `{runs}`"
            hint = f"hand the value on under a name of its own, and join the two in a field of `{runs}`"
            self._error("unfinished-input", at, message, hint)
        elif (path := level.seen.deferred_input(text, level.words)) is not None:
            self._refuse_input(step, text, at, level.seen, path, WRITE_IT)

    def _refuse_input(self, step: Step, source: str, at: str, seen: Seen, path: Path, hint: str) -> None:
        message = (
            f"`{shortened(source)}` reads the input `{path_text(path)}` of the step `{step.name}`,"
            f" which only a worker can render ({seen.deferred[path]})"
        )
        self._error("unfinished-input", at, message, hint)

    def _error(self, code: str, at: str, message: str, hint: str) -> None:
        if not self._places:
            self._places = {
                path_text(place): place
                for use in self._reading.uses
                for place in (use.place, *(place for place, _ in strings(use.value, use.place)))
            }
        self._reading.report.error(code, self._places.get(at, ()), message, hint)


def _default_read(source: str, defaults: PathIndex, hidden: frozenset[str]) -> Path | None:
    """Give a deferred default that a template reads; `hidden` are names of inputs."""
    for read in reads_of(source) if defaults else ():
        if read[0] in hidden:
            continue
        word = read[0] in WORDS_FOR_WORKLOAD
        found = None if read[0] in SCOPE_WORDS and not word else defaults.touched_by(read[word:])
        if found is not None:
            return found
    return None


def _words(iteration: Iteration) -> frozenset[str]:
    return frozenset({iteration.element, "_loop"})


def _waited_for(step: Step) -> Iterator[Tree | None]:
    """Give what the broker renders of a step that it runs itself, but for conditions, and the time limits of a job."""
    if (wait := step.wait) is not None:
        yield from (wait.duration, wait.until, wait.signals, wait.key, wait.since, wait.timeout)
    if (approval := step.approval) is not None:
        yield from (approval.title, approval.details, approval.form, approval.assignees, approval.timeout)
    if (signal := step.signal) is not None:
        yield from (signal.name, signal.key, signal.payload)
    if (fail := step.fail) is not None:
        yield from (fail.type, fail.message, fail.status_code)
    yield from (limit for limit in (step.timeout, step.start_timeout) if isinstance(limit, Tree))


def _wholes(inputs: Inputs) -> Iterator[Tree]:
    if inputs.whole is not None:
        yield inputs.whole
    if inputs.base is not None:
        yield from _wholes(inputs.base)

"""Reads an iterator: a step of `type: iterator` with a task, or any step with a `loop`."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, Literal

from noetl_broker.playbook.amounts import Range, read_boolean, read_integer, read_whole, read_word
from noetl_broker.playbook.fields import Fields
from noetl_broker.playbook.findings import Place, kind_of
from noetl_broker.playbook.inputs import is_one_template
from noetl_broker.playbook.limits import read_priority, read_timeout
from noetl_broker.playbook.model import NO_INPUTS, Inputs, Iteration, Raw, Step
from noetl_broker.playbook.outline import Written
from noetl_broker.playbook.reading import Part, Reading
from noetl_broker.playbook.repeated import as_templates, read_repeated
from noetl_broker.playbook.tasks import (
    NO_FIELDS,
    Declared,
    Surroundings,
    check_texts,
    declare,
    known_keys,
    read_call,
    read_fields,
    read_task_inputs,
    warn_unknown_keys,
)
from noetl_broker.playbook.vocabulary import ITERATION_KEYS, SCOPE_WORDS
from noetl_broker.template import WORKER_WORDS, Template, Tree

CODE = "bad-iterator"
ASYNC_CONCURRENCY = 8
CONCURRENCY = Range(1, 1_000_000)
MODES = ("sequential", "async", "parallel")
LOOP_NAME = "_loop"
NO_ELEMENT = "item"
NOT_OF_A_TASK = ("next", "next_mode", "join", "retry", "on_error")
REQUIRED = (("collection", '"{{ workload.items }}"'), ("element", "item"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Iterated:
    """A task as read: how it repeats, if it does, and what its job is where a worker runs it."""

    iteration: Iteration | None = None
    inputs: Inputs = NO_INPUTS
    fields: Fields = NO_FIELDS
    plain: Raw


def is_iterating(declared: Declared) -> bool:
    """Whether a step, or the workbook action that it calls, repeats something."""
    return declared.kind == "iterator" or declared.lookup("loop")[0] is not None


def read_iterated(reading: Reading, written: Written, declared: Declared) -> Iterated:
    """Read an iterator step; `iteration` is None, and errors are in the report, where it cannot be one."""
    looped = declared.kind != "iterator"
    keys = _Keys(reading, written, declared)
    task = keys.task_of_loop(declared) if looped else keys.task()
    if task is None or not keys.readable:
        return Iterated(plain={})
    element = keys.element()
    distribute = keys.boolean("distribute")
    expanded = task.kind == "playbook" or distribute
    names = frozenset({element, LOOP_NAME})
    around = Surroundings(names=names, worker=frozenset() if expanded else names)
    part = Part(step=written.name, role="iteration", names=names)
    mode = keys.mode()
    iteration = Iteration(
        collection=keys.collection(),
        element=element,
        task=_task_step(reading, written, (declared, task), around) if expanded else _bare(written, task),
        expanded=expanded,
        distribute=distribute,
        mode=mode,
        concurrency=keys.concurrency(mode),
        where=keys.condition("where", part),
        order_by=keys.condition("order_by", part),
        limit=keys.whole("limit", least=0),
        chunk=keys.whole("chunk", least=1),
        enumerate=keys.boolean("enumerate"),
        on_error="continue" if keys.word("on_error", ("fail", "continue")) == "continue" else "fail",
    )
    if expanded:
        inputs = NO_INPUTS if looped else read_task_inputs(reading, written.name, declared)
        return Iterated(iteration=iteration, inputs=inputs, plain={})
    inputs = read_task_inputs(reading, written.name, declared, around)
    repeating = as_templates(declared, refused=keys.refused)
    kept = frozenset({"loop"}) if looped else frozenset({"on_error"})
    fields, plain = read_fields(reading, written.name, repeating, around, kept)
    if not looped:
        repeated, told = read_repeated(reading, written.name, task, around)
        fields = Fields({**fields.parts, "task": repeated}, fields.at)
        plain = {**plain, "task": told} if told else plain
    return Iterated(iteration=iteration, inputs=inputs, fields=fields, plain=plain)


class _Keys:
    """The keys of one iteration with their places, wherever the author put them; `loop` wins over the step."""

    def __init__(self, reading: Reading, written: Written, declared: Declared) -> None:
        self.reading, self.name = reading, written.name
        self.place = written.place
        self.keys: dict[str, tuple[Any, Place]] = {}
        self.refused: set[str] = set()  # expressions that are none
        self.readable = True
        if declared.kind == "iterator":
            found = {key: declared.lookup(key) for key in ITERATION_KEYS}
            self.keys = {key: pair for key, pair in found.items() if pair[0] is not None}
        loop, place = declared.lookup("loop")
        if isinstance(loop, dict):
            self._read_loop(loop, place)
        elif loop is not None:
            self.readable = False
            self._error(
                place,
                f"has a `loop` that is {kind_of(loop)}",
                "write loop: {collection: …, element: …}",
            )
            return
        for key, remedy in REQUIRED:
            if key not in self.keys:
                self._error(self.place, f"has no `{key}`", f"write {key}: {remedy}")

    def _read_loop(self, loop: Raw, place: Place) -> None:
        self.place = place
        self.keys |= {key: (value, (*place, key)) for key, value in loop.items() if value is not None}
        for key in loop:
            if key not in ITERATION_KEYS:
                hint = self.reading.report.did_you_mean(key, ITERATION_KEYS)
                message = f"the key `{key}` means nothing in `loop`"
                self.reading.report.warning("unknown-key", (*place, key), message, hint, key=True)

    def _error(self, place: Place, what: str, hint: str) -> None:
        self.reading.report.error(CODE, place, f"the iterator `{self.name}` {what}", hint)

    def get(self, key: str) -> tuple[Any, Place]:
        """Give a key's value and place; None if it is absent."""
        return self.keys.get(key, (None, (*self.place, key)))

    def task_of_loop(self, declared: Declared) -> Declared | None:
        """Give the step itself, which a `loop` repeats."""
        if declared.kind == "control":
            self._error(self.place, "has no `task`", "give the step a type")
            return None
        return declared

    def task(self) -> Declared | None:
        """Give the `task` of a step of type iterator; a string names an action of the workbook."""
        raw, place = self.get("task")
        if isinstance(raw, str):
            raw = {"type": "workbook", "task": raw}
        if not isinstance(raw, dict):
            what = "has no `task`" if raw is None else f"has a `task` that is {kind_of(raw)}"
            self._error(place, what, "write task: {type: playbook, path: …} or another type")
            return None
        task = declare(self.reading, self.name, raw, place)
        check_texts(self.reading, task)
        if is_iterating(task):
            hint = "put the inner iterator into a playbook of its own, and write task: {type: playbook, path: …}"
            self._error(place, "has a task that iterates itself", hint)
            return None
        if task.kind == "control":
            self._error(place, "has a task that is neither an action nor a playbook", "write task: {type: …}")
            return None
        for key in NOT_OF_A_TASK:
            if raw.get(key) is not None:
                message = f"`{key}` in the task of the iterator `{self.name}` is not read"
                self.reading.report.warning("unused-key", (*place, key), message, "write it on the step", key=True)
        known = known_keys(task)
        if known is not None:
            warn_unknown_keys(self.reading, self.name, task, known)
        return task

    def element(self) -> str:
        """Give the name under which a template finds the item."""
        value, place = self.get("element")
        if value is None:
            return NO_ELEMENT
        if not isinstance(value, str) or not value.isidentifier():
            shown = repr(value) if isinstance(value, str) else kind_of(value)
            self._error(place, f"has the `element` {shown}, which is not a name", "write element: item")
            return NO_ELEMENT
        message = ""
        if value in SCOPE_WORDS or value in WORKER_WORDS:
            message = f"the element `{value}` of the iterator `{self.name}` hides the scope word of that name"
        elif value in self.reading.steps:
            message = f"the step `{value}` hides the element of that name in the iterator `{self.name}`"
        if message:
            self.reading.report.warning("shadowed-name", place, message, "choose another name")
        return value

    def collection(self) -> Tree:
        """Compile what is iterated: an expression, a list or a mapping."""
        value, place = self.get("collection")
        part = Part(step=self.name, role="iteration")
        if isinstance(value, str):
            if self.condition("collection", part) is None:
                return self.reading.tree(None, place, part)
            return self.reading.tree(value if is_one_template(value) else f"{{{{ {value} }}}}", place, part)
        if value is not None and not isinstance(value, list | dict):
            self._error(place, f"has a `collection` that is {kind_of(value)}", 'write a list or "{{ expression }}"')
        return self.reading.tree(value, place, part)

    def condition(self, key: str, part: Part) -> Template | None:
        """Compile a key that is one expression; one that is none is told here, and nowhere again."""
        value, place = self.get(key)
        template = None if value is None else self.reading.condition(value, place, part, CODE)
        if template is None:
            self.refused.add(key)
        return template

    def whole(self, key: str, *, least: int) -> Tree | None:
        """Compile a key that is a whole number or a template; there is one for all items."""
        value, place = self.get(key)
        part = Part(step=self.name, role="iteration")
        return None if value is None else read_whole(self.reading, value, place, part, Range(least, inf), CODE)

    def boolean(self, key: str) -> bool:
        """Read a key that is true or false (the default)."""
        value, place = self.get(key)
        return value is not None and read_boolean(self.reading, value, place, CODE) is True

    def word(self, key: str, words: tuple[str, ...]) -> str | None:
        """Read a key that is one of a few words."""
        value, place = self.get(key)
        return None if value is None else read_word(self.reading, value, place, words, CODE)

    def mode(self) -> Literal["sequential", "async"]:
        """Read the mode; `parallel` is the same as `async`."""
        return "async" if self.word("mode", MODES) in ("async", "parallel") else "sequential"

    def concurrency(self, mode: str) -> int:
        """Read how many items may be open at a time; one where they are sequential."""
        value, place = self.get("concurrency")
        number = None if value is None else read_integer(self.reading, value, place, CONCURRENCY, CODE)
        if number is not None and number > 1 and mode != "async":
            message = f"`concurrency` of the iterator `{self.name}` means nothing while its mode is sequential"
            self.reading.report.warning("unused-key", place, message, "write mode: async beside it", key=True)
        return (number or ASYNC_CONCURRENCY) if mode == "async" else 1


def _task_step(reading: Reading, written: Written, declared: tuple[Declared, Declared], around: Surroundings) -> Step:
    """Compile the task that the broker starts once for each item of a step, with the element in its scope."""
    name, (step, task) = written.name, declared
    priority = read_priority(reading, task)
    plain: Raw = {}
    fields, call = NO_FIELDS, None
    if task.kind == "playbook":
        call = read_call(reading, name, task, around)
    else:
        fields, plain = read_fields(reading, name, task, around)
    own, place = task.layers[-1].raw, task.layers[-1].place
    nested = place != written.place  # a loop's task is the step, whose limits are those of all its items together
    return Step(
        name=name,
        index=written.index,
        type=task.type,
        kind=task.kind,
        inputs=read_task_inputs(reading, name, task, around),
        fields=fields,
        plain=plain,
        timeout=read_timeout(reading, task) if nested else None,
        priority=priority if priority is not None else read_priority(reading, step),
        task_name=task.task_name,
        call=call,
        raw=own,
    )


def _bare(written: Written, task: Declared) -> Step:
    """Describe the task that a worker iterates: all of it is in the step's own job."""
    return Step(
        name=written.name,
        index=written.index,
        type=task.type,
        kind=task.kind,
        fields=NO_FIELDS,
        task_name=task.task_name,
        raw=task.layers[-1].raw,
    )

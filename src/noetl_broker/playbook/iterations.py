"""Reads an iterator: a step of `type: iterator` with a task, or any step with a `loop`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

from noetl_broker.playbook.blocks import KEY as BLOCK
from noetl_broker.playbook.calls import read_action
from noetl_broker.playbook.catch import read_output
from noetl_broker.playbook.compensate import read_compensate
from noetl_broker.playbook.diagnostics import Location, json_type_name
from noetl_broker.playbook.fields import Fields
from noetl_broker.playbook.header import WrittenStep
from noetl_broker.playbook.inputs import is_one_template, names_of
from noetl_broker.playbook.items import read_item_catch
from noetl_broker.playbook.keys import Layer, Layers, read_keys
from noetl_broker.playbook.keywords import (
    INPUT_WORDS,
    LOOP_NAME,
    SCOPE_WORDS,
    TOOL_WORDS,
    TYPE_KEYS,
)
from noetl_broker.playbook.model import NO_INPUTS, Inputs, Iteration, Raw, Step
from noetl_broker.playbook.own_keys import refuse_wrong_keys
from noetl_broker.playbook.reader import NO_NAMES, Reading, TemplateSite
from noetl_broker.playbook.retries import read_retry
from noetl_broker.playbook.step_keys import JOB_PRIORITY, LOOP, LOOP_CONDITIONS, LOOP_VALUES
from noetl_broker.playbook.tasks import (
    NO_FIELDS,
    Declared,
    check_program_texts,
    declare,
    read_fields,
    read_pool,
    read_task_inputs,
    read_timeout,
)
from noetl_broker.playbook.template_reads import ARGS
from noetl_broker.playbook.throttle import read_throttle
from noetl_broker.template import WORKER_WORDS, Tree

CODE = "bad-iterator"
ASYNC_CONCURRENCY = 8
NO_ELEMENT = "item"
EXPANDING_WORDS = ("retry", "timeout", "catch", "compensate", "throttle")  # of a task
NOT_IN_TASKS = ("next", "next_mode", "join", "on_error", "late_after")
TASK_KEYS = frozenset({"name", "task", "tool", "timeout", "priority"})  # the broker's, and fields of a task
EXPRESSIONS = ("collection", "where", "order_by")
REQUIRED = (("collection", '"{{ workload.items }}"'), ("element", "item"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Iterated:
    """A task as read: how it repeats, and the content of its job where a worker runs it."""

    iteration: Iteration | None = None
    inputs: Inputs = NO_INPUTS
    fields: Fields = NO_FIELDS
    plain: Raw


def is_iterating(declared: Declared) -> bool:
    """Whether a step, or its workbook action, repeats a task."""
    return declared.kind == "iterator" or declared.lookup("loop")[0] is not None


def expands(task: Declared) -> bool:
    """Whether the broker runs each item of this task by itself, because the task says what becomes of one item."""
    # The `timeout` of an http request is its own.
    return any(task.lookup(word)[0] is not None and word not in task.own for word in EXPANDING_WORDS)


def read_iterated(reading: Reading, written: WrittenStep, declared: Declared) -> Iterated:
    """Read an iterator step; report errors and give no `iteration` if it cannot be one."""
    looped = declared.kind != "iterator"
    keys = _Keys(reading, written, declared)
    task = keys.task_of_loop(declared) if looped else keys.task()
    if task is None or not keys.readable:
        return Iterated(plain={})
    element = keys.element()
    site = TemplateSite(step=written.name, role="iteration")
    found = read_keys(reading, LOOP_VALUES, keys.source, site, CODE)
    expanded = task.traits.waits_for == "child" or found.get("distribute", False) or (not looped and expands(task))
    names = frozenset({element, LOOP_NAME})
    around = TemplateSite(step=written.name, role="fields", names=names, worker=NO_NAMES if expanded else names)
    collection = keys.collection(site)
    found |= keys.conditions(replace(site, names=names))
    iteration = Iteration(
        collection=collection,
        element=element,
        task=_task_step(reading, written, (declared, task), around) if expanded else _task_of_worker(written, task),
        expanded=expanded,
        catch=() if looped else read_item_catch(reading, written.name, task, names),
        **found | keys.of_many(found),
    )
    if expanded:
        inputs = NO_INPUTS if looped else read_task_inputs(reading, declared, replace(around, names=NO_NAMES))
        return Iterated(iteration=iteration, inputs=inputs, plain={})
    inputs = read_task_inputs(reading, declared, around)
    repeating = as_templates(declared, refused=keys.refused)
    kept = frozenset({"loop"}) if looped else frozenset({"on_error"})
    fields, plain = read_fields(reading, repeating, around, kept, inputs)
    if not looped:
        repeated, plain_task = read_task_of_worker(reading, task, around)
        fields = Fields({**fields.parts, "task": repeated}, fields.at)
        plain = {**plain, "task": plain_task} if plain_task else plain
    return Iterated(iteration=iteration, inputs=inputs, fields=fields, plain=plain)


class _Keys:
    """The keys of one iteration with their locations; keys of `loop` win over keys of the step."""

    def __init__(self, reading: Reading, written: WrittenStep, declared: Declared) -> None:
        self.reading, self.name = reading, written.name
        self.location = written.location
        self.refused: set[str] = set()  # keys that are no expressions
        self.readable = True
        own = declared.layers if declared.kind == "iterator" else ()
        loop, location = declared.lookup("loop")
        if isinstance(loop, dict):
            self.location = location
            own = (*own, Layer(loop, location))
            LOOP.refuse_unknown(reading, loop, location)
        elif loop is not None:
            self.readable = False
            hint = "write loop: {collection: …, element: …}"
            self._error(location, f"has a `loop` that is {json_type_name(loop)}", hint)
        self.source = Layers(layers=own or declared.layers)
        for key, remedy in REQUIRED if self.readable else ():
            if self.source.lookup(key)[0] is None:
                self._error(self.location, f"has no `{key}`", f"write {key}: {remedy}")

    def _error(self, location: Location, what: str, hint: str) -> None:
        self.reading.report.error(CODE, location, f"the iterator `{self.name}` {what}", hint)

    def task_of_loop(self, declared: Declared) -> Declared | None:
        """Give the step itself, which a `loop` repeats."""
        if not declared.traits.has_action:
            self._error(self.location, "has no `task`", "give the step a type")
            return None
        return declared if self._repeats(declared, self.location) else None

    def _repeats(self, task: Declared, location: Location) -> bool:
        """Whether a task can be repeated; report a task that waits for something."""
        if task.traits.has_job:
            return True
        hint = "put the step into a block: task: {workflow: [{step: start, next: …}, …]}"
        self._error(location, f"repeats a step of type `{task.type}`", hint)
        return False

    def task(self) -> Declared | None:
        """Give the `task` of a step of type iterator; a string names an action of the workbook."""
        raw, location = self.source.lookup("task")
        if isinstance(raw, str):
            raw = {"type": "workbook", "task": raw}
        if not isinstance(raw, dict):
            what = "has no `task`" if raw is None else f"has a `task` that is {json_type_name(raw)}"
            self._error(location, what, "write task: {type: playbook, path: …} or another type")
            return None
        if raw.get(BLOCK) is not None and not any(raw.get(word) for word in TYPE_KEYS):
            raw = {"type": "playbook", **raw}
        task = declare(self.reading, self.name, raw, location)
        check_program_texts(self.reading, self.name, task, is_nested=True)
        if is_iterating(task):
            hint = "put the inner iterator into a block: task: {workflow: [{step: start, next: …}, …]}"
            self._error(location, "has a task that iterates itself", hint)
            return None
        if not task.traits.has_action:
            self._error(location, "has a task that is neither an action nor a playbook", "write task: {type: …}")
            return None
        if not self._repeats(task, location):
            return None
        for key in NOT_IN_TASKS:
            if raw.get(key) is not None:
                message = f"`{key}` in the task of the iterator `{self.name}` is not read"
                self.reading.report.warning("unused-key", (*location, key), message, "write it on the step", key=True)
        read_output(self.reading, self.name, task, iterating=True)
        refuse_wrong_keys(self.reading, self.name, task)
        return task

    def element(self) -> str:
        """Give the name under which a template finds the item."""
        value, location = self.source.lookup("element")
        if value is None:
            return NO_ELEMENT
        if not isinstance(value, str) or not value.isidentifier():
            shown = repr(value) if isinstance(value, str) else json_type_name(value)
            self._error(location, f"has the `element` {shown}, which is not a name", "write element: item")
            return NO_ELEMENT
        message = ""
        if value in SCOPE_WORDS or value in WORKER_WORDS:
            message = f"the element `{value}` of the iterator `{self.name}` hides the scope word of that name"
        elif value in self.reading.steps:
            message = f"the step `{value}` hides the element of that name in the iterator `{self.name}`"
        if message:
            self.reading.report.warning("shadowed-name", location, message, "choose another name")
        return value

    def collection(self, site: TemplateSite) -> Tree:
        """Compile the collection: an expression, a list or a mapping."""
        value, location = self.source.lookup("collection")
        if isinstance(value, str):
            if self.reading.condition(value, location, site, CODE) is None:
                self.refused.add("collection")
                return self.reading.tree(None, location, site)
            return self.reading.tree(value if is_one_template(value) else f"{{{{ {value} }}}}", location, site)
        if value is not None and not isinstance(value, list | dict):
            self._error(
                location, f"has a `collection` that is {json_type_name(value)}", 'write a list or "{{ expression }}"'
            )
        return self.reading.tree(value, location, site)

    def conditions(self, site: TemplateSite) -> dict[str, Any]:
        """Compile what chooses the items; remember a wrong one, so that it is reported once."""
        found = read_keys(self.reading, LOOP_CONDITIONS, self.source, site, CODE)
        self.refused |= {key.name for key in LOOP_CONDITIONS} - found.keys()
        return found

    def of_many(self, found: dict[str, Any]) -> dict[str, Any]:
        """Give the mode and the open items at a time, 1 if they are sequential; report keys that exclude each other."""
        report = self.reading.report
        mode = "sequential" if found.get("mode", "sequential") == "sequential" else "async"
        concurrency = found.get("concurrency", ASYNC_CONCURRENCY if mode == "async" else 1)
        if concurrency > 1 and mode != "async":
            message = f"`concurrency` of the iterator `{self.name}` has no effect while its mode is sequential"
            where = self.source.lookup("concurrency")[1]
            report.warning("unused-key", where, message, "write mode: async beside it", key=True)
        if "tolerate" in found and self.source.lookup("on_error")[0] is not None:
            message = f"the iterator `{self.name}` has `on_error` and `tolerate`, and both say what a failed item does"
            hint = "keep one: tolerate: 0 is on_error: fail, tolerate: 100% is on_error: continue"
            report.error(CODE, self.source.lookup("on_error")[1], message, hint, key=True)
        return {"mode": mode, "concurrency": concurrency if mode == "async" else 1}


def _task_step(reading: Reading, written: WrittenStep, declared: tuple[Declared, Declared], site: TemplateSite) -> Step:
    """Compile the task that the broker starts for each item, with the element in its scope."""
    name, (step, task) = written.name, declared
    priority = JOB_PRIORITY.read(reading, task, site)
    nested = task.layers[-1].location != written.location  # the limits of a loop count for all items together
    return Step(
        name=name,
        index=written.index,
        **read_action(reading, task, site),
        timeout=read_timeout(reading, task, site) if nested else None,
        retry=read_retry(reading, name, *task.lookup("retry"), names=site.names) if nested else None,
        priority=priority if priority is not None else JOB_PRIORITY.read(reading, step, site),
        pool=read_pool(reading, task if task.lookup("pool")[0] is not None else step, site),
        throttle=read_throttle(reading, task, site, by_worker=task.traits.waits_for == "worker"),
        compensate=read_compensate(reading, name, written.index, task, site.names) if nested else None,
    )


def _task_of_worker(written: WrittenStep, task: Declared) -> Step:
    """Describe the task that one worker repeats: its content is in the step's own job."""
    return Step(
        name=written.name,
        index=written.index,
        type=task.type,
        kind=task.kind,
        fields=NO_FIELDS,
        task_name=task.task_name,
        raw=task.layers[-1].raw,
    )


def as_templates(declared: Declared, *, refused: Collection[str] = ()) -> Declared:
    """Give an iterator that one worker runs with its expressions as templates, without `task` and `refused` keys.

    A worker evaluates templates and no bare expressions. The keys in `loop` of an iterator win over its others.
    """
    loop, location = declared.lookup("loop")
    if declared.kind == "iterator":
        keys = (loop or {}).items()
        over = {key: value for key, value in keys if key in LOOP.known and value is not None}
        layers = tuple(
            Layer(_with_template(_without(layer.raw, {*refused, "task"})), layer.location)
            for layer in (*declared.layers, Layer(over, location))
        )
        return Declared(type=declared.type, kind=declared.kind, layers=layers)
    loop = _without(loop, refused)
    layers = tuple(
        _with_loop(layer, loop if (*layer.location, "loop") == location else None) for layer in declared.layers
    )
    return Declared(type=declared.type, kind=declared.kind, layers=layers)


def read_task_of_worker(reading: Reading, task: Declared, site: TemplateSite) -> tuple[Fields, Raw]:
    """Read the nested task that one worker repeats, merged over its workbook action: fields, and plain values.

    Its inputs are merged under `args`. The worker renders them for each item, so strings that read one are deferred.
    """
    inputs = read_task_inputs(reading, task, site, "fields")
    words = NO_NAMES if inputs.empty else frozenset({ARGS})
    given = names_of(inputs)
    seen = replace(site, names=site.names | given | words, worker=site.worker | words, deferred=given)
    fields, plain = read_fields(reading, task, seen, TASK_KEYS)
    location = task.layers[-1].location
    kind = reading.tree(task.type, (*location, "type"), TemplateSite(step=site.step, role="fields"))
    return Fields({**fields.parts, "type": kind, **_inputs_of_job(reading, inputs, task)}, fields.at), plain


def _inputs_of_job(reading: Reading, inputs: Inputs, task: Declared) -> dict[str, Tree | Fields]:
    """Give the inputs of a nested task as its job has them: under `args`, and under the author's own words.

    The levels under a template for all inputs are under weaker words: a worker merges the words in that order. Words
    that the tool of the task reads itself are not used for this.
    """
    levels, location = [*_levels(inputs)], task.layers[-1].location
    taken = task.own | TOOL_WORDS.get(task.type, NO_NAMES)
    words = [word for word in reversed(INPUT_WORDS) if word not in taken]
    if len(levels) > len(words):
        message = f"the inputs have {len(levels)} levels, and a worker that iterates merges at most {len(words)}"
        reading.report.error("bad-inputs", location, message, "write one mapping under `args`")
    by_word = dict(zip(words, levels, strict=False))
    # Only of the two strongest levels: a deeper one, under another word, would win over them.
    strongest = [level.parts for level in levels[:2] if isinstance(level, Fields)]
    for word, keys in inputs.aliases.items():
        own = {key: parts[key] for parts in reversed(strongest) for key in keys or () if key in parts}
        if own:
            by_word.setdefault(word, Fields(own, levels[0].at))
        elif keys is None and inputs.whole is not None:
            by_word.setdefault(word, inputs.whole)
    return by_word


def _levels(inputs: Inputs) -> Iterator[Tree | Fields]:
    """Give the levels, the strongest first."""
    if inputs.keys:
        yield Fields(inputs.keys, next(iter(inputs.keys.values())).at)
    if inputs.whole is not None:
        yield inputs.whole
    if inputs.base is not None:
        yield from _levels(inputs.base)


def _without(raw: Raw, keys: Collection[str]) -> Raw:
    return {key: value for key, value in raw.items() if key not in keys}


def _with_loop(layer: Layer, loop: Raw | None) -> Layer:
    """Give a layer with this `loop`, without its own if `loop` is None."""
    own = {key: value for key, value in layer.raw.items() if key != "loop" or loop is not None}
    return Layer(own | {"loop": _with_template(loop)} if loop is not None else own, layer.location)


def _with_template(raw: Raw) -> Raw:
    bare = {key: raw[key] for key in EXPRESSIONS if isinstance(raw.get(key), str) and not is_one_template(raw[key])}
    return {**raw, **{key: f"{{{{ {value} }}}}" for key, value in bare.items()}}

"""Reads what a step does: its type, its inputs and its fields, with its workbook action under it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from noetl_broker.playbook.amounts import VERSIONS, as_version, read_whole
from noetl_broker.playbook.fields import Fields
from noetl_broker.playbook.findings import Place, kind_of, path_text
from noetl_broker.playbook.inputs import merge, read_inputs
from noetl_broker.playbook.model import NO_INPUTS, ChildCall, Inputs, Raw, StepKind
from noetl_broker.playbook.reading import NO_NAMES, Part, Reading, Role
from noetl_broker.playbook.texts import refuse_texts, without_texts_of
from noetl_broker.playbook.vocabulary import (
    ACTION_TYPES,
    AFTERWARDS_KEYS,
    BROKER_KEYS,
    BROKER_TYPES,
    CODE_KEYS,
    CONTROL_TYPES,
    END,
    INPUT_WORDS,
    ITERATION_KEYS,
    LIST_KEYS,
    OWN_KEYS,
    PLAIN_KEYS,
    SAVE_KEYS,
    SAVED_WORDS,
    START,
    TOLD_KEYS,
    TYPE_KEYS,
)
from noetl_broker.template import SAVE_WORDS, WORKER_WORDS, Tree

NO_FIELDS = Fields({}, "")
WITH_WORKER = frozenset({"action", "iterator"})  # kinds of steps that workers run, or may run
NESTED_TASKS = frozenset({*SAVE_KEYS, "storage", "task"})  # mappings that may hold program text of their own


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One mapping that gives a task its keys: a workbook action, or the step over it."""

    raw: Raw
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What a step says that it is: its resolved type, and the layers that give its keys, the weakest first."""

    type: str
    kind: StepKind
    layers: tuple[Layer, ...]
    task_name: str | None = None

    def lookup(self, key: str) -> tuple[Any, Place]:
        """Give the strongest value of a key with its place; None if no layer has it."""
        for layer in reversed(self.layers):
            if layer.raw.get(key) is not None:
                return layer.raw[key], (*layer.place, key)
        return None, (*self.layers[-1].place, key)

    @property
    def own(self) -> frozenset[str]:
        """The keys that the type defines itself."""
        lists = frozenset(word for word in LIST_KEYS.get(self.type, NO_NAMES) if isinstance(self.lookup(word)[0], list))
        return OWN_KEYS.get(self.type, NO_NAMES) | lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a task's templates find beside the usual: an iterator's names, and words left to a worker that iterates."""

    names: frozenset[str] = NO_NAMES
    worker: frozenset[str] = NO_NAMES


PLAINLY = Surroundings()


def declare(reading: Reading, name: str, raw: Raw, place: Place) -> Declared:
    """Resolve the type of a step (or of an iterator's task) through the workbook, and say who runs it."""
    step = Layer(raw=raw, place=place)
    declared = _written_type(reading, raw, place)
    if declared == "workbook":
        return _from_workbook(reading, name, step)
    if declared is None:
        resolved = name if name in (START, END) else "route"
        return Declared(type=resolved, kind="control", layers=(step,))
    return Declared(type=declared, kind=_kind(reading, name, declared, (step,)), layers=(step,))


def _written_type(reading: Reading, raw: Raw, place: Place) -> str | None:
    words = [word for word in TYPE_KEYS if raw.get(word) is not None]
    if not words:
        return None
    value = raw[words[0]]
    if len(words) > 1 and raw[words[1]] != value:
        reading.report.error(
            "bad-type", (*place, words[1]), f"`tool` says {raw[words[1]]!r} and `type` says {value!r}", "keep one"
        )
    if not isinstance(value, str):
        reading.report.error(
            "bad-type", (*place, words[0]), f"`{words[0]}` is {kind_of(value)}", "write the name of a type"
        )
        return "route"
    return value


def _from_workbook(reading: Reading, name: str, step: Layer) -> Declared:
    raw = step.raw
    key = "task" if raw.get("task") is not None or "step" not in raw else "name"
    task, where = raw.get(key), (*step.place, key)
    if not isinstance(task, str):
        what = "names no action" if task is None else f"names {kind_of(task)}"
        reading.report.error(
            "unknown-action", where, f"the workbook step `{name}` {what}", "write task: name-of-the-action"
        )
        return Declared(type="workbook", kind="action", layers=(step,))
    if task not in reading.actions:
        known = [*reading.actions]
        hint = reading.report.did_you_mean(task, known) if known else "the playbook has no workbook"
        reading.report.error("unknown-action", where, f"the workbook has no action `{task}`", hint)
        return Declared(type="workbook", kind="action", layers=(step,), task_name=task)
    reading.pay_for_action(task)
    action_raw, action_place = reading.actions[task]
    action = Layer(raw=without_texts_of(action_raw, raw), place=action_place)
    resolved = _written_type(reading, action_raw, action_place)
    if resolved in (None, "workbook"):
        what = "has no type" if resolved is None else "calls the workbook again"
        reading.report.error(
            "bad-type", action_place, f"the workbook action `{task}` {what}", "write type: python, http, …"
        )
        return Declared(type="workbook", kind="action", layers=(action, step), task_name=task)
    if resolved == "iterator" and key == "task":  # else the name of the action would pass for what it repeats
        step = Layer(raw={word: value for word, value in raw.items() if word != key}, place=step.place)
    layers = (action, step)
    return Declared(type=str(resolved), kind=_kind(reading, name, str(resolved), layers), layers=layers, task_name=task)


def _kind(reading: Reading, name: str, declared: str, layers: Sequence[Layer]) -> StepKind:
    if declared in CONTROL_TYPES:
        return "control"
    if declared == "python" and not any(layer.raw.get(key) for layer in layers for key in CODE_KEYS):
        reading.report.warning(
            "no-code",
            layers[-1].place,
            f"the python step `{name}` has no code, so it runs nothing",
            "give it `code`, or remove its type",
        )
        return "control"
    if declared == "playbook":
        return "playbook"
    if declared == "iterator":
        return "iterator"
    if declared not in ACTION_TYPES and declared not in reading.rules.extra_step_types:
        known = sorted(ACTION_TYPES | CONTROL_TYPES | BROKER_TYPES | {"workbook"} | reading.rules.extra_step_types)
        layer = layers[0]
        key = "type" if layer.raw.get("type") is not None else "tool"
        hint = "a type that your own workers run goes into the setting extra_step_types"
        near = reading.report.did_you_mean(declared, known)
        hint = f"{near} {hint}" if near else hint
        reading.report.error("unknown-type", (*layer.place, key), f"the type `{declared}` is not known", hint)
    return "action"


def read_task_inputs(
    reading: Reading, name: str, declared: Declared, around: Surroundings = PLAINLY, role: Role = "inputs"
) -> Inputs:
    """Merge the inputs of a workbook action under those of the step."""
    inputs = NO_INPUTS
    worker = NO_NAMES if declared.kind == "control" else reading.worker_words | around.worker
    part = Part(step=name, role=role, names=around.names, worker=worker)
    for layer in declared.layers:
        inputs = merge(inputs, read_inputs(reading, layer.raw, layer.place, part, declared.own))
    return inputs


def read_fields(
    reading: Reading,
    name: str,
    declared: Declared,
    around: Surroundings = PLAINLY,
    keep: frozenset[str] = NO_NAMES,
) -> tuple[Fields, Raw]:
    """Read the fields of a task into those to render and those handed on as written.

    `keep` are keys of the broker's that are this task's fields.
    """
    part = Part(step=name, role="fields", names=around.names, worker=reading.worker_words | around.worker)
    values: dict[str, tuple[Any, Place]] = {}
    plain: Raw = {}
    for layer in declared.layers:
        if not values.keys().isdisjoint(SAVE_KEYS) and not layer.raw.keys().isdisjoint(SAVE_KEYS):
            values = {key: value for key, value in values.items() if key not in SAVE_KEYS}
        for key, value in layer.raw.items():
            if key in keep or _is_field(key, declared.own):
                values[key] = (value, (*layer.place, key))
            elif key in TOLD_KEYS and value is not None:
                plain[key] = value
    parts: dict[str, Tree | Fields] = {}
    for key, (value, place) in values.items():
        rendered, kept = split_plain(key, value)
        if kept is not None:
            plain[key] = kept
        if rendered is not None or kept is None:
            parts[key] = _field(reading, key, rendered, place, part)
    return Fields(parts, path_text(declared.layers[-1].place)), plain


def _field(reading: Reading, key: str, value: Any, place: Place, part: Part) -> Tree | Fields:
    if key in SAVE_KEYS:
        part = replace(
            part, names=part.names | SAVED_WORDS, worker=part.worker | (SAVE_WORDS - WORKER_WORDS) | SAVED_WORDS
        )
    if key == "task" and isinstance(value, dict) and not value.keys().isdisjoint(SAVE_KEYS):
        inner = {word: _field(reading, word, item, (*place, word), part) for word, item in value.items()}
        return Fields(inner, path_text(place))
    return reading.tree(value, place, part)


def _is_field(key: str, own: frozenset[str]) -> bool:
    return key in own or (key not in BROKER_KEYS and key not in INPUT_WORDS)


def split_plain(key: str, value: Any) -> tuple[Any, Any]:
    """Part a field into what may be rendered and what is handed on as it is; None for a part that is empty."""
    if key in PLAIN_KEYS or key in AFTERWARDS_KEYS:
        return None, value
    if key not in NESTED_TASKS or not isinstance(value, dict):
        return value, None
    rendered: Raw = {}
    plain: Raw = {}
    for inner, item in value.items():
        part, kept = (None, item) if inner in PLAIN_KEYS else split_plain(inner, item)
        if kept is not None:
            plain[inner] = kept
        if part is not None or kept is None:
            rendered[inner] = part
    return rendered, plain or None


def read_call(reading: Reading, name: str, declared: Declared, around: Surroundings = PLAINLY) -> ChildCall | None:
    """Read which playbook a task starts; None, and an error in the report, if it does not say."""
    part = Part(step=name, role="fields", names=around.names)
    path, where = declared.lookup("path")
    if not isinstance(path, str) or not path.strip():
        empty = path is None or isinstance(path, str)
        message = f"`path` is {kind_of(path)}, not the path of a playbook"
        if empty:
            message = f"the playbook step `{name}` has no `path`"
        code = "missing-key" if empty else "bad-value"
        reading.report.error(code, where, message, "write path: folder/of/the/playbook")
        return None
    version, place = declared.lookup("version")
    answer, of_answer = declared.lookup("return_step")
    if answer is not None and not isinstance(answer, str):
        message = f"`return_step` is {kind_of(answer)}, not the name of a step"
        reading.report.error("bad-value", of_answer, message, "write the name of a step of that playbook")
    return ChildCall(
        path=reading.tree(path, where, part),
        version=None if version is None else read_whole(reading, as_version(version), place, part, VERSIONS),
        return_step=None if answer is None else reading.tree(answer, of_answer, part),
    )


def check_texts(reading: Reading, declared: Declared) -> None:
    """Report what is wrong with the program texts of a task."""
    for layer in declared.layers if declared.kind == "action" else ():
        refuse_texts(reading, declared.type, layer.raw, layer.place)


def known_keys(declared: Declared, *, iterating: bool = False) -> frozenset[str] | None:
    """Give the keys that mean something on a task; None where any may (a type of the operator's own)."""
    if declared.type not in OWN_KEYS:
        return None
    keys = BROKER_KEYS.union(INPUT_WORDS, declared.own, SAVE_KEYS)
    if declared.kind != "control":
        keys |= {"auth"}
    return keys | ITERATION_KEYS if iterating else keys


def warn_unknown_keys(reading: Reading, name: str, declared: Declared, known: frozenset[str]) -> None:
    """Warn of keys that the broker does not know; they are handed to the worker all the same."""
    for layer in declared.layers:
        for key in layer.raw:
            if key in known:
                continue
            message = f"the key `{key}` means nothing on the {declared.type} step `{name}`"
            hint = reading.report.did_you_mean(key, known)
            if key == "pass":
                hint = "the step always runs: put the condition into the `next` of the step before it"
            elif key in AFTERWARDS_KEYS:
                worker = "the worker gets it as it is" if declared.kind in WITH_WORKER else "no worker gets it"
                hint = f"{worker}, and the broker does nothing with it"
            reading.report.warning("unknown-key", (*layer.place, key), message, hint, key=True)

"""Reads the task of a step: type, inputs, fields and limits, merged over its workbook action."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from noetl_broker.playbook.deferred import refuse_reads_of_inputs
from noetl_broker.playbook.diagnostics import Location, json_type_name, path_text
from noetl_broker.playbook.fields import Fields
from noetl_broker.playbook.inputs import deferred_names, merge, names_of, read_inputs
from noetl_broker.playbook.keys import Key, Layer, Layers
from noetl_broker.playbook.keywords import (
    BROKER_TYPES,
    CODE_KEYS,
    CONTROL_TYPES,
    ENCODED_KEYS,
    END,
    IGNORED_KEYS,
    INPUT_WORDS,
    LIST_KEYS,
    PLAIN_KEYS,
    PROGRAM_TYPES,
    SAVE_KEYS,
    SAVED_WORDS,
    START,
    TYPE_KEYS,
)
from noetl_broker.playbook.kinds import KINDS_BY_TYPE, TRAITS, StepKind, Traits
from noetl_broker.playbook.model import NO_INPUTS, Inputs, Raw
from noetl_broker.playbook.reader import NO_NAMES, Program, Reading, Role, TemplateSite
from noetl_broker.playbook.step_keys import BROKER_KEYS, FORWARDED_KEYS, JOB_POOL, START_TIMEOUT, TIMEOUT
from noetl_broker.playbook.step_types import ACTION_TYPES, OWN_KEYS
from noetl_broker.template import SAVE_WORDS, WORKER_WORDS, Tree

NO_FIELDS = Fields({}, "")
ADD_STEP_TYPE = "noetl-broker step-type add, and give --dsn; or name it in the setting extra_step_types"
UNKNOWN_TYPE = "unknown-type"  # a code of findings
NESTED_TASKS = frozenset({*SAVE_KEYS, "storage", "task"})  # mappings that may hold program text
# Each word for a program text, with its name in a job.
TEXT_NAMES = {**{key: key for key in PLAIN_KEYS}, **ENCODED_KEYS, "sql_b64": "command_b64"}
NEVER_LISTS = frozenset({"code", "code_b64"})  # other texts may be a list of statements


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared(Layers):
    """A step over its workbook action, with its resolved type."""

    type: str
    kind: StepKind
    task_name: str | None = None

    @property
    def traits(self) -> Traits:
        """The traits of all steps of its kind."""
        return TRAITS[self.kind]

    @property
    def is_foreign(self) -> bool:
        """Whether only people's own workers know the type."""
        return self.type not in OWN_KEYS

    @property
    def own(self) -> frozenset[str]:
        """The keys that the type defines itself."""
        if self.is_foreign:
            return NO_NAMES
        lists = frozenset(word for word in LIST_KEYS.get(self.type, NO_NAMES) if isinstance(self.lookup(word)[0], list))
        return OWN_KEYS.get(self.type, NO_NAMES) | lists


def declare(reading: Reading, name: str, raw: Raw, location: Location) -> Declared:
    """Resolve the type of a step, or of an iterator's task, through the workbook."""
    step = Layer(raw, location)
    declared = _written_type(reading, raw, location)
    if declared == "workbook":
        return _from_workbook(reading, name, step)
    if declared is None:
        resolved = name if name in (START, END) else "route"
        return Declared(type=resolved, kind="router", layers=(step,))
    return Declared(type=declared, kind=_kind(reading, name, declared, (step,)), layers=(step,))


def _written_type(reading: Reading, raw: Raw, location: Location) -> str | None:
    words = [word for word in TYPE_KEYS if raw.get(word) is not None]
    if not words:
        return None
    value = raw[words[0]]
    if len(words) > 1 and raw[words[1]] != value:
        reading.report.error(
            "bad-type", (*location, words[1]), f"`tool` says {raw[words[1]]!r} and `type` says {value!r}", "keep one"
        )
    if not isinstance(value, str):
        reading.report.error(
            "bad-type", (*location, words[0]), f"`{words[0]}` is {json_type_name(value)}", "write the name of a type"
        )
        return "route"
    return value


def _from_workbook(reading: Reading, name: str, step: Layer) -> Declared:
    raw = step.raw
    key = "task" if raw.get("task") is not None or "step" not in raw else "name"
    task, where = raw.get(key), (*step.location, key)
    if not isinstance(task, str):
        what = "names no action" if task is None else f"names {json_type_name(task)}"
        reading.report.error(
            "unknown-action", where, f"the workbook step `{name}` {what}", "write task: name-of-the-action"
        )
        return Declared(type="workbook", kind="action", layers=(step,))
    if task not in reading.actions:
        known = [*reading.actions]
        hint = reading.report.did_you_mean(task, known) if known else "the playbook has no workbook"
        reading.report.error("unknown-action", where, f"the workbook has no action `{task}`", hint)
        return Declared(type="workbook", kind="action", layers=(step,), task_name=task)
    reading.charge_action(task)
    action_raw, action_place = reading.actions[task]
    action = Layer(without_program_texts_of(action_raw, raw), action_place)
    resolved = _written_type(reading, action_raw, action_place)
    if resolved in (None, "workbook"):
        what = "has no type" if resolved is None else "calls the workbook again"
        reading.report.error(
            "bad-type", action_place, f"the workbook action `{task}` {what}", "write type: python, http, …"
        )
        return Declared(type="workbook", kind="action", layers=(action, step), task_name=task)
    if resolved == "iterator" and key == "task":  # else the action's name would be read as the iterator's task
        step = Layer({word: value for word, value in raw.items() if word != key}, step.location)
    layers = (action, step)
    return Declared(type=str(resolved), kind=_kind(reading, name, str(resolved), layers), layers=layers, task_name=task)


def _kind(reading: Reading, name: str, declared: str, layers: Sequence[Layer]) -> StepKind:
    if declared in CONTROL_TYPES:
        return "router"
    if declared == "python" and not any(layer.raw.get(key) for layer in layers for key in CODE_KEYS):
        reading.report.warning(
            "no-code",
            layers[-1].location,
            f"the python step `{name}` has no code, so it runs nothing",
            "give it `code`, or remove its type",
        )
        return "router"
    if declared in KINDS_BY_TYPE:
        return KINDS_BY_TYPE[declared]
    allowed = reading.rules.any_step_type or declared in reading.rules.extra_step_types
    if declared not in ACTION_TYPES and not allowed:
        known = sorted(ACTION_TYPES | CONTROL_TYPES | BROKER_TYPES | {"workbook"} | reading.rules.extra_step_types)
        layer = layers[0]
        key = "type" if layer.raw.get("type") is not None else "tool"
        hint = f"add a type of your own workers: {ADD_STEP_TYPE}"
        near = reading.report.did_you_mean(declared, known)
        hint = f"{near} {hint}" if near else hint
        reading.report.error(UNKNOWN_TYPE, (*layer.location, key), f"the type `{declared}` is not known", hint)
    return "action"


def read_task_inputs(reading: Reading, declared: Declared, site: TemplateSite, role: Role = "inputs") -> Inputs:
    """Merge the inputs of a workbook action under the inputs of the step."""
    inputs = NO_INPUTS
    worker = reading.worker_words | site.worker if declared.traits.waits_for == "worker" else NO_NAMES
    part, first = TemplateSite(step=site.step, role=role, names=site.names, worker=worker), len(reading.uses)
    for layer in declared.layers:
        inputs = merge(inputs, read_inputs(reading, layer.raw, layer.location, part, declared.own))
    if role == "inputs" and deferred_names(inputs):
        refuse_reads_of_inputs(reading, reading.uses[first:], names_of(inputs))
    return inputs


def read_fields(
    reading: Reading,
    declared: Declared,
    site: TemplateSite,
    keep: frozenset[str] = NO_NAMES,
    inputs: Inputs = NO_INPUTS,
) -> tuple[Fields, Raw]:
    """Split the keys of a task into fields that are rendered and values that stay as written.

    `site` has the names of an iterator, which of them are worker-side, and deferred inputs. `keep` are keys of the
    broker that are fields of this task. A field that reads a deferred input is deferred, too.
    """
    names, worker = site.names | names_of(inputs), reading.worker_words | site.worker
    deferred = site.deferred | deferred_names(inputs)
    part = TemplateSite(step=site.step, role="fields", names=names, worker=worker, deferred=deferred)
    values: dict[str, tuple[Any, Location]] = {}
    plain: Raw = {}
    own = declared.own
    for layer in declared.layers:
        if not values.keys().isdisjoint(SAVE_KEYS) and not layer.raw.keys().isdisjoint(SAVE_KEYS):
            values = {key: value for key, value in values.items() if key not in SAVE_KEYS}
        for key, value in layer.raw.items():
            if key in keep or key in own or (key not in BROKER_KEYS and key not in INPUT_WORDS):
                values[key] = (value, (*layer.location, key))
            elif key in FORWARDED_KEYS and value is not None:
                plain[key] = value
    parts: dict[str, Tree | Fields] = {}
    for key, (value, location) in values.items():
        rendered, kept = split_plain(key, value)
        if kept is not None:
            plain[key] = kept
        if rendered is not None or kept is None:
            parts[key] = _field(reading, key, rendered, location, part)
    return Fields(parts, path_text(declared.layers[-1].location)), plain


def _field(reading: Reading, key: str, value: Any, location: Location, part: TemplateSite) -> Tree | Fields:
    if key in SAVE_KEYS:
        part = replace(
            part, names=part.names | SAVED_WORDS, worker=part.worker | (SAVE_WORDS - WORKER_WORDS) | SAVED_WORDS
        )
    if key == "task" and isinstance(value, dict) and not value.keys().isdisjoint(SAVE_KEYS):
        inner = {word: _field(reading, word, item, (*location, word), part) for word, item in value.items()}
        return Fields(inner, path_text(location))
    return reading.tree(value, location, part)


def split_plain(key: str, value: Any) -> tuple[Any, Any]:
    """Split a field into what is rendered and what stays as written; None for an empty part."""
    if key in PLAIN_KEYS or key in IGNORED_KEYS:
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


def check_program_texts(reading: Reading, name: str, declared: Declared, *, is_nested: bool = False) -> None:
    """Report wrong program texts of a task, and keep the program of a python step for further checks."""
    for layer in declared.layers if declared.traits.waits_for == "worker" else ():
        refuse_program_texts(reading, declared.type, layer.raw, layer.location)
    if declared.type != "python" or declared.traits.waits_for != "worker":
        return
    libs = declared.lookup("libs")[0]
    names = frozenset(libs) if isinstance(libs, dict) else NO_NAMES
    for key in ("code", "code_b64"):
        value, location = declared.lookup(key)
        if isinstance(value, str):
            is_plain, text = key == "code", program_text(key, value)
            reading.programs.append(
                Program(step=name, location=location, text=text, is_plain=is_plain, is_nested=is_nested, libs=names)
            )


def program_text(key: str, value: object) -> str:
    """Give the program text under a key, base64 decoded; an empty text if it is none."""
    if isinstance(value, list):
        return "\n".join(program_text(key, item) for item in value)
    if not isinstance(value, str) or not key.endswith("_b64"):
        return value if isinstance(value, str) else ""
    try:
        return base64.b64decode("".join(value.split()), validate=True).decode()
    except ValueError:  # also binascii.Error and UnicodeDecodeError
        return ""


def refuse_program_texts(reading: Reading, kind: str, raw: Raw, location: Location) -> None:
    """Report a program that is no text, and two words for one text: a job holds only one."""
    written: dict[str, str] = {}
    for key, value in raw.items():
        if key not in TEXT_NAMES or value is None:
            continue
        if kind in PROGRAM_TYPES and not isinstance(value, str if key in NEVER_LISTS else str | list):
            message = f"`{key}` is {json_type_name(value)}, not the text of a program"
            reading.report.error("bad-value", (*location, key), message, "write the program itself, as one text")
        first = written.setdefault(TEXT_NAMES[key], key)
        if first != key:
            message, hint = f"`{key}` repeats `{first}`", f"keep `{first}`, or keep `{key}`"
            reading.report.error("doubled-text", (*location, key), message, hint, key=True)


def without_program_texts_of(raw: Raw, over: Raw) -> Raw:
    """Give a workbook action without the program texts that its step replaces, under any word."""
    replaced = {TEXT_NAMES[key] for key, value in over.items() if key in TEXT_NAMES and value is not None}
    return {key: value for key, value in raw.items() if TEXT_NAMES.get(key) not in replaced}


def read_timeout(reading: Reading, declared: Declared, site: TemplateSite) -> float | Tree | None:
    """Read the time limit in seconds, or a template that gives a duration.

    The `timeout` of an http request counts only if it is a number on the step.
    """
    value, where = declared.lookup("timeout")
    if value is None:
        return None
    if "timeout" in declared.own and (where[0] == "workbook" or isinstance(value, str)):
        return None
    limit: float | Tree | None = TIMEOUT.read(reading, declared, site)
    return limit


def read_start_timeout(reading: Reading, declared: Declared, site: TemplateSite) -> float | Tree | None:
    """Read in how many seconds a worker must lease the job, or a template that gives a duration."""
    limit: float | Tree | None = _read_of_worker(reading, declared, site, START_TIMEOUT)
    return limit


def read_pool(reading: Reading, declared: Declared, site: TemplateSite) -> str | Tree | None:
    """Read the pool of workers that run the jobs, or a template that gives its name."""
    pool: str | Tree | None = _read_of_worker(reading, declared, site, JOB_POOL)
    return pool


def _read_of_worker(reading: Reading, declared: Declared, site: TemplateSite, key: Key) -> Any:
    """Read a key that only steps may have that workers run."""
    value, where = declared.lookup(key.name)
    if value is not None and not declared.traits.may_have_worker:
        message = f"`{key.name}` of the step `{site.step}` has no meaning: no worker runs the step"
        reading.report.error("bad-value", where, message, "remove it")
        return None
    return key.read(reading, declared, site)

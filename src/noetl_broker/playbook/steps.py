"""Reads one step of the workflow into its compiled form."""

from __future__ import annotations

import base64
from typing import Any

from noetl_broker.playbook.amounts import read_word
from noetl_broker.playbook.findings import Place
from noetl_broker.playbook.iterations import Iterated, is_iterating, read_iterated
from noetl_broker.playbook.limits import read_priority, read_timeout
from noetl_broker.playbook.model import Join, OnError, Raw, Step
from noetl_broker.playbook.outline import Written
from noetl_broker.playbook.reading import Part, Reading
from noetl_broker.playbook.retries import read_retry
from noetl_broker.playbook.tasks import (
    NO_FIELDS,
    Declared,
    check_texts,
    declare,
    known_keys,
    read_call,
    read_fields,
    read_task_inputs,
    warn_unknown_keys,
)
from noetl_broker.playbook.transitions import read_next
from noetl_broker.playbook.vocabulary import END, PLAIN_KEYS, SAVE_KEYS, SQL_TYPES
from noetl_broker.template import Tree

JOINS: tuple[Join, ...] = ("all", "any", "each")
NEXT_MODES = ("inclusive", "exclusive")


def read_step(reading: Reading, written: Written) -> Step:
    """Read a step; what is wrong with it is in the report, and stands as its default in the result."""
    name, raw, place = written.name, written.raw, written.place
    declared = declare(reading, name, raw, place)
    iterating = is_iterating(declared)
    known = known_keys(declared, iterating=iterating)
    if known is not None:
        warn_unknown_keys(reading, name, declared, known)
    check_texts(reading, declared)
    done = _read_task(reading, written, declared)
    _warn_unused(reading, written, declared, done)
    if name == END and raw.get("next"):
        reading.report.error("end-with-next", (*place, "next"), "`end` has a `next`", "remove it, or rename the step")
    join = _word(reading, raw, place, "join", JOINS)
    return Step(
        name=name,
        index=written.index,
        type=declared.type,
        kind="iterator" if iterating else declared.kind,
        description=_description(raw),
        next=read_next(reading, name, raw.get("next"), (*place, "next")),
        exclusive=_word(reading, raw, place, "next_mode", NEXT_MODES) == "exclusive",
        join=next((word for word in JOINS if word == join), None),
        inputs=done.inputs,
        fields=done.fields,
        plain=done.plain,
        on_error=_on_error(reading, declared),
        timeout=read_timeout(reading, declared),
        priority=read_priority(reading, declared),
        retry=read_retry(reading, name, *declared.lookup("retry")),
        result=_result(reading, name, raw, place),
        save_data=_save_data(reading, name, raw, place),
        task_name=declared.task_name,
        call=read_call(reading, name, declared) if declared.kind == "playbook" and not iterating else None,
        iteration=done.iteration,
        raw=raw,
    )


def _read_task(reading: Reading, written: Written, declared: Declared) -> Iterated:
    if is_iterating(declared):
        return read_iterated(reading, written, declared)
    inputs = read_task_inputs(reading, written.name, declared)
    if declared.kind == "action":
        fields, plain = read_fields(reading, written.name, declared)
        return Iterated(iteration=None, inputs=inputs, fields=fields, plain=plain)
    return Iterated(iteration=None, inputs=inputs, fields=NO_FIELDS, plain={})


def _warn_unused(reading: Reading, written: Written, declared: Declared, done: Iterated) -> None:
    report, name, raw, place = reading.report, written.name, written.raw, written.place
    for key in PLAIN_KEYS if declared.type in SQL_TYPES else ():
        if "{{" in _program_text(key, done.plain.get(key)):
            report.warning(
                "code-template",
                declared.lookup(key)[1],
                f"the templates in `{key}` of the {declared.type} step `{name}` are not rendered",
                "write the statement under `command`",
            )
    if raw.get("result") is not None and name != END:
        report.warning(
            "unused-key", (*place, "result"), f"`result` of step `{name}` is not read", "only `end` has one", key=True
        )
    expanded = done.iteration is not None and done.iteration.expanded
    retry, where = declared.lookup("retry")
    if expanded and retry:
        message = f"`retry` of the iterator `{name}` does nothing: each of its items is started once"
        hint = "write it into the playbook that is started, or let one worker iterate"
        report.warning("unused-key", where, message, hint, key=True)
    by_worker = declared.kind == "action" or (done.iteration is not None and not done.iteration.expanded)
    if by_worker:
        return
    for key in SAVE_KEYS:
        if raw.get(key) is not None:
            message = f"`{key}` of step `{name}` saves nothing, because no worker runs the step"
            hint = "add a step that saves"
            if name == END:
                hint = "write type: save on it; as it is, its data is at most the result of the execution"
            report.warning("unused-key", (*place, key), message, hint, key=True)


def _program_text(key: str, value: object) -> str:
    """Give what is under a key that is never rendered; what is no base64 is no text."""
    if isinstance(value, list):
        return "\n".join(_program_text(key, item) for item in value)
    if not isinstance(value, str) or not key.endswith("_b64"):
        return value if isinstance(value, str) else ""
    try:
        return base64.b64decode("".join(value.split()), validate=True).decode()
    except ValueError:  # binascii.Error and UnicodeDecodeError are such
        return ""


def _description(raw: Raw) -> str | None:
    text = raw.get("desc", raw.get("description"))
    return text if isinstance(text, str) else None


def _word(reading: Reading, raw: Raw, place: Place, key: str, words: tuple[str, ...]) -> str | None:
    value = raw.get(key)
    return None if value is None else read_word(reading, value, (*place, key), words)


def _on_error(reading: Reading, declared: Declared) -> OnError:
    value, where = declared.lookup("on_error")
    if declared.kind == "iterator":  # it says what a failed item does too, and is checked there
        return "continue" if value == "continue" else "fail"
    if value is not None and read_word(reading, value, where, ("fail", "continue")) == "continue":
        return "continue"
    return "fail"


def _result(reading: Reading, name: str, raw: Raw, place: Place) -> Tree | None:
    if name != END or raw.get("result") is None:
        return None
    return reading.tree(raw["result"], (*place, "result"), Part(step=name, role="result"))


def _save_data(reading: Reading, name: str, raw: Raw, place: Place) -> Tree | None:
    """Read what `end` saves, which is the execution's result where nothing else is."""
    if name != END:
        return None
    for key in SAVE_KEYS:
        save: Any = raw.get(key)
        for word in ("data", "args"):
            if isinstance(save, dict) and save.get(word) is not None:
                return reading.tree(save[word], (*place, key, word), Part(step=name, role="result"))
    return None

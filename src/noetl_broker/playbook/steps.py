"""Reads one step of the workflow into its compiled form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from noetl_broker.playbook.approval import read_approval
from noetl_broker.playbook.calls import read_call
from noetl_broker.playbook.catch import read_catch, read_output
from noetl_broker.playbook.compensate import read_compensate
from noetl_broker.playbook.diagnostics import Location
from noetl_broker.playbook.fail import read_fail
from noetl_broker.playbook.header import WrittenStep
from noetl_broker.playbook.iterations import Iterated, is_iterating, read_iterated
from noetl_broker.playbook.joins import read_join
from noetl_broker.playbook.keys import of_mapping
from noetl_broker.playbook.keywords import (
    END,
    LOOP_NAME,
    PLAIN_KEYS,
    SAVE_KEYS,
    SQL_TYPES,
    START,
)
from noetl_broker.playbook.kinds import StepKind
from noetl_broker.playbook.model import Iteration, OnError, Raw, Retry, Step, Throttle
from noetl_broker.playbook.own_keys import refuse_wrong_keys
from noetl_broker.playbook.reader import NO_NAMES, Reading, TemplateSite
from noetl_broker.playbook.retries import read_retry
from noetl_broker.playbook.signals import read_signal
from noetl_broker.playbook.step_keys import JOB_PRIORITY, LATE_AFTER, NEXT_MODE, ON_ERROR
from noetl_broker.playbook.tasks import (
    NO_FIELDS,
    Declared,
    check_program_texts,
    declare,
    program_text,
    read_fields,
    read_pool,
    read_start_timeout,
    read_task_inputs,
    read_timeout,
)
from noetl_broker.playbook.throttle import read_throttle
from noetl_broker.playbook.transitions import read_next
from noetl_broker.playbook.wait import read_wait
from noetl_broker.template import Tree

# The keys of a kind: the field of the step that each becomes, and its reader.
READERS: Mapping[StepKind, tuple[str, Callable[[Reading, Declared, TemplateSite], object]]] = MappingProxyType(
    {
        "playbook": ("call", read_call),
        "wait": ("wait", read_wait),
        "approval": ("approval", read_approval),
        "signal": ("signal", read_signal),
        "fail": ("fail", read_fail),
    }
)


def read_step(reading: Reading, written: WrittenStep) -> Step:
    """Read a step; a wrong value is reported and becomes its default."""
    name, raw, location = written.name, written.raw, written.location
    declared = declare(reading, name, raw, location)
    iterating = is_iterating(declared)
    refuse_wrong_keys(reading, name, declared, iterating=iterating)
    check_program_texts(reading, name, declared)
    site = TemplateSite(step=name, role="fields")
    done = _read_task(reading, written, declared, site)
    _warn_unused(reading, written, declared, done)
    if name == END and raw.get("next"):
        reading.report.error(
            "end-with-next", (*location, "next"), "`end` has a `next`", "remove it, or rename the step"
        )
    iteration, retry = _read_retry(reading, name, declared, done.iteration)
    return Step(
        name=name,
        index=written.index,
        type=declared.type,
        kind=_kind(name, declared, done),
        description=_description(raw),
        next=read_next(reading, name, raw.get("next"), (*location, "next")),
        catch=read_catch(reading, written, declared),
        exclusive=NEXT_MODE.read(reading, of_mapping(raw, location), site) == "exclusive",
        **read_join(reading, name, raw.get("join"), (*location, "join")),
        inputs=done.inputs,
        fields=done.fields,
        plain=done.plain,
        on_error=_on_error(reading, declared, site),
        timeout=_timeout(reading, declared, site),
        start_timeout=read_start_timeout(reading, declared, site),
        late_after=_late_after(reading, written, declared, site),
        priority=JOB_PRIORITY.read(reading, declared, site),
        pool=read_pool(reading, declared, site),
        retry=retry,
        result=_result(reading, name, raw, location),
        output=read_output(reading, name, declared, iterating=iterating),
        save_data=_save_data(reading, name, raw, location) if not declared.traits.has_action else None,
        task_name=declared.task_name,
        **({} if iterating else _read_own(reading, declared, site)),
        throttle=_throttle(reading, declared, done, site),
        compensate=read_compensate(reading, name, written.index, declared),
        iteration=iteration,
        raw=raw,
    )


def _read_own(reading: Reading, declared: Declared, site: TemplateSite) -> dict[str, Any]:
    """Read the keys that only steps of this kind have."""
    if declared.kind not in READERS:
        return {}
    field, read = READERS[declared.kind]
    return {field: read(reading, declared, site)}


def _timeout(reading: Reading, declared: Declared, site: TemplateSite) -> float | Tree | None:
    """Read the time limit of the step's job; a step without an action may have one, which has no effect."""
    has_limit = declared.traits.has_job or not declared.traits.has_action
    return read_timeout(reading, declared, site) if has_limit else None


def _late_after(reading: Reading, written: WrittenStep, declared: Declared, site: TemplateSite) -> float | Tree | None:
    """Read after what time a visit is late; that of a step whose visits end at once is reported."""
    source = of_mapping(written.raw, written.location)
    seconds: float | Tree | None = LATE_AFTER.read(reading, source, site)
    if seconds is None or is_iterating(declared) or declared.traits.waits_for != "nothing":
        return seconds
    message = f"`late_after` of the step `{written.name}` has no meaning: its visits end at once"
    reading.report.error("bad-value", (*written.location, "late_after"), message, "remove it")
    return None


def _kind(name: str, declared: Declared, done: Iterated) -> StepKind:
    if done.iteration is not None:
        return "iterator" if done.iteration.expanded else "action"
    if declared.kind == "router" and name in (START, END):
        return "start" if name == START else "end"
    return declared.kind


def _throttle(reading: Reading, declared: Declared, done: Iterated, site: TemplateSite) -> Throttle | None:
    """Read the throttle of the step's jobs; on an expanded iterator each item has a job."""
    expanded = done.iteration is not None and done.iteration.expanded
    if expanded and declared.kind != "iterator":  # the step is the task of its `loop`
        return None
    hint = "write it in the task: each item has a job" if expanded else ""
    by_worker = _kind(site.step or "", declared, done) == "action"
    return read_throttle(reading, declared, site, by_worker=by_worker, hint=hint)


def _read_task(reading: Reading, written: WrittenStep, declared: Declared, site: TemplateSite) -> Iterated:
    if is_iterating(declared):
        return read_iterated(reading, written, declared)
    inputs = read_task_inputs(reading, declared, site)
    if declared.traits.waits_for == "worker":
        fields, plain = read_fields(reading, declared, site, inputs=inputs)
        return Iterated(iteration=None, inputs=inputs, fields=fields, plain=plain)
    return Iterated(iteration=None, inputs=inputs, fields=NO_FIELDS, plain={})


def _read_retry(
    reading: Reading, name: str, declared: Declared, iteration: Iteration | None
) -> tuple[Iteration | None, Retry | None]:
    """Read `retry`; if the broker expands the `loop` of the step, its `retry` counts for each item."""
    of_items = iteration is not None and iteration.expanded and declared.kind != "iterator"
    names = frozenset({iteration.element, LOOP_NAME}) if iteration is not None and of_items else NO_NAMES
    retry = read_retry(reading, name, *declared.lookup("retry"), names=names)
    if iteration is None or not of_items:
        return iteration, retry
    return replace(iteration, task=replace(iteration.task, retry=retry)), None


def _warn_unused(reading: Reading, written: WrittenStep, declared: Declared, done: Iterated) -> None:
    report, name, raw, location = reading.report, written.name, written.raw, written.location
    for key in PLAIN_KEYS if declared.type in SQL_TYPES else ():
        if "{{" in program_text(key, done.plain.get(key)):
            report.warning(
                "code-template",
                declared.lookup(key)[1],
                f"the templates in `{key}` of the {declared.type} step `{name}` are not rendered",
                "write the statement under `command`",
            )
    if raw.get("result") is not None and name != END:
        report.warning(
            "unused-key",
            (*location, "result"),
            f"`result` of step `{name}` is not read",
            "only `end` has one",
            key=True,
        )
    expanded = done.iteration is not None and done.iteration.expanded
    retry, where = declared.lookup("retry")
    if expanded and retry and declared.kind == "iterator":
        message = f"`retry` of the iterator `{name}` does nothing: an iterator is not started again"
        hint = "write it in the `task`: each item is retried by itself"
        report.warning("unused-key", where, message, hint, key=True)
    by_worker = declared.traits.waits_for == "worker" or (done.iteration is not None and not done.iteration.expanded)
    if by_worker:
        return
    for key in SAVE_KEYS:
        if raw.get(key) is not None:
            message = f"`{key}` of step `{name}` has no effect, because no worker runs the step"
            hint = "add a step that saves"
            if name == END:
                hint = "write type: save; without it, `data` is only the execution's result"
            report.warning("unused-key", (*location, key), message, hint, key=True)


def _description(raw: Raw) -> str | None:
    text = raw.get("desc", raw.get("description"))
    return text if isinstance(text, str) else None


def _on_error(reading: Reading, declared: Declared, site: TemplateSite) -> OnError:
    if declared.kind == "iterator":  # also a key of the loop, and checked there
        return "continue" if declared.lookup("on_error")[0] == "continue" else "fail"
    return "continue" if ON_ERROR.read(reading, declared, site) == "continue" else "fail"


def _result(reading: Reading, name: str, raw: Raw, location: Location) -> Tree | None:
    if name != END or raw.get("result") is None:
        return None
    return reading.tree(raw["result"], (*location, "result"), TemplateSite(step=name, role="result"))


def _save_data(reading: Reading, name: str, raw: Raw, location: Location) -> Tree | None:
    """Read `save.data` of an `end` without an action: the execution's result if `end` has no other."""
    if name != END:
        return None
    for key in SAVE_KEYS:
        save: Any = raw.get(key)
        for word in ("data", "args"):
            if isinstance(save, dict) and save.get(word) is not None:
                return reading.tree(save[word], (*location, key, word), TemplateSite(step=name, role="result"))
    return None

"""Reads `compensate`: the action that undoes a step, or an item of an iterator, as a step of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from noetl_broker.node_ids import UNDO_SUFFIX
from noetl_broker.playbook.calls import read_action
from noetl_broker.playbook.diagnostics import Location, json_type_name
from noetl_broker.playbook.inputs import names_of
from noetl_broker.playbook.keywords import COMPENSATE
from noetl_broker.playbook.model import Playbook, Raw, Step
from noetl_broker.playbook.own_keys import refuse_wrong_keys
from noetl_broker.playbook.reader import NO_NAMES, Reading, TemplateSite, templates_of
from noetl_broker.playbook.retries import read_retry
from noetl_broker.playbook.scopes import Scopes
from noetl_broker.playbook.step_keys import JOB_PRIORITY
from noetl_broker.playbook.tasks import (
    Declared,
    check_program_texts,
    declare,
    read_pool,
    read_start_timeout,
    read_timeout,
)
from noetl_broker.playbook.template_reads import required_names

CODE: Final = "bad-compensate"
NOT_READ: Final = (
    *("next", "next_mode", "join", "on_error", "catch", "result", "output", "loop", "late_after"),
    COMPENSATE,
)
WORDS: Final = frozenset({"error"})  # what its templates find beside inputs, `result` and the workload


def read_compensate(
    reading: Reading, name: str, index: int, declared: Declared, element: frozenset[str] = NO_NAMES
) -> Step | None:
    """Read the `compensate` of a step or of an iterator's task; report errors and give None if it has none.

    `element` are the names of an item, for the templates of a task's `compensate`.
    """
    raw, location = declared.lookup(COMPENSATE)
    if raw is None:
        return None
    if not declared.traits.has_job:
        message = f"the step `{name}` of type `{declared.type}` has a `{COMPENSATE}`, and does nothing to be undone"
        reading.report.error(CODE, location, message, "write it on a step with an action, a playbook or an iterator")
        return None
    if isinstance(raw, str):
        raw = {"type": "workbook", "task": raw}
    if not isinstance(raw, dict):
        message = f"the `{COMPENSATE}` of `{name}` is {json_type_name(raw)}"
        reading.report.error(
            CODE, location, message, f"write {COMPENSATE}: {{type: …}}, or the name of a workbook action"
        )
        return None
    undo = _declared(reading, name, raw, location)
    return None if undo is None else _step(reading, name, index, undo, element)


def _declared(reading: Reading, name: str, raw: Raw, location: Location) -> Declared | None:
    """Resolve the type of an undo; report an undo that is neither one action nor one playbook."""
    undo = declare(reading, name, raw, location)
    is_one = undo.traits.waits_for in {"worker", "child"}
    if not is_one or undo.lookup("loop")[0] is not None:
        what = "has a `loop`" if is_one else f"is a step of type `{undo.type}`"
        if undo.lookup("type")[0] is None and undo.lookup("tool")[0] is None:
            what = "has no type"
        hint = f"write {COMPENSATE}: {{type: …}} with one action, or with type: playbook for several steps"
        reading.report.error(CODE, location, f"the `{COMPENSATE}` of `{name}` {what}", hint)
        return None
    if raw.get("workflow") is not None:
        message = f"the `{COMPENSATE}` of `{name}` has a `workflow`"
        reading.report.error(
            CODE, (*location, "workflow"), message, "write path: with the path of a playbook", key=True
        )
        return None
    for key in NOT_READ:
        if raw.get(key) is not None:
            message = f"`{key}` in the `{COMPENSATE}` of `{name}` is not read"
            reading.report.error(CODE, (*location, key), message, "remove it", key=True)
    refuse_wrong_keys(reading, f"{name}{UNDO_SUFFIX}", undo)
    check_program_texts(reading, f"{name}{UNDO_SUFFIX}", undo)
    return undo


def _step(reading: Reading, name: str, index: int, undo: Declared, element: frozenset[str]) -> Step:
    """Compile the undo; its templates have a role of their own."""
    first = len(reading.uses)
    site = TemplateSite(step=name, role="fields", names=element | WORDS)
    action = read_action(reading, undo, site)
    limits = replace(site, names=site.names | names_of(action["inputs"]))
    step = Step(
        name=name,
        index=index,
        **action,
        timeout=read_timeout(reading, undo, limits),
        start_timeout=read_start_timeout(reading, undo, limits),
        priority=JOB_PRIORITY.read(reading, undo, site),
        pool=read_pool(reading, undo, limits),
    )
    for number in range(first, len(reading.uses)):
        use = reading.uses[number]
        reading.uses[number] = replace(use, part=replace(use.part, role="compensate"))
    return replace(step, retry=read_retry(reading, name, *undo.lookup("retry")))


def refuse_step_reads(reading: Reading, playbook: Playbook) -> None:
    """Report each template of a `compensate` that reads the result of a step.

    When it runs, the execution is over, or another one does the undo: there are no results of steps.
    """
    uses = [use for use in reading.uses if use.part.role == "compensate"]
    scopes = Scopes(reading, playbook.steps) if uses else None
    for use in uses:
        step = playbook.steps.get(use.part.step or "")
        if step is None or scopes is None:
            continue
        seen = scopes.of_use(use)
        hidden = use.part.names | seen.possible
        for location, text in templates_of(use):
            read = sorted((required_names(text) | use.names) & playbook.steps.keys() - hidden)
            for other in read if seen.complete else ():
                message = f"the `{COMPENSATE}` of `{step.name}` reads the result of the step `{other}`"
                remedy = "write `result`" if other == step.name else f"give it to `{step.name}` as an input"
                reading.report.error(
                    CODE, location, message, f"{remedy}: it sees inputs, result, error and the workload"
                )

"""Reads which playbook a task starts: its path, or the block in place of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from noetl_broker.playbook.blocks import KEY as BLOCK
from noetl_broker.playbook.blocks import block_path
from noetl_broker.playbook.diagnostics import json_type_name
from noetl_broker.playbook.inputs import names_of
from noetl_broker.playbook.keys import A_TEXT, LARGEST_VERSION, Key, as_version, whole
from noetl_broker.playbook.model import ChildCall, Raw
from noetl_broker.playbook.reader import CallOfPath, Reading, TemplateSite, WrittenBlock
from noetl_broker.playbook.tasks import (
    NO_FIELDS,
    Declared,
    read_fields,
    read_task_inputs,
)

CODE: Final = "bad-block"
BESIDE: Final = {"path": "keep one of them", "version": "remove it: a block has the version of its playbook"}
LONGEST_PATH: Final = 1000  # characters
VERSION: Final = whole(1, LARGEST_VERSION)
STEP_NAME: Final = A_TEXT._replace(
    wanted="the name of a step", hint="write the name of a step of that playbook", compiled=True
)
RETURN_STEP: Final = Key("return_step", STEP_NAME)


def read_action(reading: Reading, task: Declared, site: TemplateSite) -> dict[str, Any]:
    """Read the fields of a step that is the task of an iterator, or an undo: an action or a playbook."""
    inputs = read_task_inputs(reading, task, site)
    fields, call = NO_FIELDS, None
    plain: Raw = {}
    if task.traits.waits_for == "child":
        call = read_call(reading, task, replace(site, names=site.names | names_of(inputs)))
    else:
        fields, plain = read_fields(reading, task, site, inputs=inputs)
    done = {"inputs": inputs, "fields": fields, "plain": plain, "call": call, "raw": task.layers[-1].raw}
    return {"type": task.type, "kind": task.kind, "task_name": task.task_name, **done}


def read_call(reading: Reading, declared: Declared, site: TemplateSite) -> ChildCall | None:
    """Read which playbook a task starts; report an error and give None if it has no usable `path`."""
    if declared.lookup(BLOCK)[0] is not None:
        return _read_block(reading, declared, site)
    limit, location = declared.lookup("concurrency")
    if limit is not None and location[0] != "workbook" and not isinstance(limit, int):
        message, hint = (
            f"`concurrency` of the step `{site.step}` has no effect",
            "write it in the metadata of that playbook",
        )
        reading.report.warning("unused-key", location, message, hint, key=True)
    path, where = declared.lookup("path")
    if not isinstance(path, str) or not path.strip():
        empty = path is None or isinstance(path, str)
        message = f"`path` is {json_type_name(path)}, not the path of a playbook"
        if empty:
            message = f"the playbook step `{site.step}` has no `path`"
        code = "missing-key" if empty else "bad-value"
        reading.report.error(code, where, message, "write path: folder/of/the/playbook")
        return None
    version, location = declared.lookup("version")
    reading.calls.append(CallOfPath(where, path, as_version(version)))
    return ChildCall(
        path=reading.tree(path, where, site),
        version=None if version is None else VERSION.read(reading, as_version(version), location, site),
        return_step=RETURN_STEP.read(reading, declared, site),
    )


def _read_block(reading: Reading, declared: Declared, site: TemplateSite) -> ChildCall | None:
    """Read the call of a block, and note the block; report an error and give None if it is none."""
    workflow, where = declared.lookup(BLOCK)
    report, name = reading.report, site.step or ""
    if where[0] == "workbook":
        message = f"the workbook action `{declared.task_name}` has a `{BLOCK}`"
        report.error(CODE, where, message, "write the block on the step", key=True)
        return None
    for key, remedy in BESIDE.items():
        if declared.lookup(key)[0] is not None:
            message = f"the playbook step `{name}` has both `{BLOCK}` and `{key}`"
            report.error(CODE, declared.lookup(key)[1], message, remedy, key=True)
    if not isinstance(workflow, list):
        message = f"`{BLOCK}` of the step `{name}` is {json_type_name(workflow)}, not a list of steps"
        report.error("wrong-type", where, message, f"write {BLOCK}: [{{step: start, next: …}}]")
        return None
    path = block_path(reading.path, name)
    if len(path) > LONGEST_PATH:
        message = f"the path of the block has {len(path)} characters; it may have {LONGEST_PATH}"
        report.error("long-name", where, message, "shorten the names of the steps around it", key=True)
        return None
    if name in reading.blocks:
        report.error(CODE, where, f"the step `{name}` has two blocks", "keep one of them", key=True)
        return None
    reading.blocks[name] = WrittenBlock(workflow, where, *declared.lookup("concurrency"))
    return ChildCall(
        path=reading.tree(None, where, site), block=path, return_step=RETURN_STEP.read(reading, declared, site)
    )

"""The steps, arcs and workbook actions of a playbook, for the tracking tables."""

from __future__ import annotations

from noetl_broker.playbook.model import Playbook
from noetl_broker.store.json_codec import dump_json


def shape_of(playbook: Playbook) -> tuple[str, str, str]:
    """The steps, arcs and workbook actions of a playbook as JSON, for the tracking tables."""
    steps = [
        {"ordinal": step.index, "name": step.name, "type": step.type, "description": step.description,
         "raw": dump_json(step.raw)}
        for step in playbook.steps.values()
    ]  # fmt: skip
    arcs = [
        {"ordinal": arc.ordinal, "source": arc.source, "target": arc.target, "condition": arc.condition,
         "inputs": dump_json(arc.inputs) if arc.inputs else None}
        for arc in playbook.arcs
    ]  # fmt: skip
    tasks = [{"name": task.name, "type": task.type, "raw": dump_json(task.raw)} for task in playbook.workbook]
    return dump_json(steps), dump_json(arcs), dump_json(tasks)

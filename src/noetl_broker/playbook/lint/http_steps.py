"""Warns of inputs of an http step that nobody reads: the reference worker does not send them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from noetl_broker.playbook.diagnostics import Location
from noetl_broker.playbook.keywords import COMPENSATE, TYPE_KEYS
from noetl_broker.playbook.model import Playbook, Step
from noetl_broker.playbook.reader import Reading
from noetl_broker.playbook.scopes import arriving_inputs
from noetl_broker.playbook.template_reads import ARGS

HTTP = "http"
SENT = frozenset({"data", "payload", "body", "json", "params"})
NOT_SENT = ("args", "input", "with")


def warn_unsent_inputs(reading: Reading, playbook: Playbook, locations: Mapping[str, Location]) -> None:
    """Warn of each request that has inputs, sends no value, and reads none of them in a template."""
    read: dict[str, set[str]] = {name: set() for name in playbook.steps}
    for use in reading.uses:
        step = playbook.steps.get(use.part.step or "")
        if step is not None and (use.part.role != "inputs" or step.iteration is not None):
            read[step.name] |= use.names  # only inputs of a task may read its iterator's inputs
    arriving = arriving_inputs(playbook.steps)
    for name, step in playbook.steps.items():
        if any(not SENT.isdisjoint(inputs.aliases) for _, inputs in arriving.get(name, ())):
            continue
        for raw, location in _requests(step, locations[name][:-1]):
            words = [word for word in NOT_SENT if isinstance(raw.get(word), dict) and raw[word]]
            given = sorted({str(key) for word in words for key in raw[word]})
            if not words or not SENT.isdisjoint(raw) or not read[name].isdisjoint((*given, ARGS)):
                continue
            message = f"the reference worker does not send `{words[0]}`, and no template of `{name}` reads {given[0]}"
            hint = "write data for a body, with method: POST, or params for the query"
            reading.report.warning("unused-input", (*location, words[0]), message, hint, key=True)


def _requests(step: Step, location: Location) -> Iterator[tuple[Mapping[str, Any], Location]]:
    """Give the http actions that a step writes itself: its action, its iterator's action, and their undo actions."""
    task = step.raw.get("task")
    levels = [(step.raw, location)] + ([(task, (*location, "task"))] if isinstance(task, dict) else [])
    for raw, where in levels:
        undo = raw.get(COMPENSATE)
        for action, at in ((raw, where), (undo, (*where, COMPENSATE))):
            if isinstance(action, dict) and next((action[key] for key in TYPE_KEYS if action.get(key)), None) == HTTP:
                yield action, at

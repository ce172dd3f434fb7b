"""Warns of misspelt keys of the workload, and of unknown fields of a result that the broker makes."""

from __future__ import annotations

from noetl_broker.playbook.approval import COMMENT, FORM, RESERVED
from noetl_broker.playbook.model import Playbook, Step
from noetl_broker.playbook.reader import COST_OF_COPY, Reading, templates_of
from noetl_broker.playbook.scopes import Scopes, Seen
from noetl_broker.playbook.template_reads import WORDS_FOR_WORKLOAD, reads_of
from noetl_broker.template import OLD_WORKLOAD_WORD, Path

CODE = "unknown-name"
WHOLE = frozenset({"data", "result"})  # of a step: the data itself
PARTS = frozenset({*WHOLE, "status", "error"})


def warn_unknown_fields(reading: Reading, playbook: Playbook, given: frozenset[str] | None) -> None:
    """Warn of `workload.key` if another key is near, and of `approval.field` if there is no such field.

    `given` are the keys of the workload; None: any may be given. The payload may bring others.
    """
    scopes = Scopes(reading, playbook.steps)
    fields = {name: known for name, step in playbook.steps.items() if (known := _fields_of(step)) is not None}
    for use in reading.uses:
        seen = scopes.of_use(use) if use.part.step is not None else Seen()
        if not seen.complete or (use.part.role == "inputs" and not scopes.is_rendered(use)):
            continue
        hidden = use.part.names | seen.possible
        for location, text in templates_of(use):
            reading.work.spend(len(text) // COST_OF_COPY)
            for path in sorted((path for path in reads_of(text) if path[0] not in hidden), key=str):
                fault = _fault(reading, playbook, given, fields, path)
                if fault is not None:
                    message = f"the template reads `{'.'.join(map(str, path))}`, and {fault[0]}"
                    reading.report.warning(CODE, location, message, fault[1])


def _fault(
    reading: Reading, playbook: Playbook, given: frozenset[str] | None, fields: dict[str, frozenset[str]], path: Path
) -> tuple[str, str] | None:
    """Give what is wrong with a path that reads an unknown key, and a hint."""
    step, *keys = path[1:] if path[0] == "results" and path[1:] else path
    key = next((key for key in keys if step not in fields or key not in WHOLE), None)
    if not isinstance(key, str):
        return None
    if step in fields:
        known, kind = fields[str(step)], playbook.steps[str(step)].type
        if key in known | PARTS:
            return None
        return f"the result of the {kind} step `{step}` has no `{key}`", reading.report.did_you_mean(key, known)
    word = path[0]
    is_workload = word in WORDS_FOR_WORKLOAD and word not in playbook.steps
    if given is None or not is_workload or key in given or (word == OLD_WORKLOAD_WORD and word in given):
        return None
    hint = reading.report.did_you_mean(key, given)
    return (f"the workload has no key `{key}`", hint) if hint.startswith("did") else None


def _fields_of(step: Step) -> frozenset[str] | None:
    """Give the fields of a result that the broker makes; None if they are not known."""
    if step.output is not None or step.task_name is not None:
        return None
    if step.kind == "approval":
        form = step.raw.get(FORM) or {}
        return RESERVED.union({COMMENT}, form) if isinstance(form, dict) else None
    if step.wait is not None and step.wait.signals is None:
        return frozenset({"waited_until"})
    return frozenset({"name", "key"}) if step.kind == "signal" else None

"""Warns of unknown names in templates, and of names that hide others."""

from __future__ import annotations

from collections.abc import Mapping

from noetl_broker.playbook.diagnostics import Location
from noetl_broker.playbook.keywords import FUNCTIONS, SCOPE_WORDS, SIGNAL
from noetl_broker.playbook.model import Playbook
from noetl_broker.playbook.reader import COST_OF_COPY, Reading, Use, templates_of
from noetl_broker.playbook.schedules import WORKLOAD_KEY, declares_schedule
from noetl_broker.playbook.scopes import Scopes, Seen
from noetl_broker.template import OLD_WORKLOAD_WORD, WORKER_WORDS, WORKLOAD_WORDS, TemplateError, compile_text

ALWAYS = SCOPE_WORDS | {OLD_WORKLOAD_WORD}
REMEDIES = {
    **{name: f"write `{name}()`" for name in FUNCTIONS},
    "null": "write `none`",
    "vars": "write the step's name, or `result` for the step just completed",
}
MEANINGS = {
    **dict.fromkeys((*WORKLOAD_WORDS, OLD_WORKLOAD_WORD), "the workload"),
    **dict.fromkeys(("result", "this"), "the result of the step just completed"),
    **dict.fromkeys(WORKER_WORDS, "the word of the worker"),
    **{name: f"the function {name}()" for name in FUNCTIONS},
    "args": "all inputs",
    "execution_id": "the id of the execution",
    "results": "the results of all steps",
    "_loop": "the index of an item",
}
PAYLOAD_REMEDY = "give it a default under `workload` if the payload brings it"
BLOCK_REMEDY = "a block sees only the inputs of its step: add it to `args`"


def warn_unknown_names(reading: Reading, playbook: Playbook, given: frozenset[str]) -> None:
    """Warn of each template that names neither a step, a workload key (`given`), an input nor a scope word."""
    common = ALWAYS | WORKER_WORDS | playbook.steps.keys() | given
    scopes = Scopes(reading, playbook.steps)
    for use in reading.uses:
        if use.part.role == "inputs" and not scopes.is_rendered(use):
            continue
        seen = scopes.of_use(use) if use.part.step is not None else Seen()
        unknown = use.names - common - use.part.names - use.part.worker
        if seen.complete and unknown:
            reading.work.spend((len(common) + len(seen.possible)) // COST_OF_COPY)
            _warn(reading, use, unknown - seen.possible, common | use.part.names | seen.possible)
        for name in sorted((use.results or frozenset()) - playbook.steps.keys()):
            hint = reading.report.did_you_mean(name, playbook.steps) or "name a step"
            message = f"the template reads results['{name}'], and there is no step of that name"
            reading.report.warning("unknown-name", use.location, message, hint)


def workload_keys(playbook: Playbook) -> frozenset[str]:
    """Give the keys of the defaults, of the workload's schema, and of a schedule."""
    schema = playbook.workload_schema or {}
    started = [WORKLOAD_KEY] if declares_schedule(playbook.document) else []
    started += [SIGNAL] if playbook.on_signal else []
    return frozenset(playbook.workload).union(schema.get("properties", ()), schema.get("required", ()), started)


def _warn(reading: Reading, use: Use, unknown: frozenset[str], known: frozenset[str]) -> None:
    """Warn of the given unknown names in one value."""
    for location, text in templates_of(use) if unknown else ():
        for name in sorted(unknown & _names_of(text)):
            near = reading.report.did_you_mean(name, known) if len(name) > 1 else ""
            remedy = BLOCK_REMEDY if reading.location else PAYLOAD_REMEDY
            hint = REMEDIES.get(name) or (near if near.startswith("did") else remedy)
            reading.report.warning(
                "unknown-name",
                location,
                f"the template names `{name}`, which is neither a step, a workload key nor a scope word",
                hint,
            )


def _names_of(text: str) -> frozenset[str]:
    try:
        return compile_text(text, "", max_source_chars=None).names
    except TemplateError:  # a deferred string with filters that the broker does not know
        return frozenset()


def warn_shadowing(
    reading: Reading, playbook: Playbook, locations: Mapping[str, Location], keys: frozenset[str]
) -> None:
    """Warn of steps that hide a scope word or a workload key (`keys`), and of inputs that hide an element."""
    for name, location in locations.items():
        hidden, hint = MEANINGS.get(name), "rename the step"
        if hidden is None and name in keys:
            hidden, hint = "the workload key", f"rename the step, or write workload.{name}"
        if hidden is not None:
            message = f"templates find the result of the step `{name}` under its name, and no longer {hidden}"
            reading.report.warning("shadowed-name", location, message, hint)
    scopes = Scopes(reading, playbook.steps)
    for name, step in playbook.steps.items():
        iteration = step.iteration
        if iteration is None or not iteration.expanded:
            continue
        over = scopes.of_task_inputs(step)  # inputs of the task itself may have the element's name
        if over.complete and iteration.element in over.possible:
            message = f"an input hides the element `{iteration.element}` in the items of the iterator `{name}`"
            reading.report.warning("shadowed-name", locations[name], message, "choose another name")

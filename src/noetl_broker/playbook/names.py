"""Warns of names: what a template names and nobody gives, and steps that hide a word of the scope."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from noetl_broker.playbook.findings import Place, did_you_mean, path_text
from noetl_broker.playbook.inputs import given_keys
from noetl_broker.playbook.model import Inputs, Playbook, Step
from noetl_broker.playbook.reading import Reading, Use, strings
from noetl_broker.playbook.vocabulary import FUNCTIONS, SCOPE_WORDS
from noetl_broker.template import WORKER_WORDS, TemplateError, compile_text

ALWAYS = SCOPE_WORDS | FUNCTIONS
REMEDIES = {
    "spec": "write `workload`",
    "null": "write `none`",
    "vars": "write the step's name, or `result` for the step just completed",
}
PAYLOAD_REMEDY = "give it a default under `workload` if the payload brings it"


class Given(NamedTuple):
    """What one step finds by name: its own inputs and those of the transitions into it; None: a template decides."""

    names: frozenset[str] | None
    arriving: frozenset[str]  # those of the transitions alone
    own: dict[str, str]  # the key of each own input that is not overridden by a stronger level, by its place


def warn_unknown_names(reading: Reading, playbook: Playbook) -> None:
    """Warn of each template that names neither a step, a workload key, an input nor a scope word."""
    common = ALWAYS | playbook.steps.keys() | playbook.workload.keys()
    given = _given(playbook)
    for use in reading.uses:
        known = common | use.part.names | use.part.worker
        own = given.get(use.part.step or "")
        if own is not None:
            if use.part.role == "inputs" and not _is_rendered(use, own):
                continue
            if use.part.role != "inputs":
                if own.names is None:
                    continue
                known |= own.names
        unknown = use.names - known
        if unknown:
            _warn(reading, use, unknown, known)
        for name in sorted((use.results or frozenset()) - playbook.steps.keys()):
            hint = did_you_mean(name, [*playbook.steps]) or "name a step"
            message = f"the template reads results['{name}'], and there is no step of that name"
            reading.report.warning("unknown-name", use.place, message, hint)


def _is_rendered(use: Use, given: Given) -> bool:
    """Whether an own input is rendered at all: neither the step (over its action) nor a transition overrides it."""
    place = path_text(use.place)
    return place in given.own and given.own[place] not in given.arriving


def _warn(reading: Reading, use: Use, unknown: frozenset[str], known: frozenset[str]) -> None:
    for place, text in _where(use):
        for name in sorted(unknown & _names_of(text)):
            near = did_you_mean(name, sorted(known)) if len(name) > 1 else ""
            hint = REMEDIES.get(name) or (near if near.startswith("did") else PAYLOAD_REMEDY)
            reading.report.warning(
                "unknown-name",
                place,
                f"the template names `{name}`, which is neither a step, a workload key nor a scope word",
                hint,
            )


def _names_of(text: str) -> frozenset[str]:
    try:
        return compile_text(text, "", max_source_chars=None).names
    except TemplateError:  # a worker's string, with filters of its own
        return frozenset()


def _where(use: Use) -> list[tuple[Place, str]]:
    found = [*strings(use.value, use.place)]
    if not found and isinstance(use.value, str):  # a condition without braces
        return [(use.place, f"{{{{ {use.value} }}}}")]
    return found


def _given(playbook: Playbook) -> dict[str, Given]:
    arriving: dict[str, list[Inputs]] = {name: [] for name in playbook.steps}
    for step in playbook.steps.values():
        for entry in step.next:
            for target in (*entry.then, *entry.otherwise):
                arriving[target.step].append(target.inputs)
    return {name: _given_to(step, arriving[name]) for name, step in playbook.steps.items()}


def _given_to(step: Step, arriving: list[Inputs]) -> Given:
    own = [step.inputs] if step.iteration is None else [step.inputs, step.iteration.task.inputs]
    sets = [given_keys(inputs) for inputs in (*own, *arriving)]
    known = frozenset().union(*(keys for keys in sets if keys is not None))
    coming = frozenset().union(*(inputs.keys for inputs in arriving))
    places = {place: key for inputs in own for place, key in _places(inputs)}
    return Given(names=None if None in sets else known, arriving=coming, own=places)


def _places(inputs: Inputs) -> Iterator[tuple[str, str]]:
    for key, tree in inputs.keys.items():
        yield tree.at, key
    if inputs.whole is not None:
        yield inputs.whole.at, ""
    if inputs.base is not None:
        yield from _places(inputs.base)


def warn_shadowing(reading: Reading, playbook: Playbook, places: dict[str, Place]) -> None:
    """Warn of steps named like a scope word or a workload key: a template that means the word gets the step."""
    for name, place in places.items():
        what = "the scope word" if name in ALWAYS or name in WORKER_WORDS else ""
        if not what and name in playbook.workload:
            what = "the workload key"
        if what:
            hint = f"rename the step, or write workload.{name}" if "key" in what else "rename the step"
            reading.report.warning("shadowed-name", place, f"the step `{name}` hides {what} of that name", hint)

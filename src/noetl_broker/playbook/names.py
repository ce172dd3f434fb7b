"""Warns of names: what a template names and nobody gives, and steps that hide a word of the scope."""

from __future__ import annotations

from noetl_broker.playbook.findings import Place
from noetl_broker.playbook.given import given_to_steps
from noetl_broker.playbook.model import Playbook
from noetl_broker.playbook.reading import MADE, NO_NAMES, Reading, Use, templates_of
from noetl_broker.playbook.vocabulary import FUNCTIONS, SCOPE_WORDS
from noetl_broker.template import OLD_WORKLOAD_WORD, WORKER_WORDS, TemplateError, compile_text

ALWAYS = SCOPE_WORDS | {OLD_WORKLOAD_WORD}
REMEDIES = {
    **{name: f"write `{name}()`" for name in FUNCTIONS},
    "null": "write `none`",
    "vars": "write the step's name, or `result` for the step just completed",
}
PAYLOAD_REMEDY = "give it a default under `workload` if the payload brings it"


def warn_unknown_names(reading: Reading, playbook: Playbook) -> None:
    """Warn of each template that names neither a step, a workload key, an input nor a scope word."""
    common = ALWAYS | WORKER_WORDS | playbook.steps.keys() | playbook.workload.keys()
    given = given_to_steps(playbook)
    for use in reading.uses:
        own = given.get(use.part.step or "")
        if own is not None and use.part.role == "inputs" and not own.is_rendered(use):
            continue
        seen = own.seen_by(use) if own is not None else NO_NAMES
        unknown = use.names - common - use.part.names - use.part.worker
        if seen is not None and unknown:
            reading.work.spend((len(common) + len(seen)) // MADE)
            _warn(reading, use, unknown - seen, common | use.part.names | seen)
        for name in sorted((use.results or frozenset()) - playbook.steps.keys()):
            hint = reading.report.did_you_mean(name, playbook.steps) or "name a step"
            message = f"the template reads results['{name}'], and there is no step of that name"
            reading.report.warning("unknown-name", use.place, message, hint)


def _warn(reading: Reading, use: Use, unknown: frozenset[str], known: frozenset[str]) -> None:
    """Warn of unknown names in a use."""
    for place, text in templates_of(use) if unknown else ():
        for name in sorted(unknown & _names_of(text)):
            near = reading.report.did_you_mean(name, known) if len(name) > 1 else ""
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


def warn_shadowing(reading: Reading, playbook: Playbook, places: dict[str, Place]) -> None:
    """Warn of what a template does not get that means it: a step, or an iterator's input, has the name too."""
    for name, place in places.items():
        what = "the scope word" if name in ALWAYS or name in FUNCTIONS or name in WORKER_WORDS else ""
        if not what and name in playbook.workload:
            what = "the workload key"
        if what:
            hint = f"rename the step, or write workload.{name}" if "key" in what else "rename the step"
            reading.report.warning("shadowed-name", place, f"the step `{name}` hides {what} of that name", hint)
    for name, given in given_to_steps(playbook).items():
        iteration = playbook.steps[name].iteration
        over = given.arriving if given.looped else given.step  # a task's own inputs may be called like what they are
        if iteration is not None and iteration.expanded and iteration.element in (over or NO_NAMES):
            message = f"an input hides the element `{iteration.element}` in the items of the iterator `{name}`"
            reading.report.warning("shadowed-name", places[name], message, "choose another name")

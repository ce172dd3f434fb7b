"""Warns of templates that read the result of a step which surely has none there: they fail where they are evaluated."""

from __future__ import annotations

from noetl_broker.playbook.given import Given, given_to_steps
from noetl_broker.playbook.model import Playbook, Step
from noetl_broker.playbook.reading import Reading, Use, templates_of
from noetl_broker.playbook.reads import needed_by
from noetl_broker.playbook.vocabulary import END, SCOPE_WORDS
from noetl_broker.template import OLD_WORKLOAD_WORD

REMEDY = "read a step that has run before, or write | default(…)"
OWN_REMEDY = f"in a `save` write `result`; elsewhere {REMEDY}"
AFTERWARDS = frozenset({"next", "result"})  # roles of templates that are evaluated when their step has ended


def warn_missing_results(reading: Reading, playbook: Playbook) -> None:
    """Warn of each template that names a step which runs nothing, or which comes only later."""
    given = given_to_steps(playbook)
    often = any(other.join in ("any", "each") for other in playbook.steps.values())
    named = frozenset(playbook.steps) - playbook.workload.keys() - SCOPE_WORDS - {OLD_WORKLOAD_WORD}
    for use in reading.uses:
        steps = use.names & named
        if use.part.step is None or not steps or _is_hidden(use, given[use.part.step]):
            continue
        step, seen = playbook.steps[use.part.step], given[use.part.step].seen_by(use)
        for place, text in templates_of(use):
            for name in sorted(needed_by(text) & steps - (seen or frozenset()) - use.part.names):
                why = _why_none(playbook, step, playbook.steps[name], use, often=often)
                if why:
                    hint = OWN_REMEDY if name == step.name and step.kind != "control" else REMEDY
                    message = f"the template reads the result of the step `{name}`, {why}"
                    reading.report.warning("no-result", place, message, hint)


def _is_hidden(use: Use, given: Given) -> bool:
    """Whether inputs may hide a step's name, or the template is not rendered at all."""
    return given.seen_by(use) is None or (use.part.role == "inputs" and not given.is_rendered(use))


def _why_none(playbook: Playbook, step: Step, read: Step, use: Use, *, often: bool) -> str:
    """Say why a step has no result where a template of `step` reads it; an empty text where it may have one.

    `often`: some step may run once per arrival.
    """
    if read.kind == "control":
        return "which runs nothing and so has none"
    graph = playbook.graph
    if read is step:
        again = graph.can_reach(step.name, step.name)
        return "" if again or use.part.role in AFTERWARDS else "which has none before it ends"
    follows = graph.can_reach(step.name, read.name) and not graph.can_reach(read.name, step.name)
    if often or step.name == END or graph.can_reach(step.name, step.name) or not follows:
        return ""
    return f"which comes only after `{step.name}`"

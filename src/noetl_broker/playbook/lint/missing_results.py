"""Warns of templates that read the result of a step that has none at that point: they will fail."""

from __future__ import annotations

from noetl_broker.playbook.keywords import END, SCOPE_WORDS
from noetl_broker.playbook.model import Playbook, Step
from noetl_broker.playbook.reader import Reading, Use, templates_of
from noetl_broker.playbook.scopes import Scopes
from noetl_broker.playbook.template_reads import required_names
from noetl_broker.template import OLD_WORKLOAD_WORD

REMEDY = "read a step that has run before, or write | default(…)"
OWN_REMEDY = f"in a `save` write `result`; elsewhere {REMEDY}"
AFTERWARDS = frozenset({"next", "result"})  # roles of templates that are evaluated after their step


def warn_missing_results(reading: Reading, playbook: Playbook) -> None:
    """Warn of each template that names a step without an action, or a later step."""
    scopes = Scopes(reading, playbook.steps)
    often = any(other.join in ("any", "each") for other in playbook.steps.values())
    named = frozenset(playbook.steps) - playbook.workload.keys() - SCOPE_WORDS - {OLD_WORKLOAD_WORD}
    for use in reading.uses:
        steps = use.names & named
        if use.part.step is None or use.part.role == "compensate" or not steps or _is_hidden(use, scopes):
            continue
        step, seen = playbook.steps[use.part.step], scopes.of_use(use).possible
        for location, text in templates_of(use):
            for name in sorted(required_names(text) & steps - seen - use.part.names):
                why = _missing_because(playbook, step, playbook.steps[name], use, often=often)
                if why:
                    hint = OWN_REMEDY if name == step.name and step.has_action else REMEDY
                    message = f"the template reads the result of the step `{name}`, {why}"
                    reading.report.warning("no-result", location, message, hint)


def _is_hidden(use: Use, scopes: Scopes) -> bool:
    """Whether inputs may hide a step's name, or the template is not rendered at all."""
    return not scopes.of_use(use).complete or (use.part.role == "inputs" and not scopes.is_rendered(use))


def _missing_because(playbook: Playbook, step: Step, read: Step, use: Use, *, often: bool) -> str:
    """Say why the step `read` has no result for a template of `step`; empty if it may have one.

    `often`: some join of the playbook makes several visits.
    """
    if not read.has_action:
        return "which has no action and so no result"
    graph = playbook.graph
    if read is step:
        again = graph.can_reach(step.name, step.name)
        return "" if again or use.part.role in AFTERWARDS else "which has no result before it ends"
    follows = graph.can_reach(step.name, read.name) and not graph.can_reach(read.name, step.name)
    if often or step.name == END or graph.can_reach(step.name, step.name) or not follows:
        return ""
    return f"which runs only after `{step.name}`"

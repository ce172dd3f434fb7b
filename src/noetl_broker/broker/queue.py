"""Jobs for workers: what a job says, when it is tried again, when it is taken back."""

from __future__ import annotations

import base64
import zlib
from typing import TYPE_CHECKING

from noetl_broker.broker.model import JSON, Job, JobChange
from noetl_broker.template import TemplateError

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from noetl_broker.broker.draft import Draft
    from noetl_broker.playbook.model import Inputs, Retry, Step
    from noetl_broker.template.scope import Scope

DEFAULT_PRIORITY = 5

# Source text travels base64-encoded, so that no quoting is lost on the way to a worker in another language.
ENCODED_KEYS = {"code": "code_b64", "command": "command_b64", "commands": "commands_b64", "sql": "command_b64"}


def render_inputs(draft: Draft, inputs: Inputs, scope: Scope, overridden: Container[str] = ()) -> dict[str, JSON]:
    """The inputs of one level as a mapping; a key that a transition overrides is not rendered.

    Raises TemplateError where one fails, or where a whole mapping was asked of a template that gives something else.
    """
    rendered: dict[str, JSON] = {}
    if inputs.base is not None:
        rendered.update(render_inputs(draft, inputs.base, scope, overridden))
    if inputs.whole is not None:
        value = draft.render(inputs.whole, scope)
        if not isinstance(value, dict):
            raise TemplateError(
                f"the inputs must be a mapping, the template gives {type(value).__name__}",
                template=inputs.whole.source,
                at=inputs.whole.at,
            )
        rendered.update((key, item) for key, item in value.items() if key not in overridden)
    for key, tree in inputs.keys.items():
        if key not in overridden:
            rendered[key] = draft.render(tree, scope)
    return rendered


def enqueue_job(draft: Draft, step: Step, visit: int, ordinal: int, inputs: dict[str, JSON], scope: Scope) -> None:
    """One job for the visit; `ordinal` is the place of its step_started. Raises TemplateError where a field fails."""
    fields = draft.render(step.fields, scope)
    action: dict[str, JSON] = _deep_merge(fields, step.plain) if step.plain else dict(fields)
    action["name"] = step.name
    action["type"] = step.type
    if inputs:
        action["args"] = inputs
        _keep_aliases(action, step.inputs, inputs)
    for key, encoded in ENCODED_KEYS.items():
        if key in action:
            action[encoded] = _encode(action.pop(key))
    context: dict[str, JSON] = {**inputs, "step_name": step.name, "visit": visit}
    results = _named_results(draft, step)
    if results:
        context["results"] = results
    retry = step.retry
    draft.jobs.append(
        Job(
            step.name,
            visit,
            step.type,
            ordinal,
            action,
            context,
            _priority(draft, step),
            retry.max_attempts if retry else draft.known.rules.default_max_attempts,
            step.timeout,
        )
    )


def retry_delay(draft: Draft, retry: Retry, failures: int) -> float:
    """Seconds until the next attempt after `failures` of them (spec section 4): exponential, capped, jittered by half.

    The jitter comes from the turn, not from chance: a replay must decide the same.
    """
    try:
        delay = min(retry.initial_delay * retry.backoff_multiplier ** (failures - 1), retry.max_delay)
    except OverflowError:
        delay = retry.max_delay
    if retry.jitter:
        die = zlib.crc32(f"{draft.turn.execution_id}:{draft.turn.number}".encode()) / 0xFFFFFFFF
        delay = min(delay * (0.5 + die), retry.max_delay)
    return round(delay, 3)


def change_job(draft: Draft, step: Step, visit: int, status: str, delay: float = 0.0) -> None:
    """The job of a visit that already has one: `retry`, `dead`, or `done`."""
    draft.changes.append(JobChange(step.name, visit, status, delay))


def _priority(draft: Draft, step: Step) -> int:
    for priority in (step.priority, draft.playbook.priority):
        if priority is not None:
            return priority
    return DEFAULT_PRIORITY


def _named_results(draft: Draft, step: Step) -> dict[str, JSON]:
    """The results that the templates left for the worker name: it finishes them from the job's context."""
    names = step.fields.worker_names
    named = names | (
        step.fields.worker_results if step.fields.worker_results is not None else draft.playbook.steps.keys()
    )
    found: dict[str, JSON] = {}
    for name in sorted(named):
        if name in draft.playbook.steps:
            result = draft.step_result(name)
            if result is not None:
                found[name] = result.data
    return found


def _keep_aliases(action: dict[str, JSON], inputs: Inputs, rendered: Mapping[str, JSON]) -> None:
    if inputs.base is not None:
        _keep_aliases(action, inputs.base, rendered)
    for alias, keys in inputs.aliases.items():
        if alias != "args":
            action[alias] = dict(rendered) if keys is None else {key: rendered[key] for key in keys if key in rendered}


def _encode(value: JSON) -> JSON:
    """Base64 of a string; of a list, of each string in it."""
    if isinstance(value, str):
        return base64.b64encode(value.encode()).decode("ascii")
    if isinstance(value, list):
        return [_encode(item) for item in value]
    return value


def _deep_merge(under: Mapping[str, JSON], over: Mapping[str, JSON]) -> dict[str, JSON]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _deep_merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged

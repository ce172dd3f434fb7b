"""Renders inputs level by level, with the paths of their deferred strings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.state import (
    NO_INPUTS,
    EndReached,
    RenderedInputs,
    ResultRef,
    overlay_inputs,
    remove_inputs,
)
from noetl_broker.playbook.template_reads import ARGS, word_of_inputs
from noetl_broker.template import TemplateError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.playbook.model import Inputs, Step
    from noetl_broker.template import Path
    from noetl_broker.template.scope import Scope


def inputs_as_request(given: RenderedInputs) -> dict[str, JSON]:
    """The inputs as a job that the broker runs has them; `inputs_of_job` reads them."""
    return {ARGS: given.values}


def inputs_of_job(action: Mapping[str, JSON]) -> RenderedInputs:
    """The inputs in the job of a visit; no template reads a deferred one."""
    inputs = action.get(word_of_inputs(action))
    return RenderedInputs(inputs) if isinstance(inputs, dict) else NO_INPUTS


def inputs_of_visit(draft: Draft, step: Step, visit: int) -> RenderedInputs:
    """The inputs of a visit of an earlier turn; none if no template after its action reads one."""
    return inputs_of_job(draft.templates.request_of(step, visit)) if step.reads_inputs else NO_INPUTS


def condition_scope(
    draft: Draft, given: RenderedInputs, result: ResultRef, words: Mapping[str, JSON], *, own: str = ""
) -> Scope:
    """The scope of a condition with these words: they hide inputs of their names, except under `args`.

    `own` as in `Draft.scope`.
    """
    inputs = given.values
    if inputs.keys().isdisjoint(words):
        return draft.templates.scope(inputs, result, words, own=own)
    seen = {key: value for key, value in inputs.items() if key not in words}
    return draft.templates.scope(seen, result, {ARGS: inputs, **words}, own=own)


def reach(end: Step, result: ResultRef, given: RenderedInputs) -> EndReached:
    """What the state keeps when `end` is reached: its result, and the inputs that the execution's result reads."""
    template = end.result_template
    read = template.names if template is not None else frozenset()
    if ARGS in read:
        return EndReached(result, given.values)
    values = {name: value for name, value in given.values.items() if name in read}
    return EndReached(result, values)


def render_inputs(draft: Draft, inputs: Inputs, scope: Scope, over: RenderedInputs = NO_INPUTS) -> RenderedInputs:
    """The inputs of one level; a key that a transition gave (`over`) is not rendered.

    Raises TemplateError if a template fails, or if a template for all inputs gives something else than a mapping.
    """
    values: dict[str, JSON] = {}
    deferred: tuple[Path, ...] = ()
    if inputs.base is not None:
        values, deferred = render_inputs(draft, inputs.base, scope, over)
    if inputs.whole is not None:
        whole = draft.templates.render(inputs.whole, scope)
        if not isinstance(whole, dict):
            message = f"the inputs must be a mapping, the template gives {type(whole).__name__}"
            raise TemplateError(message, template=inputs.whole.source, at=inputs.whole.at)
        values, deferred = overlay_inputs(
            RenderedInputs(values, deferred), remove_inputs(RenderedInputs(dict(whole)), over.values)
        )
    for key, tree in inputs.keys.items():
        if key in over.values:
            continue
        if deferred:
            deferred = tuple(path for path in deferred if path[0] != key)
        values[key] = draft.templates.render(tree, scope)
        if tree.deferred:
            deferred += tuple((key, *path) for path in tree.deferred)
    return RenderedInputs(values, deferred)

"""Inputs: rendered level by level, with the paths of the strings in them that only the worker can finish."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.given import NOTHING_GIVEN, Given, lay_over, without
from noetl_broker.broker.model import JSON
from noetl_broker.broker.state import Reached
from noetl_broker.broker.unfinished import handed_on_in, insist_on_values, left_in
from noetl_broker.playbook.reads import ARGS, handed_on, word_of_inputs
from noetl_broker.template import TemplateError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from noetl_broker.broker.draft import Draft
    from noetl_broker.broker.unfinished import Unfinished
    from noetl_broker.playbook.model import Inputs, Step
    from noetl_broker.template import Path, Tree
    from noetl_broker.template.scope import Scope


def said_of(given: Given) -> dict[str, JSON]:
    """What a job of the broker's own says of the inputs; `given_by` reads it."""
    said: dict[str, JSON] = {ARGS: given.values}
    if given.left:
        said |= {
            "unfinished": [[ARGS, *path] for path in given.left],
            "levels": [list(names) for names in given.levels],
        }
    return said


def given_by(action: Mapping[str, JSON]) -> Given:
    """What the job of a visit says of its inputs."""
    word = word_of_inputs(action)
    inputs = action.get(word)
    paths = action.get("unfinished") or ()
    return Given(
        inputs if isinstance(inputs, dict) else {}, tuple(tuple(path[1:]) for path in paths if path[0] == word)
    )


def given_to(draft: Draft, step: Step, visit: int) -> Given:
    """The inputs of an earlier turn's visit, where what is evaluated now may read them."""
    return given_by(draft.request_of(step, visit)) if step.reads_inputs else NOTHING_GIVEN


def asked_about(draft: Draft, given: Given, result: int | None, words: Mapping[str, JSON]) -> Scope:
    """What a condition about these words sees: they hide inputs of their names, which `args` still has."""
    inputs = given.values
    if inputs.keys().isdisjoint(words):
        return draft.scope(inputs, result, words)
    seen = {key: value for key, value in inputs.items() if key not in words}
    return draft.scope(seen, result, {ARGS: inputs, **words})


def result_of_end(end: Step) -> Tree | None:
    """The template that gives the execution's result where `end` was reached; None where none does."""
    return end.save_data if end.result is None and end.kind == "control" else end.result


def reach(end: Step, result: int | None, given: Given) -> Reached:
    """`end` was reached: of its inputs, those are kept that its result reads."""
    template = result_of_end(end)
    read = template.names if template is not None else frozenset()
    if ARGS in read:
        return Reached(result, given.values, given.left)
    values = {name: value for name, value in given.values.items() if name in read}
    return Reached(result, values, tuple(path for path in given.left if path[0] in values))


def render_inputs(
    draft: Draft, inputs: Inputs, scope: Scope, over: Given = NOTHING_GIVEN, unfinished: Unfinished | None = None
) -> Given:
    """The inputs of one level; a key that the transition gave (`over`) is not rendered.

    What reads something `unfinished` is left for the worker too, or handed on: else its text would pass as data.
    Raises TemplateError where one fails, or where a whole mapping was asked of a template that gives something else.
    """
    values: dict[str, JSON] = {}
    left: tuple[Path, ...] = ()
    leave = unfinished.left if unfinished is not None else None
    if inputs.base is not None:
        values, left, _ = render_inputs(draft, inputs.base, scope, over, unfinished)
    if inputs.whole is not None:
        whole = _render_whole(draft, inputs.whole, scope, unfinished)
        values, left, _ = lay_over(Given(values, left), without(whole, over.values))
    for key, tree in inputs.keys.items():
        if key in over.values:
            continue
        if left:
            left = tuple(path for path in left if path[0] != key)
        values[key] = draft.render(tree, scope, leave)
        if tree.left:
            left += tuple((key, *path) for path in tree.left)
        if unfinished is not None and not tree.constant:
            left += tuple((key, *path) for path, _ in left_in(unfinished, tree))
            left += tuple((key, *path) for path in handed_on_in(draft, unfinished, tree))
    return Given(values, left)


def _render_whole(draft: Draft, whole: Tree, scope: Scope, unfinished: Unfinished | None) -> Given:
    """Inputs that are one template; where it hands a mapping on as it is, what is unfinished in it stays so."""
    left: tuple[Path, ...] = ()
    if unfinished is not None and any(whole.leaving(unfinished.read_by)):
        path = handed_on(whole.source)
        if path is None or any(whole.leaving(unfinished.changed)):
            insist_on_values(unfinished, whole)
        else:
            left = tuple(handed_on_in(draft, unfinished, whole)) or unfinished.inside(path)
    value = draft.render(whole, scope)
    if not isinstance(value, dict):
        message = f"the inputs must be a mapping, the template gives {type(value).__name__}"
        raise TemplateError(message, template=whole.source, at=whole.at)
    return Given(dict(value), left)  # of its own: keys are laid over it, and what the template gave is somebody's

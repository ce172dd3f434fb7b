"""Inputs: rendered level by level, with the paths of the strings in them that only the worker can finish."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.model import JSON
from noetl_broker.template import TemplateError

if TYPE_CHECKING:
    from noetl_broker.broker.draft import Draft
    from noetl_broker.playbook.model import Inputs
    from noetl_broker.template import Path
    from noetl_broker.template.scope import Scope

NO_NAMES: frozenset[str] = frozenset()


class Given(NamedTuple):
    """Rendered inputs; `left` are the paths of the strings that are still templates. All others are data."""

    values: dict[str, JSON]
    left: tuple[Path, ...] = ()

    @property
    def unfinished(self) -> frozenset[str]:
        """The names whose value only the worker will know: `args` among them, if there is one."""
        return frozenset(str(path[0]) for path in self.left) | {"args"} if self.left else NO_NAMES


NOTHING_GIVEN = Given({})


def lay_over(under: Given, over: Given) -> Given:
    """One level over another: a key that the upper one gives is a template or data as it says."""
    if not under.values:
        return over
    left = tuple(path for path in under.left if path[0] not in over.values) + over.left if under.left else over.left
    return Given({**under.values, **over.values}, left)


def render_inputs(draft: Draft, inputs: Inputs, scope: Scope, over: Given = NOTHING_GIVEN) -> Given:
    """The inputs of one level; a key that the transition gave (`over`) is not rendered.

    What reads an input that is still a template is left for the worker too: else its text would pass as data.
    Raises TemplateError where one fails, or where a whole mapping was asked of a template that gives something else.
    """
    values: dict[str, JSON] = {}
    left: tuple[Path, ...] = ()
    leave = over.unfinished
    if inputs.base is not None:
        values, left = render_inputs(draft, inputs.base, scope, over)
    if inputs.whole is not None:
        value = draft.render(inputs.whole, scope)
        if not isinstance(value, dict):
            raise TemplateError(
                f"the inputs must be a mapping, the template gives {type(value).__name__}",
                template=inputs.whole.source,
                at=inputs.whole.at,
            )
        whole = {key: item for key, item in value.items() if key not in over.values}
        values, left = lay_over(Given(values, left), Given(whole))
    for key, tree in inputs.keys.items():
        if key in over.values:
            continue
        if left:
            left = tuple(path for path in left if path[0] != key)
        values[key] = draft.render(tree, scope, leave)
        if tree.left:
            left += tuple((key, *path) for path in tree.left)
        if leave:
            left += tuple((key, *path) for path, _ in tree.reading(leave))
    return Given(values, left)

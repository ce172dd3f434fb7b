"""What only a worker can finish, as the templates of a turn read it: of a visit's inputs, of the workload's defaults.

Such a text is no data for the broker. A string of a task that reads one is left for the worker too; a transition hands
one on as it is; and whatever else the broker would make of one fails, so that the text never passes for the value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.playbook.findings import path_text
from noetl_broker.playbook.reads import ARGS, at_path, first_met, handed_on, input_paths, travels, workload_paths
from noetl_broker.template import Template, TemplateError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from noetl_broker.broker.draft import Draft
    from noetl_broker.broker.model import JSON
    from noetl_broker.playbook.fields import Fields
    from noetl_broker.template import Path, Tree


class Unfinished(NamedTuple):
    """The paths of such texts, as templates read them.

    `defaults` are those of the workload that a payload may have replaced; `remaining` gives those that it did not.
    `leaving` are the inputs of the visit that a transition leaves; None where the texts stay within their visit.
    """

    inputs: frozenset[Path]
    defaults: frozenset[Path]
    remaining: Callable[[], frozenset[Path]]
    leaving: Mapping[str, JSON] | None = None

    def read_by(self, template: Template) -> Path | None:
        """Give the path of one that the template reads; None if it reads none. Raises NotLoaded."""
        return first_met(template.source, self.inputs) or self._default_read_by(template)

    def left(self, template: Template) -> Path | None:
        """Give the path of one for which the template is left for the worker; the next one knows not these inputs."""
        if self.leaving is not None and first_met(template.source, self.inputs):
            return None
        return self.read_by(template)

    def inside(self, path: Path) -> tuple[Path, ...]:
        """Give the paths of those that lie in the value at `path`, or are it, from there."""
        size = len(path)
        within = {found[size:] for found in self.inputs | self.remaining() if found[:size] == path}
        return tuple(sorted(within, key=repr))

    def _default_read_by(self, template: Template) -> Path | None:
        if first_met(template.source, self.defaults) is None:
            return None
        return first_met(template.source, self.remaining())


def unfinished_of(
    draft: Draft,
    given: tuple[Mapping[str, JSON], tuple[Path, ...]],
    words: Collection[str] = (),
    *,
    leaving: bool = False,
) -> Unfinished | None:
    """What templates that see these inputs (a `Given`) may read of that kind; None where there is nothing.

    `words` are names that an iterator adds; `leaving`: the templates are those of the visit's transitions.
    """
    (values, left), playbook = given, draft.playbook
    if not left and not playbook.unfinished:
        return None
    steps = {str(path[0]) for path in playbook.unfinished} & playbook.steps.keys()
    hidden = {*values, *words, *(name for name in steps if draft.visits(playbook.steps[name]))}
    return Unfinished(
        input_paths(left, values),
        workload_paths(playbook.unfinished, hidden),
        lambda: workload_paths(remaining_defaults(draft), hidden),
        values if leaving else None,
    )


def remaining_defaults(draft: Draft) -> list[Path]:
    """The paths of the workload's unfinished defaults that the payload did not replace. Raises NotLoaded."""
    texts = draft.playbook.unfinished
    return [path for path, text in texts.items() if at_path(draft.workload(), path) == text] if texts else []


def insist_on_values(unfinished: Unfinished | None, *parts: Tree | Fields | Template | None) -> None:
    """Refuse what the broker would evaluate with such a text. Raises TemplateError."""
    if unfinished is None:
        return
    for part in parts:
        if part is None:
            continue
        templates = [part] if isinstance(part, Template) else [read for _, read in part.leaving(unfinished.read_by)]
        for template in templates:
            path = unfinished.read_by(template)
            if path is not None:
                raise _refused(template, path)


def handed_on_in(draft: Draft, unfinished: Unfinished, tree: Tree) -> Iterator[Path]:
    """The paths of such texts in what a transition's input hands on of its visit's inputs.

    Raises TemplateError where it makes something of one, or where the text would mean something else in another visit.
    """
    inputs = unfinished.leaving
    if inputs is None:
        return
    for path, template in tree.leaving(lambda template: first_met(template.source, unfinished.inputs)):
        read = handed_on(template.source)
        if read is None:
            raise _refused(template, first_met(template.source, unfinished.inputs) or ())
        for inner in unfinished.inside(read):
            text = at_path({ARGS: inputs, **inputs}, (*read, *inner))
            if not travels(str(text), draft.playbook, inputs.keys()):
                raise _refused(template, (*read, *inner))
            yield *path, *inner


def _refused(template: Template, path: Path) -> TemplateError:
    return TemplateError(f"only a worker can finish `{path_text(path)}`", template.source, template.at)

"""What only a worker can finish, as the templates of a turn read it: of a visit's inputs, of the workload's defaults.

Such a text is no data for the broker. A string of a task that reads one is left for the worker too; a transition hands
one on as it is; and whatever else the broker would make of one fails, so that the text never passes for the value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.playbook.findings import path_text
from noetl_broker.playbook.reads import (
    ARGS,
    at_path,
    defaults_read,
    first_met,
    handed_on,
    input_paths,
    travels,
    workload_paths,
)
from noetl_broker.template import Template, TemplateError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from noetl_broker.broker.draft import Draft
    from noetl_broker.broker.given import Given
    from noetl_broker.broker.model import JSON
    from noetl_broker.playbook.fields import Fields
    from noetl_broker.template import Path, Tree

NO_PATHS: frozenset[Path] = frozenset()


class Unfinished(NamedTuple):
    """Such texts as the templates of one visit read them.

    `inputs` are paths of inputs, by name and under `args`; `defaults` those of the workload, which the payload may have
    replaced (`still` says of which it did not) and which the names `hidden` hide. `alike` says whether a default means
    the same beside these inputs and the steps. `leaving` are the inputs of the visit that a transition leaves; None
    where the texts stay within their visit.
    """

    inputs: frozenset[Path]
    defaults: tuple[Path, ...]
    hidden: Callable[[str], bool]
    still: Callable[[Path], bool]
    alike: Callable[[Path], bool]
    leaving: Mapping[str, JSON] | None = None

    def read_by(self, template: Template) -> Path | None:
        """Give the path of one that the template reads; None if it reads none. Raises NotLoaded."""
        if self.inputs:
            found = first_met(template.source, self.inputs)
            if found is not None:
                return found
        for name, path in defaults_read(template.source, self.defaults):
            if not self.hidden(str(name[0])) and self.still(path):
                return name
        return None

    def left(self, template: Template) -> Path | None:
        """Give the path of one for which the template is left for the worker; the next one knows not these inputs."""
        if self.leaving is not None and self.inputs and first_met(template.source, self.inputs):
            return None
        return None if self.handed(template) else self.read_by(template)

    def handed(self, template: Template) -> tuple[Path, ...]:
        """Give the paths of defaults in what a template hands on as it is; none where it reads more than that."""
        defaults = defaults_read(template.source, self.defaults)
        read = handed_on(template.source) if defaults else None
        if read is None or (self.inputs and first_met(template.source, self.inputs)):
            return ()
        found = [
            (name[len(read) :], path)
            for name, path in defaults
            if name[: len(read)] == read and not self.hidden(str(name[0])) and self.still(path)
        ]
        return tuple(inner for inner, _ in found) if all(self.alike(path) for _, path in found) else ()

    def changed(self, template: Template) -> Path | None:
        """Give the path of a default for which the template cannot be handed on as it is."""
        return None if first_met(template.source, self.inputs) else self.left(template)

    def inside(self, path: Path) -> tuple[Path, ...]:
        """Give the paths of those that lie in the value at `path`, or are it, from there."""
        size = len(path)
        paths = workload_paths((one for one in self.defaults if self.still(one)), ())
        found = self.inputs | {one for one in paths if not self.hidden(str(one[0]))}
        return tuple(sorted({one[size:] for one in found if one[:size] == path}, key=repr))


def unfinished_of(
    draft: Draft,
    given: Given,
    words: Collection[str] = (),
    *,
    asked: bool = False,
    leaving: bool = False,
) -> Unfinished | None:
    """What templates that see these inputs may read of that kind; None where there is nothing.

    `words` are names that an iterator or a failure adds; `asked`: they hide inputs of their names. `leaving`: the
    templates are those of the visit's transitions.
    """
    values, left, playbook = given.values, given.left, draft.playbook
    if not left and not playbook.unfinished:
        return None

    def hidden(name: str) -> bool:
        return name in values or name in words or draft.step_result(name) is not None

    def still(path: Path) -> bool:
        return bool(at_path(draft.workload(), path) == playbook.unfinished[path])

    def alike(path: Path) -> bool:
        # It was there before any step, and none is meant.
        return travels(playbook.unfinished[path], playbook, values, words, playbook.steps)

    inputs = input_paths(left, values) if left else NO_PATHS
    if asked:
        inputs = frozenset(path for path in inputs if path[0] not in words)
    return Unfinished(inputs, tuple(playbook.unfinished), hidden, still, alike, values if leaving else None)


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


def left_in(unfinished: Unfinished | None, tree: Tree | Fields) -> Iterator[tuple[Path, Template]]:
    """The paths of what stays a template in a rendered tree, each with its template.

    Those are left whole, and the defaults in what others hand on as it is.
    """
    if unfinished is None:
        return
    yield from tree.leaving(unfinished.left)
    for path, template in tree.leaving(unfinished.handed):
        yield from (((*path, *inner), template) for inner in unfinished.handed(template))


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


def refused(source: str, at: str, path: Path) -> TemplateError:
    """The error of a template that makes something of such a text."""
    return TemplateError(f"only a worker can finish `{path_text(path)}`", source, at)


def _refused(template: Template, path: Path) -> TemplateError:
    return refused(template.source, template.at, path)

"""What a job says beside a NoETL server: all inputs once more, under the words under which its worker looks for them.

That worker takes the inputs of a job from `data`, then `with`, `payload` and `input`, never from `args`; those of a
task that it repeats from the task's `with` alone. Its http tool sends what `data` holds: as the query of a GET or
DELETE, as the body of any other request, and `data.body` as the body where there is one. It sends no `params` and no
`payload` by themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.playbook.vocabulary import INPUT_WORDS, OWN_KEYS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from noetl_broker.broker.given import Given
    from noetl_broker.broker.model import JSON
    from noetl_broker.template import Path

LOOKED_AT_FIRST = "data"
LOOKED_AT_IN_A_TASK = "with"  # also what a tool is given that reads `data` itself
BODIES = ("body", "payload")


def tell_noetl(action: dict[str, JSON], given: Given, left: tuple[Path, ...]) -> tuple[Path, ...]:
    """Add the inputs to the action of a job; gives the paths of what is left for the worker, with those added.

    `given` are the inputs of the visit, `left` the paths in the action. The task of an iterator is copied, not changed.
    """
    told = _tell(action, given.values, given.left, left)
    task = action.get("task")
    if action["type"] != "iterator" or not isinstance(task, dict):
        return told
    inside = tuple(path[1:] for path in left if path[0] == "task")
    own, of_own = _inputs_of_task(task, inside)
    values = {**given.values, **own}
    paths = (*(path for path in given.left if path[0] not in own), *of_own)
    action["task"] = task = dict(task)
    inside = _tell(task, values, paths, _say(task, LOOKED_AT_IN_A_TASK, values, paths, inside))
    return (*_outside(told, "task"), *(("task", *path) for path in inside))


def _tell(
    action: dict[str, JSON], inputs: dict[str, JSON], left_of_inputs: tuple[Path, ...], left: tuple[Path, ...]
) -> tuple[Path, ...]:
    """Add the inputs under the word under which this type of action finds them."""
    kind, body = action.get("type"), None
    if kind == "http":
        body = next((key for key in BODIES if action.get(key) is not None), None)
    if body is not None or LOOKED_AT_FIRST in OWN_KEYS.get(str(kind), ()):
        told = _say(action, LOOKED_AT_IN_A_TASK, inputs, left_of_inputs, left)
        if body is None:
            return told
        of_body = tuple(path for path in told if path[0] == body)
        return _say(action, LOOKED_AT_FIRST, {"body": action[body]}, (("body", *path[1:]) for path in of_body), told)
    query = action.get("params") if kind == "http" else None
    if not isinstance(query, dict):
        return _say(action, LOOKED_AT_FIRST, inputs, left_of_inputs, left)
    of_query = (path[1:] for path in left if path[0] == "params" and path[1] not in inputs)
    return _say(action, LOOKED_AT_FIRST, {**query, **inputs}, (*of_query, *left_of_inputs), left)


def _say(
    action: dict[str, JSON],
    word: str,
    values: dict[str, JSON],
    left_of_values: Iterable[Path],
    left: tuple[Path, ...],
) -> tuple[Path, ...]:
    if not values:
        return left
    action[word] = values
    return (*_outside(left, word), *((word, *path) for path in left_of_values))


def _inputs_of_task(task: dict[str, JSON], left: tuple[Path, ...]) -> tuple[dict[str, JSON], tuple[Path, ...]]:
    """The inputs of a task that is repeated, its words merged, with the paths of what is left in them."""
    own = OWN_KEYS.get(str(task.get("type")), ())
    values: dict[str, JSON] = {}
    paths: tuple[Path, ...] = ()
    for word in INPUT_WORDS:
        said = task.get(word)
        if word not in own and isinstance(said, dict):
            values |= said
            paths = (*(path for path in paths if path[0] not in said), *(path[1:] for path in left if path[0] == word))
    return values, paths


def _outside(paths: tuple[Path, ...], word: str) -> tuple[Path, ...]:
    return tuple(path for path in paths if path[0] != word)

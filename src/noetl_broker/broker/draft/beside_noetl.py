"""What the broker writes differently beside a NoETL server, so that NoETL's workers and API can read it.

A NoETL worker reads the inputs of a job from `data`, then `with`, `payload` and `input`, never from `args`. In a task
that it repeats it reads `with` only. Its http tool sends `data` as the query of a GET or DELETE, else as the body. If
there is a `data.body`, that is the body. It sends no `params` and no `payload`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.state.state import COMPLETED, FAILED, RUNNING, is_live
from noetl_broker.playbook.keywords import INPUT_WORDS
from noetl_broker.playbook.step_types import OWN_KEYS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from noetl_broker.broker.model.event import Emitted
    from noetl_broker.broker.model.values import JSON
    from noetl_broker.broker.state.state import RenderedInputs
    from noetl_broker.template import Path

FIRST_WORD = "data"
TASK_WORD = "with"  # also for tools that use `data` themselves
BODIES = ("body", "payload")


def add_noetl_inputs(action: dict[str, JSON], given: RenderedInputs, deferred: tuple[Path, ...]) -> tuple[Path, ...]:
    """Add the inputs to a job's action under NoETL's words; returns the paths of all its deferred strings.

    `given` are the inputs of the visit, `deferred` the paths in the action. An iterator's task is copied, not changed.
    """
    added = _add(action, given.values, given.deferred, deferred)
    task = action.get("task")
    if action["type"] != "iterator" or not isinstance(task, dict):
        return added
    inside = tuple(path[1:] for path in deferred if path[0] == "task")
    own, of_own = _inputs_of_task(task, inside)
    values = {**given.values, **own}  # those of an iterator have no deferred strings
    action["task"] = task = dict(task)
    inside = _add(task, values, of_own, _put(task, TASK_WORD, values, of_own, inside))
    return (*_except(added, "task"), *(("task", *path) for path in inside))


def _add(
    action: dict[str, JSON], inputs: dict[str, JSON], deferred_inputs: tuple[Path, ...], deferred: tuple[Path, ...]
) -> tuple[Path, ...]:
    """Add the inputs under the word where a NoETL worker reads them for this type of action."""
    kind, body = action.get("type"), None
    if kind == "http":
        body = next((key for key in BODIES if action.get(key) is not None), None)
    if body is not None or FIRST_WORD in OWN_KEYS.get(str(kind), ()):
        added = _put(action, TASK_WORD, inputs, deferred_inputs, deferred)
        if body is None:
            return added
        of_body = tuple(path for path in added if path[0] == body)
        return _put(action, FIRST_WORD, {"body": action[body]}, (("body", *path[1:]) for path in of_body), added)
    query = action.get("params") if kind == "http" else None
    if not isinstance(query, dict):
        return _put(action, FIRST_WORD, inputs, deferred_inputs, deferred)
    of_query = (path[1:] for path in deferred if path[0] == "params" and path[1] not in inputs)
    return _put(action, FIRST_WORD, {**query, **inputs}, (*of_query, *deferred_inputs), deferred)


def _put(
    action: dict[str, JSON],
    word: str,
    values: dict[str, JSON],
    deferred_values: Iterable[Path],
    deferred: tuple[Path, ...],
) -> tuple[Path, ...]:
    if not values:
        return deferred
    action[word] = values
    return (*_except(deferred, word), *((word, *path) for path in deferred_values))


def _inputs_of_task(task: dict[str, JSON], deferred: tuple[Path, ...]) -> tuple[dict[str, JSON], tuple[Path, ...]]:
    """The inputs of an iterated task under all their words, with the paths of the deferred strings."""
    own = OWN_KEYS.get(str(task.get("type")), ())
    values: dict[str, JSON] = {}
    paths: tuple[Path, ...] = ()
    for word in INPUT_WORDS:
        inputs = task.get(word)
        if word not in own and isinstance(inputs, dict):
            values |= inputs
            paths = (
                *(path for path in paths if path[0] not in inputs),
                *(path[1:] for path in deferred if path[0] == word),
            )
    return values, paths


def _except(paths: tuple[Path, ...], word: str) -> tuple[Path, ...]:
    return tuple(path for path in paths if path[0] != word)


def with_noetl_status(events: Sequence[Emitted], status: str) -> tuple[Emitted, ...]:
    """The events of a turn; the last one has the status of the execution after it, which NoETL's API shows.

    That API knows no CANCELLED.
    """
    if not events:
        return ()
    noetl_status = RUNNING if is_live(status) else COMPLETED if status == COMPLETED else FAILED
    return (*events[:-1], events[-1]._replace(status=noetl_status))

"""What a decision may know beside its state and its event: the rules, the workload, and the results of earlier steps.

The core never loads anything. It asks `Known`; what is not there raises `NotLoaded` with the name of it, the shell
loads it (for a whole batch at once) and calls the core again with the same state. So only results that a template
really names are ever read, and the core stays a function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from noetl_broker.broker.model import (
    ACTION_COMPLETED,
    ITERATOR_COMPLETED,
    JSON,
    STEP_RESULT,
    ItemEnd,
    Rules,
    as_stored,
    kind_of,
)
from noetl_broker.template.scope import NotLoaded, StepResult, unwrap

if TYPE_CHECKING:
    from collections.abc import Mapping

NOT_LOADED = object()

WORKLOAD = ("workload",)

COMPLETIONS = frozenset({ACTION_COMPLETED, ITERATOR_COMPLETED})


def want_step(name: str) -> tuple[str, str]:
    """The wish for the latest result of a step: answered by a `Found`, or None when it has none."""
    return ("step", name)


def want_turn(number: int) -> tuple[str, int]:
    """The wish for the result that the event of a turn carries: answered by a `StepResult`.

    Below zero it is an event by its id: a result that a fork brought along was read in no turn.
    """
    return ("turn", number)


def want_action(step: str, visit: int) -> tuple[str, str, int]:
    """The wish for the action in a visit's job: answered by a mapping."""
    return ("action", step, visit)


def want_items(step: str, visit: int, start: int, count: int) -> tuple[str, str, int, int, int]:
    """The wish for items of an iterator, `count` from place `start`: answered by a list."""
    return ("items", step, visit, start, count)


def want_item_status(step: str, visit: int, place: int) -> tuple[str, str, int, int]:
    """The wish for where one item of an iterator stands: answered by WAITING, RUNNING, COMPLETED, FAILED or None."""
    return ("item", step, visit, place)


def want_child(step: str, visit: int, child_execution_id: int) -> tuple[str, str, int, int]:
    """The wish for whether a visit waits for this execution, or has waited for it: answered by True or None."""
    return ("child", step, visit, child_execution_id)


def want_failed(step: str, visit: int) -> tuple[str, str, int]:
    """The wish for the failed items of an iterator: answered by a list of {index, error}, None where there is none.

    `want_failing` has those that turns found which are not written yet.
    """
    return ("failed", step, visit)


def want_failing(step: str, visit: int) -> tuple[str, str, int]:
    """The failed items of an iterator that turns have told of since its tables were read: no wish, nobody loads it."""
    return ("failing", step, visit)


def failed_item(end: ItemEnd) -> dict[str, JSON]:
    """A failed item as `{{ it.failed }}` lists it."""
    item: dict[str, JSON] = as_stored({"index": end.place, "error": end.error})
    return item


class Found(NamedTuple):
    """The latest result of a step, and the visit that it is of."""

    visit: int
    result: StepResult


def result_of(event_type: str, result: JSON, error: JSON) -> StepResult:
    """What an event that ended an action says of its step: data, status, error (spec section 3: unwrapped once)."""
    kind = kind_of(event_type)
    if kind not in COMPLETIONS and (kind != STEP_RESULT or error is not None):
        return StepResult(None, "FAILED", error)
    data = unwrap(result)
    if data is result:
        return StepResult(data, "COMPLETED", None)
    meta = result.get("meta")
    failed = meta.get("failed") if isinstance(meta, dict) else None  # what a worker says that iterates
    told = failed if isinstance(failed, list) else None
    return StepResult(data, str(result.get("status") or "COMPLETED"), result.get("error"), told)


class Known:
    """What the shell has loaded for one execution; asking for anything else raises `NotLoaded`.

    `complete`: everything that there is has been told (a story, a replay), so what is not there does not exist.
    """

    __slots__ = ("answers", "complete", "rules", "written")

    def __init__(
        self,
        rules: Rules | None = None,
        answers: Mapping[tuple[object, ...], object] | None = None,
        *,
        complete: bool = False,
    ) -> None:
        """`answers` maps wishes (see `want_step` and the others) to what was found."""
        self.rules = rules or Rules()
        self.answers: dict[tuple[object, ...], object] = dict(answers or {})
        self.complete = complete
        self.written = 0  # about how many characters the turns so far write of what templates gave

    def ask(self, want: tuple[object, ...]) -> Any:
        """The answer to a wish, or `NotLoaded`."""
        answer = self.answers.get(want, NOT_LOADED)
        if answer is NOT_LOADED and want[0] == "items":
            answer = self._part_of_items(*want[1:])
        if answer is NOT_LOADED:
            if self.complete and want[0] in {"step", "item", "child", "failed"}:
                return None
            raise NotLoaded(frozenset((want,)))
        return answer

    def tell_items(self, step: str, visit: int, values: list[JSON]) -> None:
        """All items of an iterator, as its first turn chose them."""
        self.answers["all items", step, visit] = values

    def _part_of_items(self, step: Any, visit: Any, start: Any, count: Any) -> object:
        values = self.answers.get(("all items", step, visit))
        return values[start : start + count] if isinstance(values, list) else NOT_LOADED

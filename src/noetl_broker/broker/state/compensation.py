"""What a compensation keeps in the state of its execution; its JSON."""

from __future__ import annotations

from typing import Any, NamedTuple

from noetl_broker.broker.model.values import JSON


class Undoing(NamedTuple):
    """The undo that runs: the visit or item that it undoes, the turn that read its success, and its attempts.

    `child`: it is done by a child execution. `failures` and `failed_attempt` are as in `Token`.
    """

    step: str
    visit: int
    item_index: int | None
    turn: int
    child: bool = False
    failures: int = 0
    failed_attempt: int = 0


class Compensation(NamedTuple):
    """The progress of a COMPENSATING execution. It will end with `status` and `error`, unless an undo fails.

    `cursor`: the rows of this turn and of later turns are done; None: no row is. `current` is the undo that runs.
    `done` and `failed` count rows; the state counts open and unknown rows. `execution_id`:
    of an undo execution, the execution whose actions it undoes; 0: this one.

    The `execution_start` of an undo execution has `undo: {execution_id, origin, rows, error}` in its meta.
    `execution_id` is the execution whose rows it took over, and `rows` their number. `origin` is the execution whose
    actions they undo; another undo execution may stand in between. `error` is for the templates.
    """

    status: str
    error: dict[str, JSON] | None = None
    cursor: int | None = None
    current: Undoing | None = None
    done: int = 0
    failed: int = 0
    execution_id: int = 0


def encode_compensation(compensation: Compensation) -> dict[str, JSON]:
    """The compensation as JSON, without empty fields."""
    document = _without_defaults(compensation)
    if compensation.current is not None:
        document["current"] = _without_defaults(compensation.current)
    return document


def _without_defaults(fields: Compensation | Undoing) -> dict[str, JSON]:
    defaults = fields._field_defaults
    return {name: value for name, value in fields._asdict().items() if name not in defaults or value != defaults[name]}


def decode_compensation(document: dict[str, Any]) -> Compensation:
    """The compensation from its JSON."""
    current = document.get("current")
    return Compensation(**{**document, "current": None if current is None else Undoing(**current)})

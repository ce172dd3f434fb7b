"""What a compensation keeps in the state of its execution; its JSON."""

from __future__ import annotations

from typing import Any, NamedTuple

from noetl_broker.broker.model.values import JSON


class Undoing(NamedTuple):
    """The undo that runs: the visit or item that it undoes, the turn that read its success, and its attempts.

    `child`: it is done by a child execution. `failures` and `failed_attempt` are as in `Token`. `first`: the number of
    its first attempt, if a child does it. A later undo counts on, so that no answer to an earlier one fits.
    `children` undo what they did, one after another, the last one first; `answered` of them did. Other undos have none.
    """

    step: str
    visit: int
    item_index: int | None
    turn: int
    child: bool = False
    failures: int = 0
    failed_attempt: int = 0
    first: int = 1
    children: tuple[int, ...] = ()
    answered: int = 0
    unsure: bool = False


class Compensation(NamedTuple):
    """The progress of an execution that undoes what it did.

    A COMPENSATING execution ends with `status` and `error`, unless an undo fails. An execution that has ended keeps its
    status and error; then `error` is what the templates read. `current` is the undo that runs. `done` and `failed`
    count rows; the state counts open and unknown rows. `answer`: the parent waits for the end of this undo, which it
    knows by this number; 0: it does not. `version`: the undo uses the `compensate` of this version; None: of its own.
    """

    status: str
    error: dict[str, JSON] | None = None
    current: Undoing | None = None
    done: int = 0
    failed: int = 0
    answer: int = 0
    version: int | None = None


def encode_compensation(compensation: Compensation) -> dict[str, JSON]:
    """The compensation as JSON, without empty fields."""
    document = _without_defaults(compensation)
    if compensation.current is not None:
        document["current"] = _without_defaults(compensation.current)
        if compensation.current.children:
            document["current"]["children"] = list(compensation.current.children)
    return document


def _without_defaults(fields: Compensation | Undoing) -> dict[str, JSON]:
    defaults = fields._field_defaults
    return {name: value for name, value in fields._asdict().items() if name not in defaults or value != defaults[name]}


def decode_compensation(document: dict[str, Any]) -> Compensation:
    """The compensation from its JSON."""
    current = document.get("current")
    if current is not None:
        current = Undoing(**{**current, "children": tuple(current.get("children", ()))})
    return Compensation(**{**document, "current": current})

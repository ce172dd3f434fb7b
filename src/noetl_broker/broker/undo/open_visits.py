"""What an open visit waits for, and what may still come of it.

A table by what ends a visit (`waits_for` of its step). Kinds of steps that wait for the same share a row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from noetl_broker.broker.state.state import Counts, Token
from noetl_broker.playbook.kinds import WaitsFor
from noetl_broker.playbook.model import Playbook, Step

NO_ITEMS = Counts(0)


class Waiting(NamedTuple):
    """What the broker must know of the open visits that wait for one thing.

    `column(token)` names a column of `dispatcher.VISIT_TABLE`. `may_report(step, token, block)` says whether the visit,
    an item or a block of it may still report a success. `has_child(step, token)` says whether child executions run.
    `counts_starts`: an attempt has the number of its start in place of its lease. During the delay before the next
    start, the last one has failed.
    """

    column: Callable[[Token], str]
    may_report: Callable[[Step, Token, Playbook | None], bool]
    has_child: Callable[[Step, Token], bool]
    counts_starts: bool = False


def may_report(playbook: Playbook, step: Step, token: Token) -> bool:
    """Whether a visit, an item or a block of it may still report a success that has a `compensate`."""
    block = playbook.blocks.get(step.name)
    if not step.has_compensate and (block is None or not block.undoes):
        return False
    return WAITING[step.waits_for].may_report(step, token, block)


def has_open_child(step: Step, token: Token) -> bool:
    """Whether child executions of a visit run."""
    return WAITING[step.waits_for].has_child(step, token)


def has_open_items(token: Token) -> bool:
    """Whether items of a visit, or children that its worker started, have not ended."""
    counts = token.items or NO_ITEMS
    return counts.started > counts.ended


def _column_of_worker(token: Token) -> str:
    if token.items is None:
        return "worker"
    return "children" if token.answered else "adopting"


def _may_worker_report(step: Step, token: Token, _block: Playbook | None) -> bool:
    return step.compensate is not None and not token.answered


def _has_adopted_child(_step: Step, token: Token) -> bool:
    return has_open_items(token)


def _column_of_child(token: Token) -> str:
    if token.failures > token.failed_attempt:
        return "delay"
    return "restarted" if token.failures else "child"


def _runs_child(_step: Step, token: Token) -> bool:
    return token.failures <= token.failed_attempt and not token.due


def _may_child_report(step: Step, token: Token, _block: Playbook | None) -> bool:
    return _runs_child(step, token)


def _column_of_items(_token: Token) -> str:
    return "items"


def _may_items_report(step: Step, token: Token, block: Playbook | None) -> bool:
    counts, iteration = token.items or NO_ITEMS, step.iteration
    of_items = block is not None or (iteration is not None and iteration.task.compensate is not None)
    return (of_items and has_open_items(token)) or (step.compensate is not None and counts.ended == counts.total)


def _runs_children_of_items(step: Step, token: Token) -> bool:
    return step.iteration is not None and step.iteration.task.call is not None and has_open_items(token)


def _column_of_event(_token: Token) -> str:
    return "wait"


def _reports_nothing(_step: Step, _token: Token, _block: Playbook | None) -> bool:
    return False


def _has_no_child(_step: Step, _token: Token) -> bool:
    return False


_NO_JOB = Waiting(_column_of_event, _reports_nothing, _has_no_child)
WAITING: dict[WaitsFor, Waiting] = {
    "worker": Waiting(_column_of_worker, _may_worker_report, _has_adopted_child),
    "child": Waiting(_column_of_child, _may_child_report, _runs_child, counts_starts=True),
    "items": Waiting(_column_of_items, _may_items_report, _runs_children_of_items),
    "event": _NO_JOB,
    "nothing": _NO_JOB,  # no visit is ever open
}

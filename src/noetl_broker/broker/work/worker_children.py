"""Child executions that a worker starts: the step of the worker waits for them.

The worker reports a child by an `iteration_started` with its execution id. The child then answers the step as if the
broker had started it. The step completes with the results, by index, when the worker is done and all children ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.draft.wants import want_child, want_item_status
from noetl_broker.broker.flow.transitions import process_completed_steps
from noetl_broker.broker.model.decision import Refused
from noetl_broker.broker.model.effects import ChildAdopted
from noetl_broker.broker.model.event import Event
from noetl_broker.broker.model.limits import MAX_ID, MAX_ITEM_INDEX
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.state import Counts
from noetl_broker.broker.work.item_ends import fail_all, fail_too_many, gather_when_ended
from noetl_broker.broker.writing.errors import describe_error
from noetl_broker.broker.writing.queue import end_job

if TYPE_CHECKING:
    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.state.state import Token
    from noetl_broker.playbook.model import Step

MAX_INDEX = 2**31 - 1


def adopt_child(draft: Draft, token: Token) -> None:
    """`iteration_started` of a worker: the step waits for one more child.

    Raises Refused if another child has this index, or if the step already waits for this child. A worker that starts
    over reports its children again.
    """
    event, counts = draft.event, token.items or Counts(0)
    child = child_of(event)
    if child is None:
        raise Refused("recorded")
    index = _index_of(event)
    if index is None:
        index = token.next_index
    elif draft.known.ask(want_item_status(token.step, token.visit, index)) is not None:
        raise Refused("duplicate")
    if draft.known.ask(want_child(token.step, token.visit, child)):
        raise Refused("duplicate")
    draft.add(ChildAdopted(token.step, token.visit, index, child))
    counts = counts._replace(total=counts.total + 1, started=counts.started + 1)
    after = max(token.next_index, index + 1)
    draft.state.tokens[token.step, token.visit] = token._replace(items=counts, next_index=after)


def complete_action(draft: Draft, token: Token) -> None:
    """Complete the step of a worker that is done, or wait for the children that it started."""
    step = draft.playbook.steps[token.step]
    failed, total = _failed_items(draft, step, token) if token.items is None else ([], 0)
    if token.items is None and not failed:
        process_completed_steps(draft, token)
        return
    if not draft.event.settled:
        end_job(draft, step, token.visit, "done")
    if token.items is not None:
        gather_when_ended(draft, token._replace(answered=True))
        return
    item = failed[0] if isinstance(failed[0], dict) else {}
    error = None if item.get("error") is None else describe_error(step, item["error"])
    described = _of_item(error, item.get("index"))
    if len(failed) == total:
        fail_all(draft, step, token, described, total=total)
    else:
        fail_too_many(draft, step, token, described, Counts(total, total, total, len(failed)))


def complete_children(draft: Draft, token: Token) -> None:
    """`iterator_completed`: complete the step with the results of the children that its worker started."""
    counts = token.items
    if counts is None or counts.ended < counts.total or not token.answered:
        raise Refused("recorded")
    process_completed_steps(draft, token)


def _failed_items(draft: Draft, step: Step, token: Token) -> tuple[list[JSON], int]:
    """The failed items that an iterating worker reports, and the number of all, if the step fails; else none.

    A worker that does not know `tolerate` goes on.
    """
    iteration = step.iteration
    if iteration is None:
        return [], 0
    tolerate = iteration.tolerate
    if iteration.on_error == "fail" if tolerate is None else tolerate.allows_all:
        return [], 0
    draft.templates.end_visit((step.name, token.visit), None)
    result = draft.templates.ended_result()
    failed = result.failed if isinstance(result.failed, list) else []
    if not isinstance(result.data, list) or not failed:
        return [], 0
    total = len(result.data)
    too_many = tolerate is not None and not tolerate.allows(len(failed), total)
    return (failed, total) if too_many or len(failed) == total else ([], 0)


def _of_item(error: dict[str, JSON] | None, index: JSON) -> dict[str, JSON] | None:
    return error if error is None or not _is_whole(index, MAX_INDEX) else {**error, "index": index}


def child_of(event: Event) -> int | None:
    """The child that an `iteration_started` names, as a number or its digits; None if it names none."""
    value = event.context.get("child_execution_id") if isinstance(event.context, dict) else None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:  # noqa: PLR2004 - an int8
        value = int(value)
    return value if _is_whole(value, MAX_ID) and value else None


def _index_of(event: Event) -> int | None:
    if event.item_index is not None:
        return event.item_index
    value: JSON = event.context.get("index")
    return value if _is_whole(value, MAX_ITEM_INDEX) else None


def _is_whole(value: JSON, largest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= largest

"""Children that a worker started: the step that it works for waits for them, too (spec section 5).

The worker says so by an `iteration_started` with the child's execution id. From then on the child answers to the step
like one that the broker started; when the worker is done and the last of them has ended, the step completes with their
results by index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.context import want_child, want_item_status
from noetl_broker.broker.iterators import Refused, fail_all, gather_when_ended
from noetl_broker.broker.model import JSON, Adoption, Event
from noetl_broker.broker.queue import change_job
from noetl_broker.broker.retries import describe_error
from noetl_broker.broker.state import Counts
from noetl_broker.broker.transitions import process_completed_steps

if TYPE_CHECKING:
    from noetl_broker.broker.draft import Draft
    from noetl_broker.broker.state import Token
    from noetl_broker.playbook.model import Step

LARGEST_ID = 2**63 - 1
LARGEST_PLACE = 2**31 - 1
LARGEST_INDEX = 1_000_000  # that a worker may give, so that there are places above it for those without one


def adopt_child(draft: Draft, token: Token) -> None:
    """`iteration_started` of a worker: one more child that the step waits for.

    Raises Refused where another child already has its place, or where it is waited for at another one: a worker that
    started over, or said it again, is not waited for twice.
    """
    event, counts = draft.event, token.items or Counts(0)
    child = child_of(event)
    if child is None:
        raise Refused("recorded")
    place = _place(event)
    if place is None:
        place = token.next_place
    elif draft.known.ask(want_item_status(token.step, token.visit, place)) is not None:
        raise Refused("duplicate")
    if draft.known.ask(want_child(token.step, token.visit, child)):
        raise Refused("duplicate")
    draft.adoptions.append(Adoption(token.step, token.visit, place, child))
    counts = counts._replace(total=counts.total + 1, started=counts.started + 1)
    after = max(token.next_place, place + 1)
    draft.tokens[token.step, token.visit] = token._replace(items=counts, next_place=after)


def complete_action(draft: Draft, token: Token) -> None:
    """A worker is done: its step completes, or waits for the children that the worker started."""
    step = draft.playbook.steps[token.step]
    failed = _failed_items(draft, step, token) if token.items is None else []
    if token.items is None and not failed:
        process_completed_steps(draft, token)
        return
    if not draft.event.settled:
        change_job(draft, step, token.visit, "done")
    if token.items is not None:
        gather_when_ended(draft, token._replace(answered=True))
        return
    item = failed[0] if isinstance(failed[0], dict) else {}
    error = None if item.get("error") is None else describe_error(step, item["error"])
    fail_all(draft, step, token, _of_item(error, item.get("index")), total=len(failed))


def _failed_items(draft: Draft, step: Step, token: Token) -> list[JSON]:
    """What a worker that iterates says of its failed items, if these are all that there were; else nothing."""
    iteration = step.iteration
    if iteration is None or iteration.on_error == "fail" or not draft.known.rules.failed_items:
        return []
    draft.leave((step.name, token.visit), None)
    result = draft.own_result()
    failed = result.failed if isinstance(result.failed, list) else []
    return failed if isinstance(result.data, list) and len(result.data) == len(failed) else []


def _of_item(error: dict[str, JSON] | None, index: JSON) -> dict[str, JSON] | None:
    return error if error is None or not _is_whole(index, LARGEST_PLACE) else {**error, "index": index}


def child_of(event: Event) -> int | None:
    """The execution that an `iteration_started` names, a number or its digits; None where it names none."""
    value = event.context.get("child_execution_id") if isinstance(event.context, dict) else None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:  # noqa: PLR2004 - an int8
        value = int(value)
    return value if _is_whole(value, LARGEST_ID) and value else None


def _place(event: Event) -> int | None:
    if event.place is not None:
        return event.place
    value: JSON = event.context.get("index")
    return value if _is_whole(value, LARGEST_INDEX) else None


def _is_whole(value: JSON, largest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= largest

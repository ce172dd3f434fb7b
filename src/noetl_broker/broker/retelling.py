"""A recorded history as a story that a test plays: without the ids and the times of the database that it is from."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.model import ACTION_FAILED, Decision, Event, Rules
from noetl_broker.broker.story import play_turns, read_events, tell, tell_turn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from noetl_broker.playbook.model import Playbook


class Retelling(NamedTuple):
    """The story; `parts_at` is the first turn (from 1) that goes another way in it than it went, None if none does."""

    text: str
    parts_at: int | None


def retell(playbook: Playbook, taken: Sequence[tuple[Event, Decision]], rules: Rules) -> Retelling:
    """The story of these turns as `play` tells it, in which an execution has another id and other times.

    Raises ValueError where an event cannot be told in a line.
    """
    leases = _visits_with_repeated_failures(taken)
    causes = [
        next(tell_turn(event, decision, attempt=(event.step, event.visit) in leases)) for event, decision in taken
    ]
    events = [*read_events("\n".join(causes))]
    played = [(event, decision) for event, decision, _ in play_turns(playbook, events, rules=rules)]
    pairs = zip(taken, played, strict=True)
    parts_at = (number for number, (was, now) in enumerate(pairs, 1) if _way(was[1]) != _way(now[1]))
    return Retelling(tell(played), next(parts_at, None))


def _visits_with_repeated_failures(taken: Sequence[tuple[Event, Decision]]) -> set[tuple[str | None, int | None]]:
    """Visits with a failure that was told twice: there, it matters which lease a failure speaks of."""
    failed = {(event.step, event.visit) for event, _ in taken if event.kind == ACTION_FAILED}
    repeated = {(event.step, event.visit) for event, decision in taken if decision.outcome == "duplicate"}
    return failed & repeated


def _way(decision: Decision) -> tuple[object, ...]:
    """What a decision does, without the values that an execution's own id and times are in."""
    return (
        decision.outcome,
        [(event.type, event.step, event.visit, event.status) for event in decision.events],
        [(job.step, job.visit, job.place) for job in decision.jobs],
        [(child.step, child.visit, child.place, child.path) for child in decision.children],
        [(change.step, change.visit, change.status) for change in decision.changes if change.status != "done"],
        decision.posts,
        decision.ended.status if decision.ended else None,
    )

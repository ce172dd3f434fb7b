"""The tracking rows: where each step stands, for a dashboard that reads no event log.

They say again what the events say, so each is written where its event is: `verify` holds the two against each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.model import Row

if TYPE_CHECKING:
    from noetl_broker.broker.draft import Draft
    from noetl_broker.playbook.model import Step


UNTOUCHED = Row("", "RUNNING", 0)  # a step of which the turn has written nothing yet


def track_started(draft: Draft, step: Step, ordinal: int) -> None:
    """A visit of the step began with the turn's event at `ordinal`; an earlier one may have ended in the same turn."""
    before = draft.rows.get(step.name, UNTOUCHED)
    draft.rows[step.name] = Row(
        step.name, "RUNNING", draft.visits(step), ordinal, None, before.result_visit, before.taken
    )


def track_ended(draft: Draft, step: Step, status: str, ordinal: int, result_visit: int | None = None) -> None:
    """A visit of the step ended; the step runs on while another visit of it lives."""
    before = draft.rows.get(step.name, UNTOUCHED)
    if any(token.step == step.name for token in draft.tokens.values()):
        status = "RUNNING"
    ended = None if status == "RUNNING" else ordinal
    taken = before.taken
    if result_visit is None:
        result_visit = before.result_visit
    else:
        taken = False
    draft.rows[step.name] = Row(step.name, status, draft.visits(step), before.started, ended, result_visit, taken)


def track_cancelled(draft: Draft, ordinal: int) -> None:
    """The execution ended under its live visits."""
    for token in draft.tokens.values():
        step = draft.playbook.steps[token.step]
        before = draft.rows.get(step.name, UNTOUCHED)
        if before.status == "RUNNING":
            draft.rows[step.name] = Row(
                step.name, "CANCELLED", draft.visits(step), before.started, ordinal, before.result_visit, before.taken
            )

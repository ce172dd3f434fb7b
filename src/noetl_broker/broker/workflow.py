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
    draft.rows[step.name] = before._replace(
        step=step.name, status="RUNNING", visits=draft.visits(step), started=ordinal, ended=None
    )


def track_ended(draft: Draft, step: Step, status: str, ordinal: int, result_visit: int | None = None) -> None:
    """A visit of the step ended; the step runs on while another visit of it lives."""
    before = draft.rows.get(step.name, UNTOUCHED)
    if any(token.step == step.name for token in draft.tokens.values()):
        status = "RUNNING"
    ended = None if status == "RUNNING" else ordinal
    row = before._replace(step=step.name, status=status, visits=draft.visits(step), ended=ended)
    draft.rows[step.name] = row if result_visit is None else row._replace(result_visit=result_visit, taken=False)


def track_cancelled(draft: Draft, ordinal: int) -> None:
    """The execution ended under its live visits."""
    for token in draft.tokens.values():
        step = draft.playbook.steps[token.step]
        before = draft.rows.get(step.name, UNTOUCHED)
        if before.status == "RUNNING":
            draft.rows[step.name] = before._replace(
                step=step.name, status="CANCELLED", visits=draft.visits(step), ended=ordinal
            )

"""The tracking rows: the status of each step, for dashboards. `verify` compares them with the events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.model.decision import StepRow

if TYPE_CHECKING:
    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.playbook.model import Step


UNTOUCHED = StepRow("", "RUNNING", 0)  # the turn has not written about the step


def track_started(draft: Draft, step: Step, ordinal: int) -> None:
    """A visit of the step began with event `ordinal`; an earlier visit may have ended in this turn."""
    before = draft.writes.rows.get(step.name, UNTOUCHED)
    draft.writes.rows[step.name] = StepRow(
        step.name,
        "RUNNING",
        draft.state.visits(step),
        ordinal,
        None,
        before.result_visit,
        before.taken,
        before.result_at,
    )


def track_ended(
    draft: Draft, step: Step, status: str, ordinal: int, result_visit: int | None = None, result_at: int | None = None
) -> None:
    """A visit of the step ended; the step is RUNNING while another visit is open.

    `result_at` is the position of the emitted event with the result, if the turn's event does not have it.
    """
    before = draft.writes.rows.get(step.name, UNTOUCHED)
    if draft.state.tokens and any(
        token.step == step.name and not token.draining for token in draft.state.tokens.values()
    ):
        status = "RUNNING"
    ended = None if status == "RUNNING" else ordinal
    taken = before.taken
    if result_visit is None:
        result_visit, result_at = before.result_visit, before.result_at
    else:
        taken = False
    draft.writes.rows[step.name] = StepRow(
        step.name, status, draft.state.visits(step), before.started, ended, result_visit, taken, result_at
    )


def track_cancelled(draft: Draft, ordinal: int) -> None:
    """The execution ended while visits were open."""
    for token in draft.state.tokens.values():
        step = draft.playbook.steps[token.step]
        before = draft.writes.rows.get(step.name, UNTOUCHED)
        if before.status == "RUNNING" and not token.draining:
            draft.writes.rows[step.name] = StepRow(
                step.name, "CANCELLED", draft.state.visits(step), before.started, ordinal, before.result_visit,
                before.taken, before.result_at,
            )  # fmt: skip

"""The selected step of an execution: its inputs, result, error, log and attempts, and why it ran or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import BaseModel

from noetl_broker.console.pages.screen import Screen
from noetl_broker.errors import BrokerError
from noetl_broker.history.past import Past
from noetl_broker.history.visit_spans import Attempt, attempts_of
from noetl_broker.node_ids import read_node, visit_name
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.service.explanations import explain_part
from noetl_broker.service.models.base import Role
from noetl_broker.service.models.values import Payload, WorkerFault
from noetl_broker.store.admin import logs, visit_spans
from noetl_broker.store.connect.connection import Connection

EXPLAINED_TURNS = 500  # up to which a page explains without being asked
LOG_ENTRIES = 200


class Chosen(NamedTuple):
    """A step of an execution, one visit of it, and perhaps an item of that visit. `visit` 0: it was never visited."""

    step: str
    visit: int
    visits: int
    item_index: int | None = None

    @property
    def name(self) -> str:
        """The name as people write it: `load`, `load#2`, `load[3]`."""
        return visit_name(self.step, self.visit, self.item_index) if self.visit else self.step


class VisitValues(BaseModel):
    """The values of a visit, which a viewer does not see."""

    inputs: Payload
    result: Payload
    error: WorkerFault


def choose(text: str, steps: Sequence[Mapping[str, Any]]) -> Chosen | None:
    """The step that the address names; None if the execution has no such step. Raises OperatorFault."""
    visits = {row["step"]: row["visits"] or 0 for row in steps}
    if text in visits:
        return Chosen(text, visits[text], visits[text])
    step, visit, index = read_node(text)
    if step not in visits or (visit or 0) > visits[step]:
        return None
    return Chosen(step, visit or visits[step], visits[step], index)


class ShownTurn(NamedTuple):
    """A turn of an execution's past."""

    past: Past
    turn: int

    @property
    def at(self) -> datetime:
        """When the turn was decided."""
        return self.past.turns[self.turn - 1].recorded.turn.at


async def load_panel(
    connection: Connection, screen: Screen, execution_id: int, chosen: Chosen, moment: ShownTurn | None
) -> dict[str, Any]:
    """The panel's data of a step, now or after a turn; there is no `visit` if the step was not visited."""
    panel: dict[str, Any] = {"chosen": chosen, "visit": None, "attempts": (), "log": []}
    if not chosen.visit:
        return panel
    visit = await visit_spans.load_visit(connection, execution_id, chosen.step, chosen.visit, chosen.item_index)
    result, error = visit.result, visit.error
    if moment is not None:
        found = moment.past.result_after(moment.turn, chosen.step)
        is_its = found is not None and found.visit == chosen.visit and chosen.item_index is None
        result, error = (found.data, found.error) if is_its and found is not None else (None, None)
    panel |= {
        "visit": visit,
        "shown": screen.seen(VisitValues, {"inputs": visit.inputs, "result": result, "error": error}),
        "attempts": _attempts([event for event in visit.events if moment is None or event["created_at"] <= moment.at]),
        "has_result": result is not None,
        "has_error": error is not None,
    }
    if screen.may_act:
        subject = logs.LogSubject(
            execution_id=execution_id, step=chosen.step, visit=chosen.visit, item_index=chosen.item_index
        )
        entries = await logs.list_newest_log(connection, subject, limit=LOG_ENTRIES + 1)
        shown = [entry for entry in entries[-LOG_ENTRIES:] if moment is None or entry["created_at"] <= moment.at]
        panel |= {"log": shown, "log_is_cut": len(entries) > LOG_ENTRIES}
    return panel


async def explained(
    connection: Connection, screen: Screen, execution_id: int, part: str | None, rules: PlaybookRules
) -> dict[str, Any]:
    """Why a part ran or not, as nested sentences. If there is no explanation, one sentence says why.

    Commands are left out: the page has buttons for them.
    """
    shows = screen.caller is not None and screen.caller.role is Role.OPERATOR
    try:
        return without_remedies(
            (await explain_part(connection, execution_id, part, rules, shows_values=shows)).as_json()
        )
    except BrokerError as fault:
        return {"kind": "fault", "says": str(fault)}


def without_remedies(reason: dict[str, Any]) -> dict[str, Any]:
    """The reason without those behind it that name a command."""
    because = [without_remedies(one) for one in reason.get("because", ()) if one.get("kind") != "remedy"]
    return {**reason, "because": because} if "because" in reason else reason


class ShownAttempt(NamedTuple):
    """An attempt of a visit's job, the worker that made it, and its error."""

    number: int
    span: Attempt
    worker: str | None
    error: Any


def _attempts(events: Sequence[Mapping[str, Any]]) -> list[ShownAttempt]:
    started = [event for event in events if event["event_type"] == "action_started"]
    failed = [event for event in events if event["event_type"] == "action_failed"]
    ended = [event["created_at"] for event in events if event["event_type"] == "action_completed"]
    last: datetime | None = ended[-1] if ended else None
    spans = attempts_of(_moments(started), _moments(failed), last)
    return [
        ShownAttempt(
            number,
            span,
            event["worker_id"],
            next((fault["error"] for fault in failed if span.failed and fault["created_at"] == span.ended_at), None),
        )
        for number, (span, event) in enumerate(zip(spans, started, strict=True), 1)
    ]


def _moments(events: Sequence[Mapping[str, Any]]) -> list[datetime]:
    return [event["created_at"] for event in events]

"""What a page about one execution shows: the present or the past after a turn, its times, and a chosen step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from noetl_broker.diagram.build import picture_of_execution
from noetl_broker.diagram.model import Picture
from noetl_broker.errors import BrokerError, NotFoundFault, OperatorFault
from noetl_broker.history.past import Past, PastTurn
from noetl_broker.history.visit_spans import Attempt, ExecutionSpans, attempts_of
from noetl_broker.node_ids import read_node, visit_name
from noetl_broker.playbook import PlaybookError
from noetl_broker.service import paging
from noetl_broker.service.action import Caller, Cost, Role, action
from noetl_broker.service.explanations import explain_part
from noetl_broker.service.models import executions as models
from noetl_broker.service.models.base import Listed, OneExecution, PageOfOne
from noetl_broker.service.replays import Replays
from noetl_broker.store.admin import approvals, catalog, executions, logs, visit_spans
from noetl_broker.store.admin.execution_path import load_execution_path
from noetl_broker.store.connect.connection import Connection

SETTLED: Final = timedelta(minutes=1)  # after an end; what starts because of it has started
EXPLAINED_TURNS = 500  # up to which a history is explained without being asked
LOG_ENTRIES: Final = 200  # of a step
MOST_ASKED: Final = 20  # approvals of one execution


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


class ShownAttempt(NamedTuple):
    """An attempt of a visit's job, the worker that made it, and its error."""

    number: int
    span: Attempt
    worker: str | None
    error: Any


@dataclass(slots=True, kw_only=True)
class View:
    """An execution, and what follows from its history; `no_…` says why a part is missing."""

    details: dict[str, Any]
    origin: dict[str, Any]
    turn: int | None = None
    picture: Picture | None = None
    no_picture: str | None = None
    past: Past | None = None
    no_past: str | None = None
    spans: ExecutionSpans | None = None
    chosen: Chosen | None = None
    no_step: str | None = None
    panel: dict[str, Any] | None = None
    why: dict[str, Any] | None = None
    asked: Sequence[dict[str, Any]] = ()

    @property
    def shown(self) -> PastTurn | None:
        """The turn whose past is shown."""
        return None if self.past is None or self.turn is None else self.past.turns[self.turn - 1]

    @property
    def at(self) -> datetime | None:
        """The moment that is shown; None: now."""
        return None if self.shown is None else self.shown.recorded.turn.at


async def load_view(connection: Connection, caller: Caller, given: models.ViewRequest, replays: Replays) -> View:
    """All of it. Raises NotFoundFault."""
    execution_id, turn = given.execution_id, given.turn
    details = await executions.load_execution_details(connection, execution_id)
    view = View(details=details, origin=await visit_spans.load_origin(connection, execution_id))
    if turn is not None:
        try:
            view.past, view.turn = await replays.past(connection, execution_id, turn, caller.rules), turn
        except OperatorFault as fault:
            view.no_past = str(fault)
    await _load_picture(connection, caller, view)
    path = view.picture.execution if view.picture is not None else None
    if view.past is not None:
        path = view.past.path_after(len(view.past.turns), details["started_at"])
    went_on = () if path is None else path.trace.went_on
    notes = {one["step"]: _progress_text(one) for one in details["iterators"]}
    view.spans = await visit_spans.load_spans(connection, details, went_on=went_on, notes=notes)
    if given.step:
        await _load_step(connection, caller, view, given.step)
    if view.past is None and (given.why or view.origin["turns"] <= EXPLAINED_TURNS):
        view.why = await _explain(connection, caller, view, replays)
    if caller.sees_values and any(wait["kind"] == "approval" for wait in details["waits"]):
        found = await approvals.list_approvals(connection, execution_id=execution_id, limit=MOST_ASKED)
        view.asked = [asdict(each) for each in found]
    return view


async def _load_picture(connection: Connection, caller: Caller, view: View) -> None:
    """The graph as it is, or as it was after a turn."""
    try:
        if view.past is not None and view.turn is not None:
            path = view.past.path_after(view.turn, view.details["started_at"])
            view.picture = picture_of_execution(view.past.playbook, path)
        else:
            found = await load_execution_path(connection, view.details["execution_id"], caller.rules)
            view.picture = picture_of_execution(*found)
    except BrokerError as fault:
        view.no_picture = str(fault)


def _progress_text(one: Mapping[str, Any]) -> str:
    """How far an iterator is."""
    return f"{one['ended']:,} of {one['total']:,} items" + (f", {one['failed']:,} failed" if one["failed"] else "")


async def _load_step(connection: Connection, caller: Caller, view: View, name: str) -> None:
    """The step that was chosen, or why there is none."""
    path = view.picture.execution if view.past is not None and view.picture is not None else None
    steps: list[Mapping[str, Any]] = view.details["steps"]
    if path is not None:
        steps = [{"step": each, "visits": step.visits} for each, step in path.steps.items()]
    try:
        view.chosen = choose(name, steps)
    except (OperatorFault, NotFoundFault) as fault:
        view.no_step = str(fault)
    else:
        view.panel = await _load_panel(connection, caller, view, view.chosen)


def choose(text: str, steps: Sequence[Mapping[str, Any]]) -> Chosen:
    """The step that a name chooses. Raises OperatorFault, and NotFoundFault if the execution has no such step."""
    visits = {row["step"]: row["visits"] or 0 for row in steps}
    if text in visits:
        return Chosen(text, visits[text], visits[text])
    step, visit, index = read_node(text)
    if step not in visits or (visit or 0) > visits[step]:
        raise NotFoundFault(f"this execution has no step or visit {text!r:.80}")
    return Chosen(step, visit or visits[step], visits[step], index)


async def _load_panel(connection: Connection, caller: Caller, view: View, chosen: Chosen) -> dict[str, Any]:
    """What is known of a step, now or after a turn; there is no `visit` if the step was not visited."""
    panel: dict[str, Any] = {"chosen": chosen, "visit": None, "attempts": (), "log": []}
    if not chosen.visit:
        return panel
    execution_id, at = view.details["execution_id"], view.at
    visit = await visit_spans.load_visit(connection, execution_id, chosen.step, chosen.visit, chosen.item_index)
    result, error = visit.result, visit.error
    if view.past is not None and view.turn is not None:
        found = view.past.result_after(view.turn, chosen.step)
        is_its = found is not None and found.visit == chosen.visit and chosen.item_index is None
        result, error = (found.data, found.error) if is_its and found is not None else (None, None)
    panel |= {
        "visit": visit,
        "shown": {"inputs": visit.inputs, "result": result, "error": error},
        "attempts": _attempts([event for event in visit.events if at is None or event["created_at"] <= at]),
        "has_result": result is not None,
        "has_error": error is not None,
    }
    if caller.sees_values:
        subject = logs.LogSubject(
            execution_id=execution_id, step=chosen.step, visit=chosen.visit, item_index=chosen.item_index
        )
        entries = await logs.list_newest_log(connection, subject, limit=LOG_ENTRIES + 1)
        shown = [entry for entry in entries[-LOG_ENTRIES:] if at is None or entry["created_at"] <= at]
        panel |= {"log": shown, "log_is_cut": len(entries) > LOG_ENTRIES}
    return panel


def _attempts(events: Sequence[Mapping[str, Any]]) -> list[ShownAttempt]:
    started = [event for event in events if event["event_type"] == "action_started"]
    failed = [event for event in events if event["event_type"] == "action_failed"]
    ended = [event["created_at"] for event in events if event["event_type"] == "action_completed"]
    errors = {event["created_at"]: event["error"] for event in reversed(failed)}
    begins, faults = [event["created_at"] for event in started], [event["created_at"] for event in failed]
    spans = attempts_of(begins, faults, ended[-1] if ended else None)
    return [
        ShownAttempt(number, span, event["worker_id"], errors.get(span.ended_at) if span.failed else None)
        for number, (span, event) in enumerate(zip(spans, started, strict=True), 1)
    ]


async def _explain(connection: Connection, caller: Caller, view: View, replays: Replays) -> dict[str, Any]:
    """Why the execution or the chosen step ran or not. The answer for a long execution that ended is kept.

    If there is no explanation, one sentence says why.
    """
    execution_id, part = view.details["execution_id"], None if view.chosen is None else view.chosen.name
    key = execution_id, part, caller.sees_values, view.origin["turns"]
    is_kept = view.origin["turns"] > EXPLAINED_TURNS and _is_settled(view)
    if is_kept and (kept := replays.explanations.get(key)) is not None:
        return kept
    try:
        why = await explain_part(connection, execution_id, part, caller.rules, shows_values=caller.sees_values)
    except BrokerError as fault:
        return {"kind": "fault", "says": str(fault)}
    found = _without_remedies(why.as_json())
    if is_kept:
        replays.keep_explanation(key, found)
    return found


def _is_settled(view: View) -> bool:
    """Whether nothing changes any more that an explanation says: no retry, no undo, no dead letter."""
    details, ended = view.details, view.details["ended_at"]
    is_old = ended is not None and datetime.now(UTC) - ended > SETTLED
    return is_old and not (view.origin["forks"] or details["undo"] or details["dead_letters"])


def _without_remedies(reason: dict[str, Any]) -> dict[str, Any]:
    """The reason without those behind it that name a command: a page has buttons for them."""
    because = [_without_remedies(one) for one in reason.get("because", ()) if one.get("kind") != "remedy"]
    return {**reason, "because": because} if "because" in reason else reason


@action(Role.VIEWER, dict[str, Any])
async def show_origin(connection: Connection, caller: Caller, given: OneExecution) -> Any:
    """Show the number of turns, and how it began: `workload`, `idempotency_key`, and the `forks` of it."""
    found = await visit_spans.load_origin(connection, given.execution_id)
    return found if caller.sees_values else {**found, "workload": None, "idempotency_key": None}


@action(Role.VIEWER, Listed[dict[str, Any]])
async def list_children(connection: Connection, _caller: Caller, given: PageOfOne) -> Any:
    """List the children by their ids: those that run, and those that answered."""
    begin = (paging.after(given, int) or (0,))[0]
    rows = await visit_spans.list_children(connection, given.execution_id, limit=given.limit + 1, after=begin)
    return paging.cut(given, rows, lambda row: (row["execution_id"],))


@action(Role.OPERATOR, Any)
async def read_value(connection: Connection, _caller: Caller, given: models.ValueRequest) -> Any:
    """Read a value of an execution, or of the latest or the named visit of a step."""
    execution_id = given.execution_id
    details = await executions.load_execution_details(connection, execution_id)
    if not given.step:
        origin = await visit_spans.load_origin(connection, execution_id)
        return {**details, "workload": origin["workload"]}.get(given.part)
    chosen = choose(given.step, details["steps"])
    if not chosen.visit:
        raise NotFoundFault(f"execution {execution_id} has no visit {given.step!r:.80}")
    visit = await visit_spans.load_visit(connection, execution_id, chosen.step, chosen.visit, chosen.item_index)
    return {"result": visit.result, "error": visit.error, "inputs": visit.inputs}.get(given.part)


@action(Role.OPERATOR, dict[str, Any])
async def preview_fork(connection: Connection, caller: Caller, given: models.ForkPreview) -> Any:
    """Read the latest `result` of a step, None without one, and find the step that `following` names: it comes next."""
    try:
        asked = models.ValueRequest(execution_id=given.execution_id, step=given.of, part="result")
        result = await read_value(connection, caller, asked)
    except (NotFoundFault, OperatorFault):
        result = None
    following = await visit_spans.find_following(connection, given.execution_id, given.of)
    return {"result": result, "following": following}


@action(Role.OPERATOR, list[str], cost=Cost.SHORT)
async def preview_cancel(connection: Connection, caller: Caller, given: OneExecution) -> Any:
    """List the running steps with a `compensate`: their jobs drain after a cancel if a worker has them."""
    details = await executions.load_execution_details(connection, given.execution_id)
    running = [row["step"] for row in details["steps"] if row["status"] == "RUNNING"]
    if not running or details["path"] is None:
        return []
    version = await catalog.find_readable(connection, details["path"], details["version"])
    with suppress(PlaybookError):
        steps = {} if version is None else version.compile(caller.rules).steps
        return [name for name in running if name in steps and steps[name].has_compensate]
    return []

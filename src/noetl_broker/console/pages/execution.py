"""One execution: where it stands, its graph and timeline, any of its turns, and each of its steps."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel

from noetl_broker.broker.state.state import is_live
from noetl_broker.console.access import Operator
from noetl_broker.console.pages.rendering import link, pretty
from noetl_broker.console.pages.screen import Paging, Screen, Shown
from noetl_broker.console.pages.step_panel import EXPLAINED_TURNS, Chosen, ShownTurn, choose, explained, load_panel
from noetl_broker.console.replays import MOST_TURNS, Replays
from noetl_broker.console.services import LongWork, Pooled, Rules, ShortWork
from noetl_broker.diagram.build import picture_of_execution
from noetl_broker.diagram.labels import STATES, is_marker, items_text
from noetl_broker.diagram.model import DiagramNode, Picture
from noetl_broker.diagram.svg import LEGEND, render_svg
from noetl_broker.diagram.time_chart import TimeChart, lane_heights
from noetl_broker.errors import BrokerError, NotFoundFault, OperatorFault
from noetl_broker.explain.slots import rank_text
from noetl_broker.history.past import Past, PastTurn
from noetl_broker.history.story import format_turn
from noetl_broker.history.visit_spans import ExecutionSpans
from noetl_broker.node_ids import UNDO_SUFFIX, name_of_node, visit_name
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.service import executions as service
from noetl_broker.service import paging
from noetl_broker.service.action import ServiceAction
from noetl_broker.service.images import without_values
from noetl_broker.service.models.executions import EventView, ExecutionDetails, ItemView, JobView, ListedUndo, ListLog
from noetl_broker.service.models.values import ExecutionId
from noetl_broker.store.admin import approvals, executions, visit_spans
from noetl_broker.store.admin.execution_path import load_execution_path
from noetl_broker.store.connect.connection import Connection
from noetl_broker.text import short_json

router = APIRouter()

TABS: Final = (
    ("", "Overview"),
    ("events", "Events"),
    ("jobs", "Jobs"),
    ("log", "Log"),
    ("items", "Items"),
    ("children", "Children"),
    ("undo", "Undo"),
)
# The lists of the tabs, with the model of their rows.
LISTS: Final[Mapping[str, tuple[ServiceAction[Any, Any], type[BaseModel]]]] = {
    "events": (service.list_events, EventView),
    "jobs": (service.list_jobs, JobView),
    "items": (service.list_items, ItemView),
    "undo": (service.list_undos, ListedUndo),
}
ITEM_STATUSES: Final = ("RUNNING", "FAILED", "COMPLETED", "WAITING", "CANCELLED")
SETTLED: Final = timedelta(minutes=1)  # after an end; what starts because of it has started
LONGEST: Final = 1_000  # characters of a step or a searched text in the address
SEARCHED_ENTRIES: Final = 500  # of a log: entries of one read of a search
SEARCHES: Final = 20  # of these reads, for one page
# The style of a step's state, by the status that looks so.
STATE_STYLES: Final = {
    "pending": "PENDING",
    "unreached": "PENDING",
    "waiting": "WAITING",
    "queued": "queued",
    "asking": "WAITING",
    "due_later": "WAITING",
    "held": "held",
    "running": "RUNNING",
    "retrying": "retry",
    "completed": "COMPLETED",
    "failed": "FAILED",
    "went_on": "went_on",
    "cancelled": "CANCELLED",
}
STATE_WORDS: Final = {"pending": "not yet", "completed": "completed", "cancelled": "cancelled"}
SHOWN_OF_ERROR: Final = frozenset({"type", "message", "reason", "step", "index", "at", "template", "traceback"})


class ExecutionQuery:
    """The choices in the address: a tab, a turn, a step, and whether a long history is explained."""

    def __init__(
        self,
        page: Paging,
        *,
        tab: Annotated[str, Query(max_length=20)] = "",
        turn: Annotated[int | None, Query(ge=1, le=999_999_999)] = None,
        step: Annotated[str, Query(max_length=LONGEST)] = "",
        why: Annotated[bool, Query()] = False,
        status: Annotated[str, Query(max_length=20)] = "",
        text: Annotated[str, Query(max_length=LONGEST)] = "",
    ) -> None:
        self.text = text.strip()
        self.tab, self.turn, self.step, self.why, self.page = tab, turn, step, why, page
        self.status = status if status in ITEM_STATUSES else None


@dataclass(slots=True, kw_only=True)
class View:
    """The data of the page."""

    details: dict[str, Any]
    origin: dict[str, Any]
    picture: Picture | None = None
    drawing: str | None = None
    no_picture: str | None = None
    past: Past | None = None
    no_past: str | None = None
    chart: TimeChart | None = None
    timeline: str | None = None
    chosen: Chosen | None = None
    no_step: str | None = None
    panel: dict[str, Any] | None = None
    why: dict[str, Any] | None = None
    explains: bool = False
    approvals: list[approvals.Approval] | None = None
    tab: dict[str, Any] | None = None


@router.get("/executions/{execution_id:int}")
async def show_execution(
    screen: Shown,
    connections: Pooled,
    short_work: ShortWork,
    long_work: LongWork,
    rules: Rules,
    execution_id: ExecutionId,
    asked: Annotated[ExecutionQuery, Depends()],
) -> Response:
    """Show an execution as it is, or as it was after a turn."""

    async def read(connection: Connection) -> View:
        return await _load(connection, screen, rules, execution_id, asked)

    if asked.tab:
        async with connections.borrow() as connection:
            view = await read(connection)
    else:
        view = await (short_work if asked.turn is None else long_work).run(read)
    turn = asked.turn if view.past is not None else None
    details = screen.seen(ExecutionDetails, view.details)
    return screen.render(
        "execution.html",
        title=details["path"] or f"Execution {execution_id}",
        changes=str(execution_id),
        tabs=[tab for tab in TABS if tab[0] not in _empty_tabs(view, screen)],
        item_statuses=ITEM_STATUSES,
        item_status=asked.status,
        log_text=asked.text,
        chosen_tab=asked.tab,
        view=view,
        details=details,
        is_live=is_live(details["status"]),
        steps=_steps(view),
        turn=turn,
        turns=view.origin["turns"],
        most_turns=MOST_TURNS,
        moment_of_turn=None if turn is None or view.past is None else view.past.turns[turn - 1],
        decided=None if turn is None or view.past is None else decided(view.past.turns[turn - 1], screen),
        lanes=() if view.chart is None else lane_heights(view.chart),
        legend=LEGEND,
        link_step=lambda step, visit=None: _link_step(screen, step, visit),
        visit_name=visit_name,
        others=others,
        limits_of=limits_of,
        rank_text=rank_text,
        step_of=name_of_node,
        short=short_json,
        whole_of=lambda chosen: link(f"/executions/{execution_id}/values/result", step=chosen.name),
    )


@router.get("/executions/{execution_id:int}/values/{part}")
async def show_value(
    _caller: Operator,
    connections: Pooled,
    execution_id: ExecutionId,
    part: Literal["workload", "result", "error", "inputs"],
    step: Annotated[str, Query(max_length=LONGEST)] = "",
) -> Response:
    """Show the whole of a value as JSON: of the execution, or of a step."""
    async with connections.borrow() as connection:
        details = await executions.load_execution_details(connection, execution_id)
        if not step:
            origin = await visit_spans.load_origin(connection, execution_id)
            found = {**details, "workload": origin["workload"]}.get(part)
        else:
            chosen = choose(step, details["steps"])
            if chosen is None or not chosen.visit:
                raise NotFoundFault(f"execution {execution_id} has no visit {step!r:.80}")
            visit = await visit_spans.load_visit(connection, execution_id, chosen.step, chosen.visit, chosen.item_index)
            found = {"result": visit.result, "error": visit.error, "inputs": visit.inputs}.get(part)
    return Response((await asyncio.to_thread(pretty, found, None)).text, media_type="application/json")


async def _load(
    connection: Connection, screen: Screen, rules: PlaybookRules, execution_id: int, asked: ExecutionQuery
) -> View:
    details = await executions.load_execution_details(connection, execution_id)
    view = View(details=details, origin=await visit_spans.load_origin(connection, execution_id))
    if asked.turn is not None and not asked.tab:  # a tab has no slider, and is read in the event loop
        replays: Replays = screen.request.app.state.replays
        try:
            view.past = await replays.past(connection, execution_id, asked.turn, rules)
        except OperatorFault as fault:
            view.no_past = str(fault)
    if asked.tab:
        view.tab = await _load_tab(connection, screen, view, asked)
        return view
    await _load_picture(connection, rules, view, asked.turn)
    spans = await _load_spans(connection, view)
    at = None if view.past is None or asked.turn is None else view.past.turns[asked.turn - 1].recorded.turn.at
    view.chart = TimeChart(spans, names=False, link=lambda step, visit: _link_step(screen, step, visit), at=at)
    view.timeline = view.chart.svg(style=False)
    if asked.step:
        await _load_step(connection, screen, view, asked)
    view.explains = view.past is None and (asked.why or view.origin["turns"] <= EXPLAINED_TURNS)
    if view.explains:
        view.why = await _explain(connection, screen, rules, view)
    if view.picture is not None:
        view.picture = view.picture if screen.may_act else without_values(view.picture)
        marked = view.chosen.step if view.chosen is not None else _step_of_turn(view, asked.turn)
        view.drawing = render_svg(view.picture, link=lambda node: _link_step(screen, node.step), chosen=marked)
    if any(wait["kind"] == "approval" for wait in view.details["waits"]) and screen.may_act:
        view.approvals = await approvals.list_approvals(connection, execution_id=execution_id, limit=20)
    return view


async def _explain(connection: Connection, screen: Screen, rules: PlaybookRules, view: View) -> dict[str, Any]:
    """Why the execution or the chosen step ran or not. The answer for a long execution that ended is kept."""
    replays: Replays = screen.request.app.state.replays
    execution_id, part = view.details["execution_id"], None if view.chosen is None else view.chosen.name
    key = (execution_id, part, screen.may_act, view.origin["turns"])
    is_kept = view.origin["turns"] > EXPLAINED_TURNS and _is_settled(view.details, view.origin)
    found: dict[str, Any] | None = replays.get(key) if is_kept else None
    if found is None:
        found = await explained(connection, screen, execution_id, part, rules)
        if is_kept and found.get("kind") != "fault":
            replays.keep(key, found)
    return found


def _is_settled(details: Mapping[str, Any], origin: Mapping[str, Any]) -> bool:
    """Whether nothing changes any more that an explanation says: no retry, no undo, no dead letter."""
    ended = details["ended_at"]
    is_old = ended is not None and not is_live(details["status"]) and datetime.now(UTC) - ended > SETTLED
    return is_old and not (origin["forks"] or details["undo"] or details["dead_letters"])


async def _load_spans(connection: Connection, view: View) -> ExecutionSpans:
    path = view.picture.execution if view.picture is not None else None
    if view.past is not None:
        path = view.past.path_after(len(view.past.turns), view.details["started_at"])
    went_on = () if path is None else path.trace.went_on
    return await visit_spans.load_spans(connection, view.details, went_on=went_on, notes=_notes(view))


async def _load_step(connection: Connection, screen: Screen, view: View, asked: ExecutionQuery) -> None:
    """The step that the address chooses, or why there is none."""
    try:
        view.chosen = choose(asked.step, _steps_after(view))
    except OperatorFault as fault:
        view.no_step = str(fault)
        return
    if view.chosen is None:
        view.no_step = f"this execution has no step or visit {asked.step!r}"
        return
    moment = None if view.past is None or asked.turn is None else ShownTurn(view.past, asked.turn)
    view.panel = await load_panel(connection, screen, view.details["execution_id"], view.chosen, moment)


async def _load_picture(connection: Connection, rules: PlaybookRules, view: View, turn: int | None) -> None:
    """The graph as it is, or as it was after a turn."""
    execution_id = view.details["execution_id"]
    try:
        if view.past is not None and turn is not None:
            path = view.past.path_after(turn, view.details["started_at"])
            view.picture = picture_of_execution(view.past.playbook, path)
        else:
            view.picture = picture_of_execution(*await load_execution_path(connection, execution_id, rules))
    except BrokerError as fault:
        view.no_picture = str(fault)


async def _load_tab(connection: Connection, screen: Screen, view: View, asked: ExecutionQuery) -> dict[str, Any] | None:
    execution_id, page, tab = view.details["execution_id"], asked.page, asked.tab
    if tab == "log":
        return await _load_log(connection, screen, execution_id, asked)
    if tab == "children":
        after = (paging.after(page, int) or (0,))[0]
        rows = await visit_spans.list_children(connection, execution_id, limit=page.limit + 1, after=after)
        return paging.cut(page, rows, lambda row: (row["execution_id"],))
    if tab not in LISTS:
        return None
    listing, model = LISTS[tab]
    status = {"status": asked.status} if tab == "items" else {}
    given = listing.request(execution_id=execution_id, cursor=page.cursor, limit=page.limit, **status)
    found = await listing(connection, screen.asker, given)
    return {**found, "items": [screen.seen(model, row) for row in found["items"]]}


async def _load_log(connection: Connection, screen: Screen, execution_id: int, asked: ExecutionQuery) -> dict[str, Any]:
    """A page of the log of all steps, by time. A text chooses among some thousands of the entries that follow."""
    limit = SEARCHED_ENTRIES if asked.text else asked.page.limit
    given = ListLog(execution_id=execution_id, step=asked.step or None, cursor=asked.page.cursor, limit=limit)
    found: list[dict[str, Any]] = []
    for _ in range(SEARCHES):
        batch = await service.list_log(connection, screen.asker, given)
        found += [entry for entry in batch["items"] if asked.text.casefold() in entry["message"].casefold()]
        given.cursor = batch["next"]
        if given.cursor is None or len(found) >= asked.page.limit:
            break
    return {"items": found, "next": given.cursor}


def _step_of_turn(view: View, turn: int | None) -> str | None:
    """The step that a turn was about: of its event, else the first that it began."""
    if view.past is None or turn is None:
        return None
    shown = view.past.turns[turn - 1]
    return shown.recorded.event.step or next((event.step for event in shown.decision.events if event.step), None)


def _empty_tabs(view: View, screen: Screen) -> set[str]:
    """The tabs that this execution has nothing for, and those that the caller may not see."""
    empty = {name for name, part in (("items", "iterators"), ("undo", "undo")) if not view.details[part]}
    return empty if screen.may_act else {*empty, "log"}


def _notes(view: View) -> dict[str, str]:
    """Beside the bars of iterators: how far they are."""
    return {
        one["step"]: f"{one['ended']:,} of {one['total']:,} items"
        + (f", {one['failed']:,} failed" if one["failed"] else "")
        for one in view.details["iterators"]
    }


def _steps_after(view: View) -> list[Mapping[str, Any]]:
    """The steps with their visits, as they are or were after the turn."""
    path = view.picture.execution if view.past is not None and view.picture is not None else None
    if path is None:
        return list(view.details["steps"])
    return [{"step": name, "visits": step.visits} for name, step in path.steps.items()]


def _steps(view: View) -> list[dict[str, Any]]:
    """The rows of the list of steps: the steps of the graph, or, without a graph, the tracked steps."""
    if view.picture is None:
        return [
            {**row, "style": row["status"], "word": None, "progress": "", "seconds": None}
            for row in view.details["steps"]
        ]
    return [_step(node) for node in view.picture.nodes]


def _step(node: DiagramNode) -> dict[str, Any]:
    progress = node.progress
    assert progress is not None  # noqa: S101 - the picture is one of an execution
    return {
        "step": node.step,
        "type": node.type,
        "style": STATE_STYLES[progress.state],
        "word": STATES[progress.state].words.capitalize(),
        "visits": progress.step.visits,
        "progress": "" if progress.step.items is None else items_text(progress.step.items),
        "seconds": None if progress.step.started_at is None or is_marker(node) else progress.seconds,
        "started_at": progress.step.started_at,
        "ended_at": progress.step.ended_at,
        "is_open": progress.step.status == "RUNNING",
    }


def decided(turn: PastTurn, screen: Screen) -> list[str]:
    """The lines of a turn: the event that was read, and what was decided. A viewer gets no values."""
    recorded, decision = turn.recorded, turn.decision
    if screen.may_act:
        return [line.removeprefix("    ") for line in format_turn(recorded.event, decision)]
    event = replace_values(recorded.event)
    return [
        f"> {event}",
        *(
            f"event {each.type} {visit_name(each.step, each.visit) if each.step else ''}".rstrip()
            for each in decision.events
        ),
    ]


def replace_values(event: Any) -> str:
    """An event without its values."""
    return (
        f"{event.type} {visit_name(event.step, event.visit or 1, event.item_index)}" if event.step else str(event.type)
    )


def _link_step(screen: Screen, step: str, visit: int | None = None) -> str:
    name = step if visit is None else visit_name(step, visit)
    name = name.removesuffix(UNDO_SUFFIX)  # the panel is that of the step
    return f"{screen.here(step=name, tab=None, cursor=None, why=None, text=None)}#step"


def others(error: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of an error that the page does not show elsewhere."""
    return {key: value for key, value in error.items() if key not in SHOWN_OF_ERROR}


def limits_of(schema: Mapping[str, Any]) -> str | None:
    """The hint beside a number's field: its description and its limits."""
    words = [str(schema["description"])] if schema.get("description") else []
    words += [f"{word} {schema[key]}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in schema]
    return " ".join(words) or None

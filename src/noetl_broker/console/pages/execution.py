"""One execution: where it stands, its graph and timeline, any of its turns, and each of its steps."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Literal

from fastapi import APIRouter, Response

from noetl_broker.broker.state.state import is_live
from noetl_broker.console.pages.approvals import Asking
from noetl_broker.console.pages.execution_actions import buttons_of
from noetl_broker.console.pages.rendering import link, pretty
from noetl_broker.console.pages.screen import Acting, Screen, Shown
from noetl_broker.console.services import services_of
from noetl_broker.diagram.labels import STATES, is_marker, items_text
from noetl_broker.diagram.model import DiagramNode
from noetl_broker.diagram.svg import LEGEND, render_svg
from noetl_broker.diagram.time_chart import TimeChart, lane_heights
from noetl_broker.diagram.without_values import without_values
from noetl_broker.history.past import PastTurn
from noetl_broker.history.story import format_turn
from noetl_broker.node_ids import UNDO_SUFFIX, visit_name
from noetl_broker.service import executions as service
from noetl_broker.service import views
from noetl_broker.service.action import ServiceAction
from noetl_broker.service.models.base import Paged
from noetl_broker.service.models.executions import ExecutionDetails, ViewRequest, VisitValues
from noetl_broker.service.models.values import ExecutionId
from noetl_broker.service.replays import MOST_TURNS
from noetl_broker.service.typed_values import written_request
from noetl_broker.service.views import View
from noetl_broker.store.connect.bucket_connections import Place
from noetl_broker.store.connect.places import at_execution

router = APIRouter()

# The tabs, with the actions that list their rows; the others are read in another way.
TABS: Final[tuple[tuple[str, str, ServiceAction[Any, Any] | None], ...]] = (
    ("", "Overview", None),
    ("events", "Events", service.list_events),
    ("jobs", "Jobs", service.list_jobs),
    ("log", "Log", None),
    ("items", "Items", service.list_items),
    ("children", "Children", views.list_children),
    ("undo", "Undo", service.list_undos),
)
ITEM_STATUSES: Final = ("RUNNING", "FAILED", "COMPLETED", "WAITING", "CANCELLED")
SEARCHED_ENTRIES: Final = 500  # of a log: entries of one read of a search
SEARCHES: Final = 20  # of these reads, for one page
SHOWN_OF_ERROR: Final = frozenset({"type", "message", "reason", "step", "index", "at", "template", "traceback"})


@router.get("/executions/{execution_id:int}")
async def show_execution(screen: Shown, execution_id: ExecutionId) -> Response:
    """Show an execution as it is, or as it was after a turn. The address has the turn, a step, and a tab."""
    tab = screen.asked("tab")["tab"]
    if tab:  # a tab has no slider, and is read in the event loop
        details = await screen.ask(service.show_execution, execution_id=execution_id)
        view = View(details=details, origin=await screen.ask(views.show_origin, execution_id=execution_id))
        return _render(screen, view, chosen_tab=tab, tab=await _load_tab(screen, execution_id, tab))
    asked = {**screen.asked("turn", "step"), "why": screen.asked("why")["why"] in {"1", "true"}}
    given = written_request(ViewRequest, {"execution_id": execution_id, **asked})

    async def read(place: Place) -> tuple[View, dict[str, Any]]:
        replays = screen.request.app.state.replays
        view = await at_execution(place, execution_id, lambda one: views.load_view(one, screen.asker, given, replays))
        return view, _draw(screen, view)

    services = services_of(screen.request)
    view, drawn = await (services.short_work if given.turn is None else services.long_work).run(read)
    return _render(screen, view, drawn=drawn)


def _render(screen: Screen, view: View, *, drawn: dict[str, Any] | None = None, **tabs: Any) -> Response:
    details = screen.seen(ExecutionDetails, view.details)
    url = f"/executions/{details['execution_id']}"
    panel = view.panel
    if panel is not None and panel["visit"] is not None:
        panel = {**panel, "shown": screen.seen(VisitValues, panel["shown"])}
    return screen.render(
        "execution.html",
        title=details["path"] or f"Execution {details['execution_id']}",
        changes=str(details["execution_id"]),
        tabs=[(name, title) for name, title, _ in TABS if name not in _empty_tabs(view, screen)],
        item_statuses=ITEM_STATUSES,
        view=view,
        panel=panel,
        drawn=drawn,
        approvals=[Asking.of(each, may_act=screen.may_act) for each in view.asked],
        details=details,
        is_live=is_live(details["status"]),
        buttons=[*buttons_of(details)],
        steps=_steps(view),
        turn=view.turn,
        turns=view.origin["turns"],
        most_turns=MOST_TURNS,
        decided=None if view.shown is None else decided(view.shown, screen),
        lanes=() if drawn is None else lane_heights(drawn["chart"]),
        legend=LEGEND,
        link_step=lambda step, visit=None: _link_step(screen, step, visit),
        others=others,
        whole_of=lambda chosen: link(f"{url}/values/result", step=chosen.name),
        **{"chosen_tab": "", "tab": None, **tabs},
    )


@router.get("/executions/{execution_id:int}/values/{part}")
async def show_value(
    screen: Acting, execution_id: ExecutionId, part: Literal["workload", "result", "error", "inputs"]
) -> Response:
    """Show the whole of a value as JSON: of the execution, or of a step."""
    found = await screen.ask(views.read_value, execution_id=execution_id, part=part, **screen.asked("step"))
    text, _ = await asyncio.to_thread(pretty, found, None)
    return Response(text, media_type="application/json")


def _draw(screen: Screen, view: View) -> dict[str, Any]:
    """The graph and the timeline, with the chart that it shows."""
    assert view.spans is not None  # noqa: S101 - it has been loaded
    chart = TimeChart(view.spans, names=False, link=lambda step, visit: _link_step(screen, step, visit), at=view.at)
    drawing = None
    if view.picture is not None:
        view.picture = view.picture if screen.may_act else without_values(view.picture)
        marked = view.chosen.step if view.chosen is not None else _step_of_turn(view.shown)
        drawing = render_svg(view.picture, link=lambda node: _link_step(screen, node.step), chosen=marked)
    return {"drawing": drawing, "chart": chart, "timeline": chart.svg(style=False)}


async def _load_tab(screen: Screen, execution_id: int, tab: str) -> dict[str, Any] | None:
    if tab == "log":
        return await _load_log(screen, execution_id)
    action = next((action for name, _, action in TABS if name == tab), None)
    filters = ("status",) if tab == "items" else ()
    return None if action is None else await screen.rows(action, *filters, execution_id=execution_id)


async def _load_log(screen: Screen, execution_id: int) -> dict[str, Any]:
    """A page of the log of all steps, by time. A text chooses among some thousands of the entries that follow."""
    asked, text = screen.asked("step", "cursor", "limit"), screen.asked("text")["text"].casefold()
    found, most = list[dict[str, Any]](), written_request(Paged, {"limit": asked["limit"]}).limit
    for _ in range(SEARCHES):
        given = {**asked, "limit": SEARCHED_ENTRIES} if text else asked
        batch = await screen.ask(service.list_log, execution_id=execution_id, **given)
        found += [entry for entry in batch["items"] if text in entry["message"].casefold()]
        asked["cursor"] = batch["next"]
        if batch["next"] is None or len(found) >= most:
            break
    return {"items": found, "next": asked["cursor"]}


def _step_of_turn(shown: PastTurn | None) -> str | None:
    """The step that a turn was about: of its event, else the first that it began."""
    if shown is None:
        return None
    return shown.recorded.event.step or next((event.step for event in shown.decision.events if event.step), None)


def _empty_tabs(view: View, screen: Screen) -> set[str]:
    """The tabs that this execution has nothing for, and those that the caller may not see."""
    empty = {name for name, part in (("items", "iterators"), ("undo", "undo")) if not view.details[part]}
    return empty if screen.may_act else {*empty, "log"}


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
        "style": progress.state,
        "word": STATES[progress.state].words.capitalize(),
        "visits": progress.step.visits,
        "progress": "" if progress.step.items is None else items_text(progress.step.items),
        "seconds": None if progress.step.started_at is None or is_marker(node) else progress.seconds,
    }


def decided(turn: PastTurn, screen: Screen) -> list[str]:
    """The lines of a turn: the event that was read, and what was decided. A viewer gets no values."""
    recorded, decision = turn.recorded, turn.decision
    if screen.may_act:
        return [line.removeprefix("    ") for line in format_turn(recorded.event, decision)]
    event = recorded.event
    return [
        f"> {_named(event.type, event.step, event.visit or 1, event.item_index)}",
        *(f"event {_named(each.type, each.step, each.visit)}" for each in decision.events),
    ]


def _named(kind: str, step: str | None, visit: int, index: int | None = None) -> str:
    """An event without its values."""
    return f"{kind} {visit_name(step, visit, index)}" if step else kind


def _link_step(screen: Screen, step: str, visit: int | None = None) -> str:
    name = step if visit is None else visit_name(step, visit)
    name = name.removesuffix(UNDO_SUFFIX)  # the panel is that of the step
    return f"{screen.here(step=name, tab=None, cursor=None, why=None, text=None)}#step"


def others(error: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of an error that the page does not show elsewhere."""
    return {key: value for key, value in error.items() if key not in SHOWN_OF_ERROR}

"""Retry, undo and abandon of one execution: each says what it will do before it does it."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response

from noetl_broker.console.access import Operator
from noetl_broker.console.pages.form_values import read_version
from noetl_broker.console.pages.screen import Posted, SentForm, Shown
from noetl_broker.console.services import Pooled, Rules, ShortWork
from noetl_broker.errors import OperatorFault
from noetl_broker.node_ids import visit_name
from noetl_broker.playbook import PlaybookRules
from noetl_broker.service import execution_actions as service
from noetl_broker.service import recoveries, undos
from noetl_broker.service.models.base import LONGEST_TEXT
from noetl_broker.service.models.values import ExecutionId
from noetl_broker.service.recoveries import OnVersion, Outlook
from noetl_broker.store.admin import catalog, executions, list_pages
from noetl_broker.store.connect.connection import Connection

router = APIRouter()

MOST_LISTED: Final = 200  # visits and items that a confirmation of an undo lists
DOUBTFUL: Final = ("unknown", "running")  # statuses of undos with an unknown outcome
Version = Annotated[str, Query(max_length=LONGEST_TEXT)]


@router.get("/executions/{execution_id:int}/retry")
async def show_retry(
    screen: Shown,
    _caller: Operator,
    work: ShortWork,
    rules: Rules,
    execution_id: ExecutionId,
    *,
    version: Version = "",
    or_from_start: bool = False,
) -> Response:
    """The page that previews a retry, on the execution's own version or on another one."""
    fault, on = None, None
    try:
        on = on_version(version, rules, or_from_start=or_from_start)
    except OperatorFault as error:
        fault = str(error)

    async def read(connection: Connection) -> tuple[dict[str, Any], Outlook | None, int | None]:
        details = await executions.load_execution_details(connection, execution_id)
        if details["status"] != "FAILED" or fault is not None:
            return details, None, None
        latest = (await catalog.latest_versions(connection, [details["path"] or ""])).get(details["path"])
        return details, await recoveries.preview_outlook(connection, execution_id, rules, on), latest

    details, outlook, latest = await work.run(read)
    return screen.render(
        "retry.html",
        title="Retry",
        details=details,
        outlook=outlook,
        latest=latest,
        version=version,
        or_from_start=or_from_start,
        fault=fault,
    )


def on_version(text: str, rules: PlaybookRules, *, or_from_start: bool) -> OnVersion | None:
    """The version that a field names; None if it is empty. Raises OperatorFault."""
    written = text.strip()
    if not written:
        return None
    return OnVersion(None if written == "latest" else read_version(written), rules, or_from_start=or_from_start)


@router.post("/executions/{execution_id:int}/retry")
async def retry(form: Posted, work: ShortWork, rules: Rules, execution_id: ExecutionId) -> Response:
    """Continue a failed execution as a new one, or give dead letters back to the broker."""
    on = on_version(form.text("version"), rules, or_from_start=form.text("or_from_start") == "true")
    recovered = await work.run(lambda connection: recoveries.recover(connection, execution_id, rules, on))
    if recovered.put_back is not None:
        return form.done(_url(execution_id), f"{recovered.put_back} events went back to the broker.")
    made = recovered.made["recovered_as"]
    if recovered.before is not None:
        return form.done(_url(made), "This is the execution that an earlier retry made.", kind="info")
    steps, version = ", ".join(recovered.made["steps"]), recovered.made.get("version")
    where = f"{steps} on version {version}" if version is not None else steps
    return form.done(_url(made), f"This execution continues {execution_id} from {where}.")


@router.get("/executions/{execution_id:int}/undo")
async def show_undo(
    screen: Shown, _caller: Operator, connections: Pooled, execution_id: ExecutionId, *, unknown: bool = False
) -> Response:
    """The page that previews an undo, the last success first."""
    async with connections.borrow() as connection:
        details = await executions.load_execution_details(connection, execution_id)
        found = await list_pages.page_undos(connection, execution_id, limit=MOST_LISTED)
    counts = details["undo"]["counts"] if details["undo"] is not None else {}
    wanted = {"open", "failed", *(DOUBTFUL if unknown else ())}
    return screen.render(
        "undo.html",
        title="Undo",
        details=details,
        rows=[
            {**row, "name": visit_name(row["step"], row["visit"], row["index"])}
            for row in found.items
            if row["status"] in wanted
        ],
        total=sum(counts.get(status, 0) for status in wanted),
        doubtful=sum(counts.get(status, 0) for status in DOUBTFUL),
        unknown=unknown,
    )


@router.post("/executions/{execution_id:int}/undo")
async def start_undo(form: Posted, work: ShortWork, rules: Rules, execution_id: ExecutionId) -> Response:
    """Undo what is left of an execution that has ended, in a new one."""
    on, unknown = on_version(form.text("version"), rules, or_from_start=False), form.text("unknown") == "true"
    new = await work.run(lambda connection: undos.undo_execution(connection, execution_id, unknown=unknown, on=on))
    return form.done(_url(new), f"This execution undoes what is left of {execution_id}.")


@router.get("/executions/{execution_id:int}/abandon")
async def show_abandon(screen: Shown, _caller: Operator, connections: Pooled, execution_id: ExecutionId) -> Response:
    """The page that previews an abandon: it lists the actions that stay in effect."""
    async with connections.borrow() as connection:
        details = await executions.load_execution_details(connection, execution_id)
    return screen.render("abandon.html", title="Abandon the undo", details=details)


@router.post("/executions/{execution_id:int}/abandon")
async def abandon(form: Posted, execution_id: ExecutionId) -> Response:
    """Give up the undo of an execution."""
    answer = await form.screen.ask(service.abandon_execution, execution_id=execution_id, reason=_reason(form))
    requested = answer["requested"]
    said = "The broker ends the undo. This page then lists what is left." if requested else "It had ended before."
    return form.done(_url(execution_id), said, kind="ok" if requested else "info")


def _reason(form: SentForm) -> str | None:
    return form.text("reason").strip()[:LONGEST_TEXT] or None


def _url(execution_id: int) -> str:
    return f"/executions/{execution_id}"

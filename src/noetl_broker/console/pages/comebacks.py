"""Retry and undo of one execution: each says what it will do before it does it."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response

from noetl_broker.console.access import Operator
from noetl_broker.console.pages.screen import Posted, Screen, Shown
from noetl_broker.errors import BrokerError, OperatorFault
from noetl_broker.node_ids import visit_name
from noetl_broker.service import execution_actions as service
from noetl_broker.service import executions
from noetl_broker.service.models.base import LONGEST_TEXT
from noetl_broker.service.models.values import ExecutionId

router = APIRouter()

MOST_LISTED: Final = 200  # visits and items that a confirmation of an undo lists
DOUBTFUL: Final = ("unknown", "running")  # statuses of undos with an unknown outcome


@router.get("/executions/{execution_id:int}/retry")
async def show_retry(
    screen: Shown,
    _caller: Operator,
    execution_id: ExecutionId,
    *,
    version: Annotated[str, Query(max_length=LONGEST_TEXT)] = "",
    or_from_start: bool = False,
) -> Response:
    """The page that previews a retry, on the execution's own version or on another one."""
    details = await screen.ask(executions.show_execution, execution_id=execution_id)
    preview: dict[str, Any] = {"outlook": None, "latest": None}
    fault, written = None, version.strip()
    on = {"version": written, "or_from_start": or_from_start and bool(written)}
    try:
        preview = await screen.ask(service.preview_retry, execution_id=execution_id, **on)
    except OperatorFault as error:
        fault = str(error)
    return screen.render(
        "retry.html",
        title="Retry",
        details=details,
        version=version,
        or_from_start=or_from_start,
        fault=fault,
        **preview,
    )


@router.post("/executions/{execution_id:int}/retry")
async def retry(form: Posted, execution_id: ExecutionId) -> Response:
    """Continue a failed execution as a new one, or give dead letters back to the broker."""
    made = await form.ask(service.retry_execution, execution_id=execution_id)
    if "put_back" in made:
        return form.done(f"/executions/{execution_id}", f"{made['put_back']} events went back to the broker.")
    url = f"/executions/{made['recovered_as']}"
    if made["status_before"] is not None:
        return form.done(url, "This is the execution that an earlier retry made.", kind="info")
    on = f" on version {made['version']}" if made.get("version") is not None else ""
    return form.done(url, f"This execution continues {execution_id} from {', '.join(made['steps'])}{on}.")


@router.get("/executions/{execution_id:int}/undo")
async def show_undo(screen: Shown, _caller: Operator, execution_id: ExecutionId, *, unknown: bool = False) -> Response:
    """The page that previews an undo, the last success first."""
    return await _undo_form(screen, execution_id, unknown=unknown)


async def _undo_form(
    screen: Screen, execution_id: int, *, unknown: bool, version: str = "", fault: BrokerError | None = None
) -> Response:
    details = await screen.ask(executions.show_execution, execution_id=execution_id)
    found = await screen.ask(executions.list_undos, execution_id=execution_id, limit=MOST_LISTED)
    counts = details["undo"]["counts"] if details["undo"] is not None else {}
    wanted = {"open", "failed", *(DOUBTFUL if unknown else ())}
    return screen.form(
        "undo.html",
        "Undo",
        {"version": version},
        fault,
        details=details,
        rows=[
            {**row, "name": visit_name(row["step"], row["visit"], row["index"])}
            for row in found["items"]
            if row["status"] in wanted
        ],
        total=sum(counts.get(status, 0) for status in wanted),
        doubtful=sum(counts.get(status, 0) for status in DOUBTFUL),
        unknown=unknown,
    )


@router.post("/executions/{execution_id:int}/undo")
async def start_undo(form: Posted, execution_id: ExecutionId) -> Response:
    """Undo what is left of an execution that has ended, in a new one."""
    try:
        made = await form.ask(service.undo_execution, execution_id=execution_id)
    except BrokerError as fault:
        unknown, version = form.text("unknown") == "true", form.text("version")
        return await _undo_form(form.screen, execution_id, unknown=unknown, version=version, fault=fault)
    return form.done(f"/executions/{made['undone_by']}", f"This execution undoes what is left of {execution_id}.")

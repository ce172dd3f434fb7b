"""Signals that are kept or sent, and approvals with their decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from noetl_broker.node_ids import read_visit
from noetl_broker.service import paging
from noetl_broker.service.action import Caller, Role, action
from noetl_broker.service.models import waits as models
from noetl_broker.service.models.base import Listed
from noetl_broker.service.typed_json import json_text
from noetl_broker.service.where import joined, merged, routed
from noetl_broker.store.admin import approvals, list_pages, signals
from noetl_broker.store.admin.approvals import Approval
from noetl_broker.store.connect.connection import Connection


@action(Role.VIEWER, Listed[models.Signal], where=merged("signal_id", newest_first=True))
async def list_signals(connection: Connection, caller: Caller, given: models.ListSignals) -> Any:
    """List the signals that are kept, newest first. Only an operator sees names and keys and may filter by them."""
    caller.refuse_hidden("names and keys of signals", given.name, given.key)
    found = await list_pages.page_signals(
        connection, name=given.name, key=given.key, execution_id=given.execution_id, **paging.place(given, int)
    )
    return paging.listed(found)


@action(Role.PRODUCER, models.SentSignal, where=routed)
async def send_signal(connection: Connection, _caller: Caller, given: models.SendRequest) -> Any:
    """Send a signal to whoever waits for its name and key, now or until `keep_seconds` are over."""
    sent = await signals.send_signal(
        connection,
        given.name,
        given.key,
        None if given.payload is None else json_text(given.payload),
        idempotency_key=given.idempotency_key,
        keep=timedelta(seconds=given.keep_seconds),
    )
    return {"signal_id": sent}


@action(Role.VIEWER, dict[str, Any], where=joined)
async def list_signal_waits(connection: Connection, caller: Caller, given: models.ListSignals) -> Any:
    """List the open waits for signals by key. Only an operator may filter."""
    caller.refuse_hidden("names and keys of signals", given.name, given.key)
    rows = await signals.list_signal_waits(connection, name=given.name, key=given.key, limit=given.limit)
    return {"items": rows}


@action((Role.VIEWER, Role.APPROVER), Listed[models.ApprovalView], where=merged("execution_id", "node_id"))
async def list_approvals(connection: Connection, caller: Caller, given: models.ListApprovals) -> Any:
    """List what waits for a person, in the order of executions. A viewer sees no question, form and assignees."""
    caller.refuse_hidden("assignees", given.assignee)
    found = await list_pages.page_approvals(
        connection, path=given.path, assignee=given.assignee, **paging.place(given, int, str)
    )
    return paging.listed(found)


@action(Role.APPROVER, models.ApprovalView)
async def find_approval(connection: Connection, _caller: Caller, given: models.OneApproval) -> Any:
    """Find a visit that waits for a person. Without a number, one visit of the step must wait."""
    return asdict(await approvals.find_approval(connection, given.execution_id, *read_visit(given.step)))


@action(Role.APPROVER, models.DecisionView)
async def decide(connection: Connection, caller: Caller, given: models.DecisionRequest) -> Any:
    """Approve or reject. A form that breaks its schema is refused. A second decision is refused, too (409)."""
    step, visit = read_visit(given.step)
    by = caller.name if caller.is_authenticated else given.by or caller.name or await approvals.login_name(connection)
    approval = await approvals.find_approval(connection, given.execution_id, step, visit)
    if not await decide_approval(connection, approval, approved=given.approved, by=by, form=given.form):
        raise await approvals.nothing_waits(connection, given.execution_id, step, visit)
    return {"execution_id": given.execution_id, "node_id": approval.node_id, "by": by, "title": approval.title}


async def decide_approval(
    connection: Connection, approval: Approval, *, approved: bool, by: str, form: Mapping[str, Any]
) -> bool:
    """Decide an approval; False if it was decided or timed out before."""
    text = json_text(form, "form")
    return await approvals.decide_approval(connection, approval, approved=approved, decided_by=by, form=text)

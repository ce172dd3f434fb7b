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
from noetl_broker.store.connect.connection import Connection, call


@action(Role.VIEWER, Listed[models.Signal], where=merged("signal_id", newest_first=True))
async def list_signals(connection: Connection, caller: Caller, given: models.ListSignals) -> Any:
    """List the signals that are kept, newest first. Only an operator sees names and keys and may filter by them."""
    caller.refuse_hidden("names and keys of signals", given.name, given.key)
    found = await list_pages.page_signals(
        connection, name=given.name, key=given.key, execution_id=given.execution_id, **paging.place(given, int)
    )
    return paging.listed(found)


@action(Role.PRODUCER, models.SentSignal, where=routed)
async def send_signal(connection: Connection, caller: Caller, given: models.SendRequest) -> Any:
    """Send a signal to whoever waits for its name and key, now or until `keep_seconds` are over."""
    sent = await signals.send_signal(
        connection,
        given.name,
        given.key,
        None if given.payload is None else json_text(given.payload),
        idempotency_key=given.idempotency_key,
        keep=timedelta(seconds=given.keep_seconds),
        by=caller.by,
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
    """List what waits for a person, in the order of executions. A viewer sees no question, form and approvers.

    An approver sees what it may decide.
    """
    caller.refuse_hidden("approvers", given.approver)
    found = await list_pages.page_approvals(
        connection,
        path=given.path,
        approver=given.approver,
        for_caller=(caller.by, caller.role_of_name) if caller.role is Role.APPROVER else (None, None),
        **paging.place(given, int, str),
    )
    return paging.listed(found)


@action(Role.APPROVER, models.ApprovalView)
async def find_approval(connection: Connection, caller: Caller, given: models.OneApproval) -> Any:
    """Find a visit that waits for a person. Without a number, one visit of the step must wait."""
    found = await approvals.find_approval(connection, given.execution_id, *read_visit(given.step))
    await approvals.refuse_others(connection, found, caller.by, caller.role_of_name)
    return asdict(found)


@action(Role.APPROVER, models.DecisionView)
async def decide(connection: Connection, caller: Caller, given: models.DecisionRequest) -> Any:
    """Approve or reject. A form that breaks its schema is refused. A second decision is refused, too (409).

    Where the approval has `approvers`, others are refused (403).
    """
    step, visit = read_visit(given.step)
    approval = await approvals.find_approval(connection, given.execution_id, step, visit)
    asked: dict[str, Any] = {"approved": given.approved, "decided_by": given.decided_by, "form": given.form}
    if not await decide_approval(connection, caller, approval, **asked):
        raise await approvals.nothing_waits(connection, given.execution_id, step, visit)
    by = caller.by or await call(connection, "caller_name", None)
    return {"execution_id": given.execution_id, "node_id": approval.node_id, "by": by, "title": approval.title}


async def decide_approval(
    connection: Connection,
    caller: Caller,
    approval: Approval,
    *,
    approved: bool,
    decided_by: str | None,
    form: Mapping[str, Any],
) -> bool:
    """Decide an approval; False if it was decided or timed out before."""
    return await approvals.decide_approval(
        connection,
        approval,
        approved=approved,
        form=json_text(form, "form"),
        decided_by=decided_by,
        by=caller.by,
        role=caller.role_of_name,
    )

"""Approvals for commands and clients: what waits for a person, and the decision."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from noetl_broker.errors import BrokerError, ForbiddenFault, NotFoundFault, OperatorFault
from noetl_broker.node_ids import name_of_node, node_id, node_of_job, numbered_visit, visit_name
from noetl_broker.store.admin.executions import like
from noetl_broker.store.connect.connection import call
from noetl_broker.store.queries import sql
from noetl_broker.text import decider, join_names

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import asyncpg

    from noetl_broker.store.connect.connection import Connection

MOST_LISTED = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A visit that waits for a person: a row of `noetl.pending_approvals`.

    `form` is a mapping of field names to JSON Schema. `times_out_at` is None if it waits without end.
    """

    execution_id: int
    node_id: str
    step: str
    path: str | None
    title: str
    details: Any
    form: dict[str, Any]
    approvers: list[str]
    since: datetime
    times_out_at: datetime | None


async def list_approvals(
    connection: Connection,
    *,
    path: str | None = None,
    approver: str | None = None,
    execution_id: int | None = None,
    step: str | None = None,
    limit: int = MOST_LISTED,
) -> list[Approval]:
    """What waits for a person, oldest first; `path` may hold `*` for any characters."""
    pattern = None if path is None else like(path)
    found = await connection.fetch(sql("list_approvals"), pattern, approver, execution_id, step, limit)
    return [Approval(**in_order(row)) for row in found]


def in_order(row: asyncpg.Record) -> dict[str, Any]:
    """A row of `noetl.pending_approvals` with the fields of its form in the order of the playbook."""
    values = dict(row)
    order, form = values.pop("fields"), values["form"]
    return values | {"form": {name: form[name] for name in order if name in form} | form}


async def find_approval(connection: Connection, execution_id: int, step: str, visit: int | None) -> Approval:
    """The approval that waits in a step; `visit` None: there must be one. Raises BrokerError, OperatorFault."""
    found = await list_approvals(connection, execution_id=execution_id, step=step)
    if visit is not None:
        found = [each for each in found if each.node_id == node_id(execution_id, step, visit)]
    if not found:
        raise await nothing_waits(connection, execution_id, step, visit)
    if len(found) > 1:
        names = " and ".join(numbered_visit(*node_of_job(each.node_id)[:2]) for each in found)
        raise OperatorFault(f"{len(found)} visits of step {step} wait for a decision: name one of {names}")
    return found[0]


async def nothing_waits(connection: Connection, execution_id: int, step: str, visit: int | None) -> BrokerError:
    """The fault that a step waits for no decision: who decided and when, or what is missing, and which steps wait.

    NotFoundFault where there is no such execution or step.
    """
    known = json.loads(await connection.fetchval(sql("decision_of"), execution_id, step, visit))
    if not known["is_execution"]:
        return NotFoundFault(f"there is no execution {execution_id}; noetl-broker approvals lists what waits")
    waiting = join_names(
        [name_of_node(each.node_id) for each in await list_approvals(connection, execution_id=execution_id)]
    )
    rest = f"{waiting} of this execution can be decided" if waiting else "nothing of this execution can be decided now"
    if known["approvers"]:
        return not_an_approver(known["approvers"])
    if not known["is_step"]:
        return NotFoundFault(f"execution {execution_id} has no step {step}; {rest}")
    name = step if visit is None else visit_name(step, visit)
    decision = known["decision"]
    if decision is not None:
        word = "approved" if decision["approved"] else "rejected"
        by, at = decider(decision), decision["at"]
        return BrokerError(f"step {name} of execution {execution_id} was {word} by {by} at {at}; {rest}")
    why = "it timed out, it was cancelled, or it has not begun"
    return BrokerError(f"nothing waits for a decision in step {name} of execution {execution_id}: {why}; {rest}")


async def refuse_others(connection: Connection, approval: Approval, by: str | None, role: str | None) -> None:
    """Raise ForbiddenFault where an approval has approvers, and the caller is none of them."""
    if not await call(connection, "is_approver", approval.approvers, by, role):
        raise not_an_approver(approval.approvers)


def not_an_approver(approvers: Sequence[str]) -> ForbiddenFault:
    """The fault of a caller who is none of the approvers."""
    return ForbiddenFault(f"only {join_names(approvers)} may decide this; `approvers` of the step names who may")


async def decide_approval(
    connection: Connection,
    approval: Approval,
    *,
    approved: bool,
    form: str,
    decided_by: str | None = None,
    by: str | None = None,
    role: str | None = None,
) -> bool:
    """Decide with a form as JSON text; False if somebody has decided before, or its time is over.

    `by`, with its `role`, decides; None: the login. `decided_by` is a name beside it. Raises ForbiddenFault.
    """
    arguments = (approval.execution_id, approval.node_id, approved, decided_by, form, by, role)
    return bool(await connection.fetchval(sql("decide_approval"), *arguments))

"""The commands `approvals`, `approve` and `reject`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import click

from noetl_broker.cli import output
from noetl_broker.cli.arguments import StepName
from noetl_broker.cli.command import Call, command, execution_id
from noetl_broker.cli.rights import APPROVER
from noetl_broker.cli.start_cancel import read_payload
from noetl_broker.errors import EXIT_FAILED, BrokerError, OperatorFault
from noetl_broker.node_ids import name_of_node, read_visit
from noetl_broker.playbook.approval import COMMENT
from noetl_broker.store.admin.approvals import (
    Approval,
    decide_approval,
    find_approval,
    list_approvals,
    login_name,
    nothing_waits,
)
from noetl_broker.store.connect.session import session


@command(
    "approvals",
    role=APPROVER,
    example=("noetl-broker approvals\nnoetl-broker approvals --path 'orders/*' --assignee finance --json"),
)
@click.option("--path", metavar="PATH", help="Only executions of this playbook; * is any text.")
@click.option("--assignee", metavar="NAME", help="Only those with this assignee.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="How many at most.")
def approvals(call: Call, *, path: str | None, assignee: str | None, limit: int) -> None:
    """List what waits for a person's decision, oldest first.

    --json shows the details and the form of each, too. Decide with noetl-broker approve and noetl-broker reject.
    """

    async def ask() -> list[Approval]:
        async with session(call.database, name="approvals") as connection:
            return await list_approvals(connection, path=path, assignee=assignee, limit=limit)

    found = asyncio.run(ask())
    if call.as_json:
        output.show_json([asdict(each) for each in found])
        return
    columns = ("execution", "step", "path", "title", "form", "assignees", "since", "times out")
    output.show_table(
        columns,
        [
            (
                each.execution_id,
                name_of_node(each.node_id),
                each.path,
                each.title,
                ", ".join(each.form),
                ", ".join(each.assignees),
                each.since,
                each.times_out_at,
            )
            for each in found
        ],
    )


def _of_decisions(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the arguments and options of a decision."""
    for part in (
        click.option("--form", metavar="JSON", help="The fields of the form as a JSON object, or @FILE with one."),
        click.option("--comment", metavar="TEXT", help="A comment: the field `comment` of the form."),
        click.option("--by", metavar="NAME", help="Who decides; default: the login of the database."),
        click.argument("step", type=StepName()),
        execution_id,
    ):
        function = part(function)
    return function


@command(
    "approve",
    role=APPROVER,
    example=(
        "noetl-broker approve 58123456789012345 approve_order\n"
        "noetl-broker approve 58123456789012345 approve_order --by ann --comment fine --form '{\"discount\": 5}'"
    ),
)
@_of_decisions
def approve(call: Call, *, execution_id: int, step: str, **given: str | None) -> int:
    """Approve what waits in a step of an execution.

    STEP is the name of the step, or STEP#2 for its second visit. Exit 1 if somebody has decided before, or its time is
    over.
    """
    return _decide(call, execution_id, step, approved=True, given=given)


@command(
    "reject",
    role=APPROVER,
    example="noetl-broker reject 58123456789012345 approve_order --comment 'too expensive'",
)
@_of_decisions
def reject(call: Call, *, execution_id: int, step: str, **given: str | None) -> int:
    """Reject what waits in a step of an execution.

    STEP is the name of the step, or STEP#2 for its second visit. No field of the form is required. Exit 1 if somebody
    has decided before, or its time is over.
    """
    return _decide(call, execution_id, step, approved=False, given=given)


def _decide(call: Call, execution_id: int, step: str, *, approved: bool, given: dict[str, str | None]) -> int:
    form = _read_form(given["form"], given["comment"])
    name, visit = read_visit(step)

    async def ask() -> tuple[Approval, str, BrokerError | None]:
        async with session(call.database, name="approve" if approved else "reject") as connection:
            approval = await find_approval(connection, execution_id, name, visit)
            by = await login_name(connection) if given["by"] is None else given["by"]
            decided = await decide_approval(connection, approval, approved=approved, decided_by=by, form=form)
            late = None if decided else await nothing_waits(connection, execution_id, name, visit)
            return approval, by, late

    approval, decided_by, late = asyncio.run(ask())
    word = "approved" if approved else "rejected"
    if call.as_json:
        output.show_json({
            "execution_id": execution_id,
            "node_id": approval.node_id,
            "approved": approved,
            "decided": late is None,
        })  # fmt: skip
    elif late is None:
        output.say(f"{word} by {decided_by}: {approval.title}")
    else:
        output.note(f"noetl-broker: not {word}: {late}")
    return 0 if late is None else EXIT_FAILED


def _read_form(form: str | None, comment: str | None) -> str:
    fields = json.loads(read_payload(form or "{}", what="form", example='{"discount": 5}'))
    if comment is not None:
        if fields.get(COMMENT, comment) != comment:
            raise OperatorFault("--comment and the form have two comments: leave one out")
        fields[COMMENT] = comment
    return json.dumps(fields)

"""The commands `approvals`, `approve` and `reject`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from noetl_broker.cli import output
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.face import Face, ask, face
from noetl_broker.cli.rights import APPROVER
from noetl_broker.errors import OperatorFault
from noetl_broker.node_ids import name_of_node
from noetl_broker.playbook.approval import COMMENT
from noetl_broker.service.models.waits import DecisionRequest, ListApprovals

DECISION = Face(
    DecisionRequest,
    ("execution_id", "step"),
    helps={"decided_by": "A name that the event has beside the login's."},
    hides=frozenset({"approved"}),
)
COLUMNS: output.Columns = {
    "execution": "execution_id", "step": lambda row: name_of_node(row["node_id"]), "path": "path", "title": "title",
    "form": lambda row: ", ".join(row["form"]), "approvers": lambda row: ", ".join(row["approvers"]),
    "since": "since", "times out": "times_out_at",
}  # fmt: skip


@face(
    "approvals",
    "waits.list_approvals",
    Face(ListApprovals),
    role=APPROVER,
    example="noetl-broker approvals\nnoetl-broker approvals --path 'orders/*' --approver finance --json",
)
def approvals(_call: Call, _asked: ListApprovals, rows: Any) -> None:
    """List what waits for a person's decision, oldest first.

    --json shows the details and the form of each, too. Decide with noetl-broker approve and noetl-broker reject.
    """
    output.Rows.of(rows, COLUMNS).show()


def _decides(name: str, example: str) -> Callable[[Callable[[], None]], click.Command]:
    """A command that decides: its function has the help."""

    def decorate(described: Callable[[], None]) -> click.Command:
        def body(call: Call, *, comment: str | None, **given: Any) -> None:
            asked = DECISION.read(given | {"approved": name == "approve"})
            if comment is not None and asked.form.setdefault(COMMENT, comment) != comment:
                raise OperatorFault("--comment and the form have two comments: leave one out")
            answer = ask(call, "waits.decide", asked)
            if not call.printed({**answer, "approved": asked.approved, "decided": True}):
                output.say(f"{'approved' if asked.approved else 'rejected'} by {answer['by']}: {answer['title']}")

        body.__doc__ = described.__doc__
        DECISION.given_to(body)
        click.option("--comment", metavar="TEXT", help="A comment: the field `comment` of the form.")(body)
        return command(name, role=APPROVER, example=example)(body)

    return decorate


@_decides(
    "approve",
    "noetl-broker approve 58123456789012345 approve_order\n"
    "noetl-broker approve 58123456789012345 approve_order --decided-by Ann --comment fine --form '{\"discount\": 5}'",
)
def approve() -> None:
    """Approve what waits in a step of an execution.

    STEP is the name of the step, or STEP#2 for its second visit. Exit 1 if somebody has decided before, or its time is
    over.
    """


@_decides("reject", "noetl-broker reject 58123456789012345 approve_order --comment 'too expensive'")
def reject() -> None:
    """Reject what waits in a step of an execution.

    STEP is the name of the step, or STEP#2 for its second visit. No field of the form is required. Exit 1 if somebody
    has decided before, or its time is over.
    """

"""The command `token`: who may use the HTTP API."""

from __future__ import annotations

from typing import Any

import click

from noetl_broker.cli import output
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.face import Face, ask
from noetl_broker.cli.rights import OWNER
from noetl_broker.errors import EXIT_FAILED, OperatorFault
from noetl_broker.service.models.base import Role
from noetl_broker.service.models.health import TokenRequest

NEW = Face(TokenRequest, ("name",))
NO_TOKENS = "no tokens; on a loopback address the console takes every request of this machine"
COLUMNS = {
    "name": "name", "role": "role", "status": "status", "created": "created_at", "by": "created_by",
    "expires": "expires_at", "revoked": "revoked_at",
}  # fmt: skip


@command(
    "token",
    role=OWNER,
    example=(
        "noetl-broker token create dashboard --role viewer --expires 90d\n"
        "noetl-broker token list\n"
        "noetl-broker token revoke dashboard"
    ),
)
@click.argument("action", type=click.Choice(["create", "list", "revoke"]))
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--role", type=click.Choice([role.value for role in Role]), help="What it allows (create).")
@click.option("--expires", metavar="SPAN", help="How long it is valid: 90d, 2w, or never (create; default: 90d).")
def token(call: Call, *, action: str, name: str | None, **given: Any) -> int:
    """Create, list and revoke tokens of the HTTP API.

    create prints the token, once: the database keeps a digest only. A viewer sees names, numbers, times and statuses. A
    producer starts executions, sends signals, and sees what came of its starts. An approver decides approvals. An
    author is a viewer who registers playbooks. An operator sees everything, and acts. Once there is a token, each
    request to the console needs one. A revoked token is refused within two seconds.
    """
    if (name is None) != (action == "list"):
        needs = "takes no name" if action == "list" else f"needs a name, for example: token {action} dashboard"
        raise OperatorFault(f"token {action} {needs}")
    if action != "create" and any(given.values()):
        raise OperatorFault(f"token {action} takes neither --role nor --expires; only create does")
    if action == "create" and given["role"] is None:
        raise OperatorFault(f"token create needs --role: {', '.join(Role)}")
    if action == "create":
        answer = ask(call, "tokens.create_token", NEW.read(given | {"name": name}))
    else:
        answer = ask(call, "tokens.list_tokens") if name is None else ask(call, "tokens.revoke_token", name=name)
    if action == "list":
        call.show_rows(answer, COLUMNS, none=NO_TOKENS)
    elif call.printed(answer):
        pass
    elif action == "create":
        _show_created(answer)
    else:
        output.say(f"token {name} {'is revoked' if answer['revoked'] else 'was revoked before'}")
    return EXIT_FAILED if action == "revoke" and not answer["revoked"] else 0


def _show_created(made: dict[str, Any]) -> None:
    output.say(made["token"])
    until = f"until {output.moment(made['expires_at'])}" if made["expires_at"] is not None else "until it is revoked"
    output.note(f"{made['name']} is {made['role']} {until}; keep the token now, nobody can show it again")

"""The command `token`: who may use the HTTP API."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import click

from noetl_broker.cli import output
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.rights import OWNER
from noetl_broker.errors import EXIT_FAILED, OperatorFault
from noetl_broker.service.spans import parse_span
from noetl_broker.store.admin.api_tokens import create_token, list_tokens, revoke_token
from noetl_broker.store.connect.session import session

NEVER = "never"


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
@click.option("--role", type=click.Choice(["viewer", "operator"]), help="What it allows (create).")
@click.option("--expires", metavar="SPAN", help="How long it is valid: 90d, 2w, or never (create; default: 90d).")
def token(call: Call, *, action: str, name: str | None, role: str | None, expires: str | None) -> int:
    """Create, list and revoke tokens of the HTTP API.

    create prints the token, once: the database keeps a digest only. A viewer sees names, numbers, times and statuses;
    an operator sees everything, and acts. Once there is a token, each request to the console needs one. A revoked token
    is refused within two seconds.
    """
    if (name is None) != (action == "list"):
        needs = "takes no name" if action == "list" else f"needs a name, for example: token {action} dashboard"
        raise OperatorFault(f"token {action} {needs}")
    if action != "create" and (role or expires):
        raise OperatorFault(f"token {action} takes neither --role nor --expires; only create does")
    if action == "list" or name is None:
        return _show(call, asyncio.run(_list(call)))
    if action == "revoke":
        return _revoke(call, name)
    if role is None:
        raise OperatorFault("token create needs --role viewer or --role operator")
    return _create(call, name, role, _validity(expires or "90d"))


def _validity(expires: str) -> timedelta | None:
    if expires == NEVER:
        return None
    seconds = parse_span(expires)
    if not seconds:
        raise OperatorFault(f"--expires {expires!r} is not a time span; write 12h, 90d, 2w, or never")
    return timedelta(seconds=seconds)


def _create(call: Call, name: str, role: str, valid: timedelta | None) -> int:
    async def ask() -> tuple[str, Any]:
        async with session(call.database, name="token") as connection:
            return await create_token(connection, name, role, valid)

    made, expires_at = asyncio.run(ask())
    if call.as_json:
        output.show_json({"name": name, "role": role, "expires_at": expires_at, "token": made})
        return 0
    output.say(made)
    until = f"until {output.moment(expires_at)}" if expires_at is not None else "until it is revoked"
    output.note(f"{name} is {role} {until}; keep the token now, nobody can show it again")
    return 0


async def _list(call: Call) -> list[dict[str, Any]]:
    async with session(call.database, name="token") as connection:
        return await list_tokens(connection)


def _show(call: Call, found: list[dict[str, Any]]) -> int:
    if call.as_json:
        output.show_json(found)
    elif found:
        columns = ("name", "role", "status", "created_at", "created_by", "expires_at", "revoked_at")
        heads = ("name", "role", "status", "created", "by", "expires", "revoked")
        output.show_table(heads, [[row[column] for column in columns] for row in found])
    else:
        output.say("no tokens; on a loopback address the console takes every request of this machine")
    return 0


def _revoke(call: Call, name: str) -> int:
    async def ask() -> bool:
        async with session(call.database, name="token") as connection:
            return await revoke_token(connection, name)

    revoked = asyncio.run(ask())
    if call.as_json:
        output.show_json({"name": name, "revoked": revoked})
    else:
        output.say(f"token {name} {'is revoked' if revoked else 'was revoked before'}")
    return 0 if revoked else EXIT_FAILED

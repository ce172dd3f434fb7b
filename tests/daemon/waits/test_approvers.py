"""Who may decide an approval: `approvers` of the step, for a login, a token and a person of the console."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.brokers import drain, execute, register, rows, start, value
from tests.console.conftest import console
from tests.console.test_access import token
from tests.postgres import Database, named
from tests.roles import login, logins
from tests.sessions import refused, session

ASKS = """
workflow: [{{step: start, next: ask}}, {{step: ask, type: approval, title: Pay 7?, details: a, approvers: {}}}]
"""
LISTED = "select count(*) from noetl.pending_approvals"
DECIDE = "select noetl.decide_approval($1, $2, true)"
TEAM, NAMED = "team", "named"  # a role of the database, and a login; both names end in that of the database


async def asked(database: Database, *approvers: str) -> tuple[int, str]:
    """Start an execution that asks these; return its id and the node that waits."""
    version = await value(database, "select count(*)::int + 1 from noetl.catalog")
    await register(database, ASKS.format(json.dumps(approvers)), version=version)
    (execution,) = await start(database)
    await drain(database)
    return execution, f"{execution}:ask"


@pytest.fixture
async def people(database: Database) -> AsyncIterator[dict[str, Database]]:
    """Yield three approvers, one of them in a team, an operator, and the owner."""
    team = f"{TEAM}_{database.name}"
    await execute(database, f"create role {team}")
    async with AsyncExitStack() as stack:
        stack.push_async_callback(execute, database, f"drop role {team}")
        roles = await stack.enter_async_context(logins(database))
        found = {
            name: await stack.enter_async_context(login(database, name, named("noetl_approver")))
            for name in (NAMED, "member", "other")
        }
        await execute(database, f"grant {team} to member_{database.name}")
        yield found | {"operator": roles.operator, "owner": database}


@pytest.mark.parametrize(
    "entry, may",
    [
        (f"login:{NAMED}", [NAMED, "owner"]),
        (TEAM, ["member", "owner"]),
        ("approver", [NAMED, "member", "other", "owner"]),
        ("operator", ["operator", "owner"]),
        (f"token:{NAMED}", ["owner"]),
    ],
)
async def test_a_login_decides_what_names_it_or_its_role(
    database: Database, people: dict[str, Database], entry: str, may: list[str]
) -> None:
    """Others are refused, and do not see it; an operator sees all."""
    suffix = f"_{database.name}" if entry.endswith((TEAM, NAMED)) else ""
    node = await asked(database, "login:nobody", entry + suffix)
    for name, each in people.items():
        assert (name, await value(each, LISTED)) == (name, int(name in may or name == "operator"))
        async with session(each) as own:
            if name in may:
                attempt = own.transaction()
                await attempt.start()
                assert await own.fetchval(DECIDE, *node)
                await attempt.rollback()
            else:
                async with refused(
                    "NB403", f"login:.*{name}_.* may not decide {node[1]}: its approvers are login:nobody, "
                ):
                    await own.fetchval(DECIDE, *node)


async def test_a_login_cannot_claim_a_role(database: Database, people: dict[str, Database]) -> None:
    """The console says the role of a token or a person; an approver may not say its own."""
    node = await asked(database, "operator")
    claims = "select noetl.decide_approval($1, $2, true, by => 'login:' || session_user, role => 'operator')"
    async with session(people["other"]) as own, refused("NB403"):
        await own.fetchval(claims, *node)
    assert await value(people["operator"], claims, *node)


async def test_a_token_decides_what_names_it_or_its_role(database: Database, people: dict[str, Database]) -> None:
    """By the API and the page; neither lists what it may not decide, nor shows it by its id."""
    tokens = {name: await token(database, role, name) for name, role in (("ann", "approver"), ("max", "operator"))}
    may: dict[str, list[str]] = {}
    async with console(people["operator"]) as client:
        for entry in ("token:ann", "approver", "operator", "login:ann"):
            execution, _ = await asked(database, entry)
            body = {"execution_id": str(execution), "step": "ask", "approved": True}
            for name, headers in tokens.items():
                listed = (await client.get("/api/v1/approvals", headers=headers)).json()["items"]
                page = await client.get("/approvals", headers=headers)
                answer = await client.post("/api/v1/approvals/decisions", headers=headers, json=body)
                if answer.status_code == 200:
                    may.setdefault(entry, []).append(name)
                    assert (answer.json()["by"], [each["details"] for each in listed]) == (f"token:{name}", ["a"])
                    assert "Pay 7?" in page.text
                    await drain(database)
                    execution, _ = await asked(database, entry)
                    body |= {"execution_id": str(execution)}
                else:
                    assert (answer.status_code, answer.json()["code"]) == (403, "NB403")
                    assert (len(listed), "Pay 7?" in page.text) == ((0, False) if name == "ann" else (1, True))
            await execute(database, "select noetl.cancel_execution($1)", execution)
            await drain(database)
    assert may == {"token:ann": ["ann"], "approver": ["ann"], "operator": ["max"]}


async def test_an_approval_without_a_known_approver_waits(database: Database) -> None:
    """Nobody may know the name yet; a template that gives nobody fails the step: it would be everybody."""
    await asked(database, "of_next_year")
    assert await value(database, LISTED) == 1
    await register(database, ASKS.format('"{{ workload.nobody | default([]) }}"'), path="other")
    await start(database, path="other")
    await drain(database)
    [(status, error)] = await rows(database, "select status, error from noetl.execution where path = 'other'")
    assert (status, "approvers" in error["message"]) == ("FAILED", True)

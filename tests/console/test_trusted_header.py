"""A proxy names who asks: from which addresses it is believed, which names are refused, and what a person may."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import httpx
import pytest

from noetl_broker.console.app import TrustedHeader
from noetl_broker.errors import OperatorFault
from noetl_broker.service.models.base import Role
from tests.brokers import PATIENCE_SECONDS, drain, register, rows, start
from tests.cli.conftest import Command, command
from tests.console.conftest import console
from tests.console.test_access import LIST, token
from tests.console.test_pages import FIELD
from tests.postgres import Database

__all__ = ["command"]

NAME = "X-Forwarded-User"
ME = "/api/v1/me"
CHANGES = "/api/v1/changes"
SETTINGS = {
    "NOETL_BROKER_CONSOLE_TRUSTED_HEADER": NAME,
    "NOETL_BROKER_CONSOLE_TRUSTED_PROXIES": '["127.0.0.0/8"]',
    "NOETL_BROKER_CONSOLE_TRUSTED_OPERATORS": '["ann"]',
}
ASKS = """
workflow:
- {step: start, next: ask}
- {step: ask, type: approval, title: Go?, next: end}
- {step: end}
"""


def trusted(*proxies: str) -> TrustedHeader | None:
    """The header of these proxies; ann is an operator and an author, eve an author."""
    return TrustedHeader.of(NAME, proxies, {"ann"}, {Role.AUTHOR: {"eve", "ann"}})


@pytest.mark.parametrize(
    "headers, answer",
    [
        ([(NAME, "ann")], ("operator", "ann")),
        ([(NAME, "eve")], ("author", "eve")),
        ([(NAME.lower(), "bob@example.com")], ("viewer", "bob@example.com")),
        ([(NAME, "Ann")], ("viewer", "Ann")),
        ([(NAME, "Žofia")], ("viewer", "Žofia")),
        ([(NAME, "bob"), ("Authorization", "Bearer of-the-proxy")], ("viewer", "bob")),
        ([(NAME, "bob"), ("X-Forwarded-For", "192.0.2.1"), ("Host", "noetl.example.com")], ("viewer", "bob")),
        ([], 401),
        ([(NAME, "")], 401),
        ([("X_Forwarded_User", "ann")], 401),
        ([(NAME, "ann"), (NAME, "bob")], 400),
        ([(NAME, "ann"), (NAME.lower(), "")], 400),
        ([(NAME, "bob, ann")], 400),
        ([(NAME, "an\u00adn")], 400),
        ([(NAME, "a" * 201)], 400),
    ],
)
async def test_a_proxy_names_the_person(
    database: Database, headers: list[tuple[str, str]], answer: int | tuple[str, str]
) -> None:
    """Once, and exactly. Without a name the request needs a token, also on a loopback address."""
    raw = [(name.encode(), text.encode()) for name, text in headers]
    async with console(database, trusted_header=trusted("127.0.0.1")) as client:
        got = await client.get(ME, headers=raw)
    assert ((got.json()["role"], got.json()["name"]) if got.is_success else got.status_code) == answer


async def test_nobody_else_may_send_the_header(database: Database) -> None:
    """Not even with a valid token. Without the header, the token counts."""
    mine = await token(database, "viewer")
    async with console(database, trusted_header=trusted("192.0.2.7", "2001:db8::/32")) as client:
        refused = [await client.get(LIST, headers={NAME: "ann", **more}) for more in ({}, mine)]
        assert [answer.status_code for answer in refused] == [403, 403]
        assert "127.0.0.1, which is not in console_trusted_proxies" in refused[0].json()["detail"]
        assert (await client.get(LIST, headers=mine)).status_code == 200


@pytest.mark.parametrize(
    "headers, status",
    [
        ({}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://noetl.example.com"}, 403),
        ({"Origin": "https://noetl.example.com"}, 200),
    ],
)
async def test_a_change_comes_from_a_page_of_ours(database: Database, headers: dict[str, str], status: int) -> None:
    """The browser sends the session of the proxy with each request, whatever page asks for it."""
    await register(database, ASKS)
    sent = {NAME: "ann", "Host": "noetl.example.com", **headers}
    async with console(database, trusted_header=trusted("127.0.0.1")) as client:
        answer = await client.post("/api/v1/playbooks/pause?path=story", headers=sent)
    assert answer.status_code == status, answer.text


async def test_a_stream_of_a_person_goes_on(database: Database) -> None:
    """Past the moment at which a token would be checked again."""
    options = {"trusted_header": trusted("127.0.0.1"), "heartbeat_seconds": 0.01}
    async with console(database, **options) as client, client.stream("GET", CHANGES, headers={NAME: "bob"}) as stream:
        beats = 0
        async for line in stream.aiter_lines():
            beats += line == ": still here"
            if beats == 2:
                break
    assert beats == 2


async def test_a_person_acts_by_name(command: Command, database: Database) -> None:
    """On all addresses without any token, also where IPv4 comes over an IPv6 socket."""
    await register(database, ASKS)
    by_form, by_api = await start(database, count=2)
    await drain(database)
    host = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104 - the case that is tested
    process = command.start("console", "--json", "--host", host, "--port", "0", **SETTINGS)
    assert process.stdout is not None
    url = json.loads(await asyncio.to_thread(process.stdout.readline))["url"]
    url = f"http://127.0.0.1:{url.rpartition(':')[2]}"
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=PATIENCE_SECONDS) as client:
        pages = {name: (await client.get(f"/approvals?person={name}", headers={NAME: name})) for name in ("bob", "ann")}
        [csrf] = {*FIELD.findall(pages["ann"].text)}
        fields = {"csrf": csrf, "execution_id": str(by_form), "step": "ask", "decision": "approve"}
        answers = [
            await client.post("/approvals", data=fields, headers={NAME: name, "Origin": url}) for name in ("bob", "ann")
        ]
        body = {"execution_id": str(by_api), "step": "ask", "approved": True, "decided_by": "eve"}
        answers.append(
            await client.post("/api/v1/approvals/decisions", json=body, headers={NAME: "ann", "Origin": url})
        )
    said = "select context ->> 'by', context ->> 'decided_by' from noetl.event where event_type = 'approval_decided'"
    assert [answer.status_code for answer in answers] == [403, 303, 200]
    assert await rows(database, said) == [("login:ann", None), ("login:ann", "eve")]
    assert ("Sign out" in pages["ann"].text, FIELD.findall(pages["bob"].text)) == (False, [])


@pytest.mark.parametrize(
    "settings, missing",
    [((None, ["10.1.2.3"], ()), "header"), ((NAME, (), ()), "proxies"), ((None, (), ["ann"]), "header")],
)
def test_header_and_proxies_are_set_together(settings: Any, missing: str) -> None:
    """One without the other would believe nobody, or nothing."""
    with pytest.raises(OperatorFault, match=f"^console_trusted_{missing} is not set: give"):
        TrustedHeader.of(*settings)


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("HEADER", "X_User", "console_trusted_header 'X_User'"),
        ("PROXIES", '["10.0.0.1/8"]', "has host bits set"),
        ("PROXIES", '["::/0"]', "everybody is in it"),
    ],
)
def test_a_wrong_setting_is_refused(command: Command, name: str, text: str, words: str) -> None:
    """As all commands do."""
    answer = command("config", **SETTINGS | {f"NOETL_BROKER_CONSOLE_TRUSTED_{name}": text})
    assert (answer.exit_code, words in answer.stderr) == (2, True), answer.stderr

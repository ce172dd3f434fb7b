"""The buttons of an execution's page, and its forms that are refused."""

from __future__ import annotations

from html import unescape
from typing import Any

import httpx
import pytest

from noetl_broker.console.pages.execution_actions import buttons_of
from tests.brokers import drain, execute
from tests.console.test_execution_page import FAIL, STORY, WAITS, began, post, read
from tests.postgres import Database

LEFT = {"undo": {"counts": {"failed": 1}}}
LONG = "x" * 1_001


@pytest.mark.parametrize(
    "status,more,buttons",
    [
        ("QUEUED", {}, "pause signal fork cancel"),
        ("RUNNING", {}, "pause signal fork cancel"),
        ("RUNNING", {"dead_letters": [1]}, "pause signal retry* fork cancel"),
        ("RUNNING", LEFT, "pause signal fork cancel"),
        ("PAUSED", {}, "resume* signal fork cancel"),
        ("COMPENSATING", {}, "abandon"),
        ("COMPLETED", {}, "fork again erase"),
        ("COMPLETED", {"erased_at": 1}, ""),
        ("COMPLETED", LEFT, "undo fork again erase"),
        ("COMPLETED", LEFT | {"undo_status": "undoing"}, "fork again abandon erase"),
        ("FAILED", {}, "retry* fork again erase"),
        ("FAILED", LEFT, "retry undo* fork again erase"),
        ("CANCELLED", {"undo": {"counts": {"done": 1}}}, "fork again erase"),
    ],
)
def test_a_page_has_the_buttons_of_its_status(status: str, more: dict[str, Any], buttons: str) -> None:
    """A star marks what should be done first."""
    shown = buttons_of({"status": status, "undo": None, "undo_status": None, "dead_letters": [], **more})
    assert " ".join(name + "*" * (one.kind == "primary") for name, one in shown) == buttons


@pytest.mark.parametrize(
    "body,action,fields,kept,fault",
    [
        (WAITS, "signal", {"name": "", "key": "k7", "payload": ""}, "k7", "it must not be empty"),
        (WAITS, "cancel", {"reason": LONG}, LONG, "it must have at most 1000 characters"),
        (STORY, "fork", {"step": "lod", "of": "", "value": "", "version": "17"}, "17", "17 is registered"),
        (STORY, "fork", {"step": "load", "of": "load", "value": "text", "version": ""}, "text", "double quotes"),
        (STORY, "fork", {"step": "load", "of": "", "value": "7", "version": ""}, "\n7</textarea>", "result of no step"),
        (STORY, "again", {"payload": "[7]"}, "\n[7]</textarea>", "it must be a JSON object"),
        (STORY, "retry", {"version": "17"}, "17", "version 17 is registered; its latest version is 1"),
    ],
)
async def test_a_form_that_is_refused_is_shown_again(
    database: Database, api: httpx.AsyncClient, body: str, action: str, fields: dict[str, str], kept: str, fault: str
) -> None:
    """With what was typed, and what is wrong with it."""
    execution_id = await began(database, body)
    if body is STORY:
        await execute(database, FAIL, {"message": "no route"})
        await drain(database)
    answer = await post(api, execution_id, action, **fields)
    page = unescape(answer.text)
    assert (answer.status_code, kept in page, fault in page.replace(">It ", ">it ")) == (400, True, True)


async def test_a_retry_that_cannot_be_is_previewed(database: Database, api: httpx.AsyncClient) -> None:
    """A wrong version keeps the form, without its button."""
    execution_id = await began(database)
    await execute(database, FAIL, {"message": "no route"})
    await drain(database)
    wrong = unescape(await read(api, f"/executions/{execution_id}/retry", version="nine"))
    assert ["it must be a whole number" in wrong, 'value="nine"' in wrong, ">Retry</button>" in wrong] == [
        True,
        True,
        False,
    ]

"""What is left undone, and the actions about it: API and pages."""

from __future__ import annotations

import httpx
import pytest

from noetl_broker.store.admin.executions import load_execution_details
from noetl_broker.store.admin.visit_spans import load_spans
from tests.brokers import drain, rows
from tests.console.test_actions import begun, do
from tests.console.test_execution_page import post, read
from tests.console.test_pages import sign_in
from tests.postgres import Database
from tests.sessions import pooled_session

PAID = """
workflow:
  - {step: start, next: reserve}
  - {step: reserve, type: http, url: "http://localhost", compensate: {type: http, url: "http://localhost"}, next: pay}
  - {step: pay, type: http, url: "http://localhost", compensate: {type: http, url: "http://localhost"}, next: ship}
  - {step: ship, type: http, url: "http://localhost", next: end}
  - {step: end}
"""
END = """
with leased as (select queue_id, attempts from noetl.lease_jobs('test', 10))
select count(case when $1::jsonb is null then noetl.complete_job(queue_id, 'test', attempts, '{}')
  else noetl.fail_job(queue_id, 'test', attempts, $1::jsonb, false) end)
from leased
"""


async def end_jobs(database: Database, error: dict[str, str] | None = None) -> None:
    """Complete the jobs that are ready, or fail them with this error, and let the broker decide."""
    await rows(database, END, error)
    await drain(database)


@pytest.fixture
async def failed(database: Database) -> str:
    """Return an execution that paid and failed, and whose undo of the payment failed."""
    [execution_id] = await begun(database, PAID)
    await end_jobs(database)
    await end_jobs(database)
    await end_jobs(database, {"message": "no truck", "type": "Truck"})
    await end_jobs(database, {"message": "the bank is closed", "type": "Bank"})
    return execution_id


async def test_what_is_left_undone_is_told(database: Database, api: httpx.AsyncClient, failed: str) -> None:
    """Of one execution, and of all; a viewer sees no message."""
    details = await do(api, "get", f"/executions/{failed}")
    listed = await do(api, "get", f"/executions/{failed}/undo")
    left = await do(api, "get", "/health/undone")
    async with pooled_session(database) as connection:
        spans = await load_spans(connection, await load_execution_details(connection, int(failed)))
    assert [(lane.step, lane.visits[0].status, len(lane.visits[0].attempts)) for lane in spans.lanes[2:]] == [
        ("ship", "FAILED", 1),
        ("pay!undo", "FAILED", 1),
    ]
    assert (details["status"], details["undo"]["counts"]) == ("FAILED", {"failed": 1, "open": 1})
    assert [(one["step"], one["status"], (one["error"] or {}).get("message")) for one in listed["items"]] == [
        ("pay", "failed", "the bank is closed"),
        ("reserve", "open", None),
    ]
    assert [(one["execution_id"], one["failed"], one["open"], one["unknown"]) for one in left["items"]] == [
        (failed, 1, 1, 0)
    ]
    why = await do(api, "get", f"/executions/{failed}/explain")
    page = (await read(api, f"/executions/{failed}")).partition('id="why"')[2]
    jobs = await read(api, f"/executions/{failed}", tab="jobs")
    assert ("pay!undo</a>" in jobs, "#1!undo" in jobs) == (True, False)
    assert "left 2 undone" in await read(api, "/executions")
    health = (await read(api, "/health")).partition('id="left-undone"')[2]
    assert ["1 failed" in health, "1 not undone" in health, f"/executions/{failed}/undo" in health] == [True] * 3
    assert [one["kind"] for one in why["because"]].count("remedy") == 1
    assert ("not undone: reserve" in page, "noetl-broker undo" in page) == (True, False)
    await sign_in(api, database, "viewer")
    pages = [
        (await api.get(url)).text for url in (f"/executions/{failed}", f"/executions/{failed}?tab=undo", "/health")
    ]
    assert [("Undo" in page or "undone" in page, "bank is closed" in page, "<form" in page) for page in pages] == (
        [(True, False, True)] * 3  # the form signs out
    )


async def test_an_undo_goes_on_from_the_console(database: Database, api: httpx.AsyncClient, failed: str) -> None:
    """The confirmation lists what will be undone, in order; then the execution does it, and a retry starts anew."""
    page = await read(api, f"/executions/{failed}")
    held = await read(api, f"/executions/{failed}/retry")
    asked = await read(api, f"/executions/{failed}/undo")
    lacking = await post(api, int(failed), "undo", version="9")
    started = await post(api, int(failed), "undo", version="latest")
    await drain(database)
    working = await read(api, started.url.path)
    await end_jobs(database)
    await end_jobs(database)
    done = await read(api, f"/executions/{failed}")
    retry = await read(api, f"/executions/{failed}/retry")
    assert ["the bank is closed" in page, f"/executions/{failed}/undo" in page] == [True, True]
    assert "something left to undo" in held
    assert [words in lacking.text for words in ("version 9 is registered", 'value="9"', "Undo 2 actions")] == [True] * 3
    assert "Version whose" in asked
    assert ["Undo 2 actions" in asked, asked.index("step=pay") < asked.index("step=reserve")] == [True, True]
    assert ["The broker reads it" in started.text, "to go" in working, "Abandon" in working] == [True, True, True]
    assert ["<strong>2</strong> done" in done, "Abandon" in done] == [True, False]
    assert "tarts anew, because what it did was undone" in retry
    assert await rows(database, "select status, undo_status from noetl.execution") == [("FAILED", "undone")]


async def test_what_was_undone_by_hand_is_settled(database: Database, api: httpx.AsyncClient, failed: str) -> None:
    """A reason is needed; the form comes back with what was typed."""
    lacking = await post(api, int(failed), "undo", settle="pay", reason="")
    settled = await post(api, int(failed), "undo", settle="pay", reason="by the bank")
    await drain(database)
    page = await read(api, f"/executions/{failed}")
    listed = await do(api, "get", f"/executions/{failed}/undo")
    assert [lacking.is_success, 'value="pay"' in lacking.text] == [False, True]
    assert ["The broker reads it" in settled.text, "settled by hand" in page] == [True, True]
    assert [one["status"] for one in listed["items"]] == ["settled", "open"]


async def test_an_undo_is_abandoned(database: Database, api: httpx.AsyncClient, failed: str) -> None:
    """By API and by page; then it is told what is left, of which nobody knows whether it happened."""
    unregistered = await api.post(f"/api/v1/executions/{failed}/undo", json={"version": 9})
    made = await do(api, "post", f"/executions/{failed}/undo", json={"unknown": False, "version": "latest"})
    await drain(database)
    await rows(database, "select queue_id from noetl.lease_jobs('test', 10)")
    refused = [(await api.post(f"/api/v1/executions/{failed}/{name}")).status_code for name in ("pause", "undo")]
    listed = (await api.get("/executions")).text
    cancel = await post(api, int(failed), "cancel")
    asked = await read(api, f"/executions/{failed}/abandon")
    given_up = await do(api, "post", f"/executions/{failed}/abandon", json={"reason": "by hand"})
    await drain(database)
    late = await post(api, int(failed), "abandon")
    left = await do(api, "get", f"/executions/{failed}")
    again = await read(api, f"/executions/{failed}/undo")
    assert [unregistered.status_code, *refused] == [404, 202, 202]
    assert [made["requested"], made["said"]] == [True, f"execution {failed} undoes what it did"]
    assert "It had ended before." in cancel.text
    assert [">undoing<" in listed, '<span class="step">pay' in listed] == [True, True]
    assert "its outcome is unknown" in asked
    assert [given_up["requested"], "It had ended before." in late.text] == [True, True]
    assert (left["undo_status"], left["undo"]["counts"]) == ("left", {"open": 1, "unknown": 1})
    assert ["Undo 1 action" in again, "nobody knows whether it happened" in again] == [True, True]


async def test_a_cancel_names_what_it_undoes_and_what_is_draining(database: Database, api: httpx.AsyncClient) -> None:
    """The last success first; then the page names the draining step, which is CANCELLED."""
    undo = 'compensate: {type: http, url: "http://localhost"}'
    [execution_id] = await begun(database, PAID.replace("next: end", f"{undo}, next: end"))
    await end_jobs(database)
    await end_jobs(database)
    asked = await read(api, f"/executions/{execution_id}/cancel")
    await rows(database, "select queue_id from noetl.lease_jobs('test', 10)")
    await post(api, int(execution_id), "cancel", reason="")
    await drain(database)
    page = await read(api, f"/executions/{execution_id}")
    details = await do(api, "get", f"/executions/{execution_id}")
    assert asked.index("It undoes 2 actions") < asked.index(">pay</a>") < asked.index(">reserve</a>")
    assert "ship may have begun" in asked
    assert "Draining: " in page
    assert details["draining"] == [{"step": "ship", "visit": 1}]

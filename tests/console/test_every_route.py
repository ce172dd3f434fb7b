"""What holds for every route of the OpenAPI document, also for those that come later."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx

from noetl_broker.console.app import ConsoleOptions, create_app
from noetl_broker.console.sign_in import MOST_FAILURES
from tests.brokers import drain, execute, register, rows, start
from tests.console.conftest import console
from tests.console.test_access import token
from tests.postgres import Database

CANARY = "canary-4711"
STORY = """
workload: {secret: canary-4711}
workflow:
  - {step: start, next: [{step: load}, {step: paid}, {step: approve}]}
  - {step: load, type: http, url: "http://localhost/{{ workload.secret }}", next: end}
  - {step: paid, type: wait, signal: paid, key: "{{ workload.secret }}", next: end}
  - {step: approve, type: approval, title: "{{ workload.secret }}", details: "{{ workload.secret }}", next: end}
  - {step: end}
"""
FAIL = """
update noetl.execution
set status = 'FAILED', ended_at = clock_timestamp(), error = jsonb_build_object('message', $2::text, 'step', 'load')
where execution_id = $1
"""
SET_ASIDE = "insert into noetl.dead_letter (execution_id, event_id, reason) values ($1, 1, $2)"
SEND = "select noetl.send_signal('other', $1, to_jsonb($1::text))"
PUT = """
select noetl.put_schedule('nightly', 'story', cron => '0 2 * * *', payload => jsonb_build_object('a', $1::text))
"""
ARGUMENTS = {"path": "story", "version": "1", "other": "1", "turn": "1", "action": "cancel", "name": "nightly"}
FINGERPRINT = """
select (select count(*) from noetl.event), (select count(*) from noetl.signal), (select count(*) from noetl.step_type),
  (select count(*) from noetl.path_pause), (select count(*) from noetl.catalog),
  (select max(xmin::text) from noetl.start_schedule)
"""


class Route(NamedTuple):
    """A route of the document with values for what it requires."""

    method: str
    url: str
    params: dict[str, str]


async def prepared(database: Database) -> int:
    """Make executions, a signal, a schedule and a dead letter that hold a secret; return an execution that waits."""
    await register(database, STORY)
    execution_id, failed = await start(database, count=2)
    await drain(database)
    await execute(database, FAIL, failed, CANARY)
    await execute(database, SET_ASIDE, failed, CANARY)
    await execute(database, SEND, CANARY)
    await execute(database, PUT, CANARY)
    return execution_id


def routes(database: Database, execution_id: int) -> Iterator[Route]:
    """Yield each route that answers at once."""
    arguments = {**ARGUMENTS, "execution_id": str(execution_id)}
    for url, methods in create_app(ConsoleOptions(database=database)).openapi()["paths"].items():
        for method, described in methods.items():
            if "text/event-stream" in str(described["responses"]):
                continue
            required = [one["name"] for one in described.get("parameters", ()) if one["required"]]
            filled = url.format(**arguments)
            yield Route(method, filled, {name: arguments[name] for name in required if f"{{{name}}}" not in url})


async def ask(client: httpx.AsyncClient, route: Route, headers: dict[str, str]) -> httpx.Response:
    """Return the answer of a route to an empty body."""
    body: Any = None if route.method == "get" else {}
    return await client.request(route.method, route.url, params=route.params, headers=headers, json=body)


async def test_a_viewer_changes_nothing_by_any_route(database: Database) -> None:
    """Each route that is not a GET refuses a viewer, before it looks at the body."""
    execution_id = await prepared(database)
    before = await rows(database, FINGERPRINT)
    headers = await token(database, "viewer")
    writing = [route for route in routes(database, execution_id) if route.method != "get"]
    async with console(database) as client:
        refused = {route.url: (await ask(client, route, headers)).status_code for route in writing}
    assert (set(refused.values()), len(writing) > 15, await rows(database, FINGERPRINT)) == ({403}, True, before)


async def test_no_route_answers_without_a_valid_token(database: Database) -> None:
    """But the health of a load balancer. Wrong tokens are refused, after some of them for a while."""
    asked = [route for route in routes(database, 1) if not route.url.endswith("/health")]
    wrong = {"Authorization": "Bearer wrong"}
    async with console(database, tokens_demanded=True) as client:
        without = {(await ask(client, route, {})).status_code for route in asked}
        refused = {(await ask(client, route, wrong)).status_code for route in asked[: MOST_FAILURES + 1]}
    assert (without, refused) == ({401}, {401, 429})

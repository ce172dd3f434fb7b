"""What a viewer gets: each route of the document over executions full of values, by a login in noetl_operator."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx

from tests.brokers import drain, execute, register, rows, start
from tests.console.conftest import console
from tests.console.test_access import token
from tests.postgres import Database
from tests.roles import logins

VALUE = "c4nary"  # of a payload, a result, an error, a message: in everything that a viewer must not see
STORY = """
workload: {who: VALUE, n: 1}
workflow:
- {step: start, desc: of VALUE, next: [{step: get}, {step: each}, {step: paid}, {step: ask}, {step: bad}]}
- step: get
  type: python
  desc: of VALUE
  code: "def main(): return 'VALUE'"
  args: {who: "{{ who }}"}
  next:
  - {when: "{{ get.who == 'VALUE' }}", step: sent, args: {who: "{{ who }}"}}
  - {else: [{step: end}]}
- {step: sent, type: signal, signal: told-VALUE, key: "{{ who }}", payload: {who: "{{ who }}"}, next: end}
- step: each
  type: iterator
  distribute: true
  collection: ["{{ who }}", VALUE]
  element: n
  task: {type: python, code: "def main(n): return n", args: {n: "{{ n }}"}}
  on_error: continue
  next: end
- {step: paid, type: wait, signal: "{{ who }}", key: "{{ who }}", next: end}
- step: ask
  type: approval
  title: "For {{ who }}"
  details: {who: "{{ who }}"}
  form: {x: {const: VALUE}}
  approvers: ["{{ who }}"]
  next: end
- step: bad
  type: python
  code: VALUE
  retry: {max_attempts: 2, initial_delay: 0}
  throttle: {name: often, key: "{{ who }}", concurrency: 9}
  next: end
- {step: end, result: {who: "{{ who }}"}}
""".replace("VALUE", VALUE)
FAILS = """
workload: {who: VALUE}
workflow:
- {step: start, next: bad}
- {step: bad, type: python, code: VALUE, next: end}
- {step: end}
""".replace("VALUE", VALUE)
UNDONE = """
workload: {who: VALUE}
workflow:
- {step: start, next: kept}
- {step: kept, type: python, code: VALUE, compensate: {type: python, code: VALUE, retry: {max_attempts: 1}}, next: bad}
- {step: bad, type: python, code: VALUE, next: end}
- {step: end}
""".replace("VALUE", VALUE)
ONE_EACH = 'concurrency: {key: "{{ workload.who }}", limit: 1}'
LEASE = "select queue_id, attempts, node_name from noetl.lease_jobs($1, 20)"
ERROR = {"type": "ValueError", **dict.fromkeys(("message", "traceback", "at", "step", "value", "child_step"), VALUE)}


@asynccontextmanager
async def full_of_values(database: Database) -> AsyncIterator[dict[str, int]]:
    """Yield the ids of executions: in several states; one left something undone, one waits for a slot."""
    await register(database, UNDONE, path="undone", metadata=ONE_EACH)
    [undone] = await start(database, "undone", {"who": VALUE})
    await drain(database)
    for _ in ("kept", "bad", "kept!undo"):
        await work(database)
    _, queued = await start(database, "undone", {"who": VALUE}, count=2)
    await drain(database)
    await register(database, STORY)
    await register(database, FAILS, path="fails")
    await register(
        database, f"workflow: [{{step: start, next: end}}, {{step: end, result: {VALUE}}}]", path="completes"
    )
    ids = {"undone": undone, "queued": queued}
    for name, path in (("runs", "story"), ("paused", "story"), ("failed", "fails"), ("completed", "completes")):
        [ids[name]] = await start(database, path, {"who": VALUE, VALUE: VALUE})
    await drain(database)
    await work(database)
    await rows(database, LEASE, f"host:{VALUE}")  # the second attempt of a job has a worker
    await rows(database, "select noetl.send_signal($1, $1, to_jsonb($1::text), $1)", VALUE)
    await rows(database, "select noetl.pause_execution($1, $2)", ids["paused"], VALUE)
    await drain(database)
    put = "select noetl.put_schedule('often', 'story', every => '1 day', payload => $1)"
    await execute(database, put, {VALUE: VALUE})
    await execute(database, "update noetl.start_schedule set error = $1, error_at = now()", VALUE)
    await execute(
        database,
        "insert into noetl.dead_letter (event_id, execution_id, reason) values (1, $1, $2)",
        ids["runs"],
        VALUE,
    )
    yield ids


async def work(database: Database) -> None:
    """Fail the jobs that are ready of some steps, and complete the others; let the broker decide."""
    for queue_id, attempts, step in await rows(database, LEASE, f"host:{VALUE}"):
        await rows(database, "select noetl.log_job($1, $2, $3, 'info', $4)", queue_id, f"host:{VALUE}", attempts, VALUE)
        if step in {"bad", "each", "kept!undo"}:
            await rows(database, "select noetl.fail_job($1, $2, $3, $4)", queue_id, f"host:{VALUE}", attempts, ERROR)
        else:
            done = {"who": VALUE}
            await rows(database, "select noetl.complete_job($1, $2, $3, $4)", queue_id, f"host:{VALUE}", attempts, done)
    await drain(database)


def urls(document: Any, ids: dict[str, int]) -> list[tuple[str, dict[str, Any]]]:
    """Each GET of the document: its URL and its query, once for each execution and step."""
    found: list[tuple[str, dict[str, Any]]] = []
    for path, operations in document["paths"].items():
        if "get" not in operations:
            continue
        names = {parameter["name"] for parameter in operations["get"].get("parameters", ())}
        query: dict[str, Any] = {name: value for name, value in QUERY.items() if name in names}
        for name, execution_id in ids.items() if "{execution_id}" in path else (("", 0),):
            url = path.format(execution_id=execution_id, name="often")
            query = {**query, **({"path": "story"} if url.endswith(PATHS) else {})}
            found.append((url, query))
            if path.endswith("/changes"):
                found.append((url, {"execution_id": [*ids.values()]}))
            if path.endswith("/explain"):
                found += [(url, {"step": step}) for step in STEPS[name]]
            if path.endswith("/graph"):
                found.append((url, {**query, "format": "mermaid"}))
    return found


QUERY = {"turn": 1, "version": 1, "other": 1}
STEPS = {
    "runs": ("get", "each", "paid", "ask", "bad", "sent", "end"),
    "paused": ("get", "each", "bad"),
    "failed": ("bad", "end"),
    "completed": ("end",),
    "undone": ("kept", "bad"),
    "queued": ("kept",),
}
ARGUMENTS = {"path": "story", "version": "1", "other": "1", "turn": "1", "action": "cancel", "name": "often"}
FINGERPRINT = """
select (select count(*) from noetl.event), (select count(*) from noetl.signal), (select count(*) from noetl.step_type),
  (select count(*) from noetl.path_pause), (select count(*) from noetl.catalog),
  (select max(xmin::text) from noetl.start_schedule)
"""
PATHS = ("/playbooks/versions", "/playbooks/source", "/playbooks/graph", "/playbooks/difference", "/slots/line")


async def ask(client: httpx.AsyncClient, url: str, query: dict[str, Any], headers: dict[str, str]) -> tuple[int, str]:
    """The status and the text of the answer to a GET; of a stream without an end, its first lines with data."""
    async with client.stream("GET", url, params=query, headers=headers) as answer:
        if not url.endswith("/changes"):
            return answer.status_code, (await answer.aread()).decode()
        lines = []
        async for line in answer.aiter_lines():
            lines.append(line)
            if line.startswith("data: "):
                break
        return answer.status_code, "\n".join(lines)


async def test_no_route_shows_a_value_to_a_viewer(database: Database) -> None:
    """Each GET answers an operator, with ids as text; a viewer is refused, or gets no value."""
    viewer, operator = [await token(database, role) for role in ("viewer", "operator")]
    wrong, shown, rounded = [], set(), set()
    async with full_of_values(database) as ids, logins(database) as as_role, console(as_role.operator) as client:
        document = (await client.get("/api/v1/openapi.json", headers=viewer)).json()
        for url, query in urls(document, ids):
            status, full = await ask(client, url, query, operator)
            viewed, seen = await ask(client, url, query, viewer)
            route = re.sub(r"/\d+", "/ID", url)
            if status != 200 or viewed not in {200, 403} or VALUE in seen:
                wrong.append((route, query, status, full[:300], viewed, _around(seen)))
            shown |= {route} if VALUE in full else set()
            rounded |= {f"{route}: {place}" for place in _large_numbers(full)}
    assert (wrong, rounded) == ([], set())
    # An operator sees the values, so the story has them.
    assert {
        "executions/ID",
        "executions/ID/events",
        "executions/ID/explain",
        "executions/ID/logs",
        "approvals",
        "dead-letters",
        "executions/ID/undo",
        "throttles/often/keys",
        "slots",
        "workers",
    } <= {route.removeprefix("/api/v1/") for route in shown}


def _large_numbers(text: str) -> Iterator[str]:
    """The places of numbers that JavaScript rounds, in an answer in JSON or a stream of it."""
    text = text.removeprefix(": open\n\nevent: changes\ndata: ")
    return _places_of_large_numbers(json.loads(text) if text.startswith(("{", "[")) else None, "")


def _places_of_large_numbers(document: Any, place: str) -> Iterator[str]:
    if isinstance(document, int) and document > 2**53:
        yield place
    if isinstance(document, list):
        document = dict(enumerate(document))
    for name, value in document.items() if isinstance(document, dict) else ():
        yield from _places_of_large_numbers(value, f"{place}/{name}")


def _around(text: str) -> str:
    place = text.find(VALUE)
    return text[max(place - 120, 0) : place + 60] if place >= 0 else ""


async def test_no_filter_tells_a_viewer_a_value(database: Database) -> None:
    """A filter on a value that a viewer does not see is refused: else the number of rows would tell it."""
    viewer = await token(database, "viewer")
    filters = [
        ("executions", "error"),
        ("approvals", "approver"),
        ("signals", "key"),
        ("signals", "name"),
        ("dead-letters", "reason"),
        ("workers/leases", "worker_id"),
    ]
    urls = [f"/{route}?{name}=x" for route, name in filters]
    pages = [url.replace("/leases", "").replace("reason=", "error=") for url in urls]
    async with console(database) as client:
        found = {
            url: (await client.get(url, headers=viewer)).status_code for url in [*map("/api/v1{}".format, urls), *pages]
        }
    assert set(found.values()) == {403}, found


async def test_a_search_tells_a_viewer_no_value(database: Database) -> None:
    """An operator finds executions by keys, messages, types of errors and payloads."""
    callers = [await token(database, role) for role in ("viewer", "operator")]
    async with full_of_values(database), console(database) as client:
        query = {"text": VALUE}
        found = [(await client.get("/api/v1/executions", params=query, headers=headers)).json() for headers in callers]
    assert [len(each["items"]) for each in found] == [0, 7]


class Route(NamedTuple):
    """A route of the document with values for what it requires."""

    method: str
    url: str
    params: dict[str, str]


async def every_route(client: httpx.AsyncClient, execution_id: int, headers: dict[str, str]) -> list[Route]:
    """Return each route of the document that answers at once."""
    arguments = {**ARGUMENTS, "execution_id": str(execution_id)}
    document = (await client.get("/api/v1/openapi.json", headers=headers)).json()
    found = []
    for url, methods in document["paths"].items():
        for method, described in methods.items():
            if "text/event-stream" in str(described["responses"]):
                continue
            required = [one["name"] for one in described.get("parameters", ()) if one["required"]]
            params = {name: arguments[name] for name in required if f"{{{name}}}" not in url}
            found.append(Route(method, url.format(**arguments), params))
    return found


async def send_nothing(client: httpx.AsyncClient, route: Route, headers: dict[str, str]) -> int:
    """Return the status of the answer of a route to an empty body."""
    body: Any = None if route.method == "get" else {}
    answer = await client.request(route.method, route.url, params=route.params, headers=headers, json=body)
    return answer.status_code


async def test_a_viewer_changes_nothing_by_any_route(database: Database) -> None:
    """Each route that is not a GET refuses a viewer, before it looks at the body."""
    headers = await token(database, "viewer")
    async with full_of_values(database) as ids, console(database) as client:
        before = await rows(database, FINGERPRINT)
        writing = [route for route in await every_route(client, ids["runs"], headers) if route.method != "get"]
        refused = {route.url: await send_nothing(client, route, headers) for route in writing}
    assert refused == dict.fromkeys(refused, 403)
    assert len(writing) > 15
    assert await rows(database, FINGERPRINT) == before


async def test_no_route_answers_without_a_valid_token(database: Database) -> None:
    """But the health of a load balancer. Wrong tokens are refused, after some of them for a while."""
    headers, wrong = await token(database, "viewer"), {"Authorization": "Bearer wrong"}
    async with console(database, tokens_demanded=True) as client:
        asked = [route for route in await every_route(client, 1, headers) if not route.url.endswith("/health")]
        without = {await send_nothing(client, route, {}) for route in asked}
        refused = {await send_nothing(client, route, wrong) for route in asked[:11]}
    assert (without, refused) == ({401}, {401, 429})

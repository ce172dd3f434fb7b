"""The http examples of the pages: a broker and the reference worker run them against a local server."""

from __future__ import annotations

import asyncio
import re
from textwrap import indent
from typing import Any

from noetl_broker.playbook import PlaybookRules, compile_playbook
from noetl_broker.resources import playbooks_folder
from noetl_broker.store.admin.catalog import register
from noetl_broker.store.connect.connection import connect
from noetl_broker.worker import WorkerOptions, run_worker
from tests.brokers import rows, running, start, until_ended
from tests.docs.pages import PAGES, read_page
from tests.postgres import Database
from tests.worker.conftest import serving

REQUESTING = ("playbooks", "iterators", "child-playbooks", "failures", "undo", "playbook-rules", "step-types", "limits")
# What the page says about the answers: the bank names no amount, one city is unknown, and a file is missing.
ANSWERS = {
    "weather.example/Paris": (200, b'{"temp": 30}'),
    "weather.example/Atlantis": (404, b"{}"),
    "files.example/today": (404, b"{}"),
    "api.example/": (200, b'{"ids": [1, 2]}'),
}
ANSWER = (201, b'{"id": "c1", "sum": 120}')
# Headings of what fails; each other example completes.
FAIL = {"When an execution has failed", "Undo"}
RESULTS = {"The document": 30, "Steps of a worker": 1.2, "A block in one file": "c1", "Outputs": 2, "http": "c1"}
# What the servers get, in any order, where the page is about that.
SENT = {
    "Retry an item": {"GET weather.example/Atlantis", "GET weather.example/Oslo", "GET weather.example/Rome"},
    "Catch": {'POST bank.example/charges {"order":"o-7"}', 'POST bank.example/refunds/c1 {"why":"template"}'},
    "Undo": {
        "DELETE stock.example/reservations/c1",
        'POST bank.example/charges {"order":"o-7"}',
        'POST bank.example/refunds {"charge":"c1","why":"no such street"}',
        'POST stock.example/reservations {"order":"o-7"}',
    },
}
ENDED = "select status, result from noetl.execution where execution_id = $1"
BLOCK = re.compile(r"^#+ (.*)$|^```yaml.*\n((?:.*\n)*?)```", re.MULTILINE)


def answer(status: int, content: bytes) -> tuple[int, dict[str, str], bytes]:
    """Return an answer with JSON."""
    return status, {"content-type": "application/json"}, content


def examples(address: str) -> list[tuple[str, str]]:
    """Return heading and text of each example that sends a request, except to places that a secret or `env` names."""
    found: list[tuple[str, str]] = []
    heading = ""
    for title, block in BLOCK.findall("\n".join(map(read_page, REQUESTING))):
        heading = title or heading
        if "type: http" in block and not re.search(r"\{\{ (secret|env)\.", block):
            number = len(found)
            found.append((heading, whole(block, f"page{number}").replace("https://", f"{address}/{number}/")))
    return found


def whole(block: str, path: str) -> str:
    """Return the playbook of an example; its `ship` fails, as the page says of it."""
    if block.startswith("- step: charge"):
        steps = f"- {{step: start, next: charge}}\n{block}- {{step: end}}\n"
        block = f"workload: {{account: a, order: o-7}}\nworkflow:\n{indent(steps, '  ')}"
    if not block.startswith("apiVersion"):
        block = f"apiVersion: noetl.io/v1\nkind: Playbook\nmetadata: {{path: {path}}}\n{block}"
    return re.sub(
        r"step: ship, type: python, code: .*, next: end", "step: ship, type: fail, error: no such street", block
    )


async def run(database: Database, texts: list[str]) -> list[tuple[Any, ...]]:
    """Run playbooks beside each other, with a broker and a worker; return status and result of each."""
    playbooks = [(compile_playbook(text, rules=PlaybookRules()), text) for text in texts]
    alarm = (playbooks_folder() / "alarm.yaml").read_text(encoding="utf-8")
    connection = await connect(database, name="test")
    try:
        await register(connection, [*playbooks, (compile_playbook(alarm, rules=PlaybookRules()), alarm)])
    finally:
        await connection.close()
    stop = asyncio.Event()
    async with running(database):
        worker = asyncio.create_task(run_worker(WorkerOptions(dsn=database.dsn, schema=database.schema), stop))
        try:
            started = [await start(database, each.path) for each, _ in playbooks]
            await until_ended(database)
        finally:
            stop.set()
            await worker
    return [row for ids in started for row in await rows(database, ENDED, *ids)]


async def test_every_example_sends_and_ends_as_the_pages_say(database: Database) -> None:
    """Each sends a request; the failed one raises its alarm."""
    async with serving() as servers:
        pages = examples(servers.url)
        servers.answer = answer(*ANSWER)
        servers.answers_by_target = {
            f"/{number}/{target}": answer(*said) for number in range(len(pages)) for target, said in ANSWERS.items()
        }
        ended = await run(database, [text for _, text in pages])
    assert len(pages) == 13
    sent: list[set[str]] = [set() for _ in pages]
    for request in servers.requests:
        _, number, target = request["target"].split("/", 2)
        sent[int(number)].add(f"{request['method']} {target} {request['body']}".rstrip())
    for (heading, _), (status, result), requests in zip(pages, ended, sent, strict=True):
        assert (heading, status) == (heading, "FAILED" if heading in FAIL else "COMPLETED")
        assert (heading, result) == (heading, RESULTS.get(heading, result))
        assert requests
        assert (heading, requests) == (heading, SENT.get(heading, requests))
    [told] = await rows(database, "select result from noetl.execution where path = 'examples/alarm'")
    [missing] = [request["target"] for request in servers.requests if "files.example" in request["target"]]
    reason = f"step 'load': GET {servers.url}{missing} answered 404 Said"
    assert told == ({"to": "data", "text": f"examples/watched_import failed in load: {reason}"},)


def test_each_page_with_a_request_is_run() -> None:
    """But docs/how-to/troubleshoot.md, whose jobs a test answers by hand."""
    written = {name for name in PAGES if "type: http" in read_page(name)}
    assert written == {*REQUESTING, "troubleshoot"}

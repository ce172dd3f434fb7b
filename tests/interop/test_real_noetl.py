"""The broker beside a real NoETL server and worker, with playbooks of both projects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import yaml

from noetl_broker.broker.model.values import JSON
from noetl_broker.playbook import PlaybookRules
from noetl_broker.resources import playbooks_folder
from noetl_broker.store.admin.verify import VerifyScope, verify
from tests.brokers import value
from tests.chaos.daemons import daemon
from tests.daemon.beside_noetl.test_examples import EXAMPLES
from tests.daemon.beside_noetl.test_inputs import ITERATED, PROBE
from tests.daemon.history.test_replay import differences
from tests.interop.real import RealNoETL
from tests.sessions import session
from tests.stories import document

pytestmark = pytest.mark.slow

FIXTURES = "tests/fixtures/playbooks"
USER = {"name": "Ann", "age": 30, "department": "HR", "years_experience": 2, "performance_rating": 3}
# That worker gives `main(input_data)` a mapping of all inputs, also if there is an input of this name.
NOT_THE_INPUT = "Missing required field: name"
NO_START = "does not compile"
NO_COMMAND = "No command_b64 or commands_b64 field found"
# Playbooks of NoETL's repository: path, payload, status at the end, and a part of the message.
FOUND: list[tuple[str, dict[str, JSON], str, str]] = [
    (f"{FIXTURES}/test_start_with_action", {}, "COMPLETED", ""),
    (f"{FIXTURES}/test_end_with_action", {}, "COMPLETED", ""),
    (f"{FIXTURES}/control_flow_workbook/control_flow_workbook", {}, "COMPLETED", ""),
    (f"{FIXTURES}/iterator_save_test", {}, "COMPLETED", ""),
    (f"{FIXTURES}/save_storage_test/create_tables", {}, "COMPLETED", ""),
    (f"{FIXTURES}/save_storage_test/save_simple_test", {}, "COMPLETED", ""),
    (f"{FIXTURES}/save_storage_test/save_edge_cases", {}, "COMPLETED", ""),
    (f"{FIXTURES}/save_storage_test/save_all_storage_types", {}, "FAILED", "`start` is undefined"),
    (f"{FIXTURES}/save_storage_test/save_delegation_test", {}, "FAILED", NO_START),
    (f"{FIXTURES}/retry_test/python_retry_exception", {}, "FAILED", "name 'random' is not defined"),
    (f"{FIXTURES}/retry_test/duckdb_retry_query", {}, "FAILED", NO_COMMAND),
    (f"{FIXTURES}/retry_test/postgres_retry_connection", {}, "FAILED", "Postgres connection is not configured"),
    (f"{FIXTURES}/retry_test/http_retry_with_stop", {"test_url": "/get"}, "COMPLETED", ""),
    (f"{FIXTURES}/retry_test/http_retry_status_code", {"test_url": "/status/503"}, "FAILED", "with status 503"),
    (f"{FIXTURES}/retry_test/retry_simple_config", {}, "FAILED", NO_START),
    (f"{FIXTURES}/playbook_composition/user_profile_scorer", {"user_data": USER}, "FAILED", NOT_THE_INPUT),
    (f"{FIXTURES}/playbook_composition/playbook_composition", {}, "FAILED", NOT_THE_INPUT),
    ("test_end_step_save", {}, "COMPLETED", ""),
    ("test_retry_always_fail_events", {}, "FAILED", "Intentional failure for retry event testing"),
    ("test_retry_http500", {"test_url": "/status/500"}, "FAILED", "with status 500"),
    ("test_storage_structures", {}, "FAILED", "`step` is undefined"),
]
# One of our examples counts its attempts in a table. NoETL's postgres tool requires `auth`, commits each statement, and
# numbers the results.
ITS_POSTGRES = [
    ("type: postgres\n", "type: postgres\n    auth: pg_local\n"),
    ("      commit;\n", ""),
    ("ring.rows[0]", "ring.command_3.rows[0]"),
]
OUR_TEXTS = [file.read_text(encoding="utf-8") for file in sorted(playbooks_folder().glob("*.yaml"))]
for ours, its in ITS_POSTGRES:
    OUR_TEXTS = [text.replace(ours, its) if "demo.rings" in text else text for text in OUR_TEXTS]


@asynccontextmanager
async def served(real: RealNoETL, *, owner: str = "worker") -> AsyncIterator[None]:
    """Run a daemon until the block ends; then replay and `verify` must find nothing in the new executions."""
    before = await value(real.database, "select array_agg(execution_id) from noetl.execution")
    async with daemon(real.database, retry_owner=owner, reap_seconds="0.2"):
        yield
    async with session(real.database) as own:
        report = await verify(own, VerifyScope(), deep=PlaybookRules())
        ran = await own.fetch("select execution_id from noetl.execution where execution_id <> all($1)", before or [])
    assert {v.check.sentence: v.examples for v in report.verdicts if v.broken} == {}
    assert {number: found for (number,) in ran if (found := await differences(real.database, number))} == {}


async def results(real: RealNoETL, *bodies: str) -> list[JSON]:
    """Register playbooks with these bodies, run each once, and return the results or error messages."""
    numbers = []
    for index, body in enumerate(bodies):
        path = f"probe{index}"
        await real.register(document(body, path=path))
        numbers.append(await real.start(path))
    found = await real.ended(*numbers)
    return [found[number][2] or found[number][1] for number in numbers]


async def test_its_hello_world_runs(real: RealNoETL) -> None:
    """The first playbook of NoETL's documentation."""
    text = (real.folder / FIXTURES / "hello_world" / "hello_world.yaml").read_text(encoding="utf-8")
    async with served(real):
        await real.register(text)
        number = await real.start(yaml.safe_load(text)["metadata"]["path"])
        found = (await real.ended(number))[number]
    assert found == ("COMPLETED", {"status": "success", "message": "Hello World"}, None)
    assert await real.status(number) == "COMPLETED"


async def test_our_examples_run(real: RealNoETL) -> None:
    """With the results of our own worker, and the API reports them as completed."""
    async with served(real):
        for text in OUR_TEXTS:
            await real.register(text)
        started = [await real.start(f"examples/{name}", payload) for name, payload, _ in EXAMPLES]
        found = await real.ended(*started)
        statuses = [await real.status(number) for number in started]
    assert [found[number] for number in started] == [("COMPLETED", result, None) for _, _, result in EXAMPLES]
    assert statuses == ["COMPLETED"] * len(EXAMPLES)


async def test_its_own_playbooks_run(real: RealNoETL) -> None:
    """Each ends as its worker can run it, with a reason if it fails; the API reports the same."""
    started: dict[int, str] = {}
    async with served(real):
        for file, payload, *_ in FOUND:
            text = (real.folder / f"{file}.yaml").read_text(encoding="utf-8")
            await real.register(text)
            here = {"test_url": real.web.url + payload["test_url"]} if "test_url" in payload else payload
            started[await real.start(yaml.safe_load(text)["metadata"]["path"], here)] = file
        found = await real.ended(*started)
        statuses = {file: await real.status(number) for number, file in started.items()}
    expected = {file: (status, message) for file, _, status, message in FOUND}
    ends = {started[number]: (status, message or "") for number, (status, _, message) in found.items()}
    assert {
        file: (status, part if (part := expected[file][1]) in message else message)
        for file, (status, message) in ends.items()
    } == expected
    assert statuses == {file: status for file, (status, _) in expected.items()}
    saved = "select array_agg(item_value order by id) from public.iterator_save_test"
    assert await value(real.database, saved) == [100, 200, 300]


async def test_every_input_of_the_probes_arrives(real: RealNoETL) -> None:
    """Twelve inputs of a step, and those of a step for a task that the worker repeats."""
    async with served(real):
        found = await results(real, PROBE, ITERATED)
    repeated = [[*(f"n{number}" for number in range(1, 7)), "value"]]
    assert found == [sorted(f"n{number}" for number in range(1, 13)), repeated]


async def test_its_http_tool_sends_query_and_body(real: RealNoETL) -> None:
    """The query of a GET and the body of a POST, under each key that a step may use."""
    real.web.requests.clear()
    steps = (
        "params: {a: 1}, args: {b: 2}",
        "params: {a: 1, query: q}",
        "method: POST, payload: {a: 1}, args: {b: 2}",
        "method: POST, body: [1, 2]",
        "method: POST, data: {a: 1}",
    )
    body = "workflow:\n- {{step: start, next: s}}\n- {{step: s, type: http, url: {url}/{place}, {step}}}\n"
    async with served(real):
        url = real.web.url
        await results(real, *(body.format(url=url, place=index, step=step) for index, step in enumerate(steps)))
    assert sorted(real.web.requests, key=lambda request: request[1]) == [
        ("GET", "/0?a=1&b=2", None),
        ("GET", "/1?a=1&query=q", None),
        ("POST", "/2", {"a": 1}),
        ("POST", "/3", [1, 2]),
        ("POST", "/4", {"a": 1}),
    ]


async def test_its_server_renders_a_job_again(real: RealNoETL) -> None:
    """A template in a result is rendered; if one in a job fails, the whole job stays as it is."""
    body = """
workflow:
- {{step: start, next: a}}
- {{step: a, type: python, code: "def main(): return {text!r}", next: b}}
- {{step: b, type: python, args: {{n: "{{{{ a }}}}"}}, code: "def main(n): return n"}}
"""
    texts = ("{" * 2 + " 6 * 7 }}", "{" * 2 + " 6 * 7 }} {" + "{ unknown }}")
    async with served(real):
        found = await results(real, *(body.format(text=text) for text in texts))
    assert found == ["42", texts[1]]


async def test_the_status_of_an_answer_decides_about_a_retry(real: RealNoETL) -> None:
    """With `retry_owner: broker`, `retry_when` reads the status from the result of the http tool."""
    body = "workflow:\n- {{step: start, next: s}}\n- {{step: s, type: http, url: {url}/status/{status}, {retry}}}\n"
    retry = "retry: {max_attempts: 2, initial_delay: 0.1, jitter: false, retry_when: '{{ status_code >= 500 }}'}"
    real.web.requests.clear()
    async with served(real, owner="broker"):
        url = real.web.url
        found = await results(real, *(body.format(url=url, status=status, retry=retry) for status in (503, 404)))
    assert found == [f"the server answered with status {status}" for status in (503, 404)]
    assert sorted(path for _, path, _ in real.web.requests) == ["/status/404", "/status/503", "/status/503"]

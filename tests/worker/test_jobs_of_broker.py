"""Jobs as the broker writes them, run by the worker: templates are rendered, data is not."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from textwrap import dedent
from typing import Any

import pytest

from noetl_broker.broker.model.decision import JobRow
from noetl_broker.broker.model.effects import ExecutionBegun
from noetl_broker.history.story import STORY_EXECUTION, play_turns, read_events
from noetl_broker.node_ids import node_id
from noetl_broker.store.worker.jobs import LeasedJob
from noetl_broker.template import unwrap
from noetl_broker.worker.errors import Failure
from noetl_broker.worker.executor import Success, execute
from noetl_broker.worker.tools.task import WorkerResources
from tests.stories import playbook
from tests.worker.conftest import Site

TOLD = "s3cret"
BAIT = "{{ secret.api_token }}{{ env.CITY }}"
ECHO = "def main(**given): return given"

Work = Callable[..., Awaitable[Any]]


def leased(job: JobRow, workload: Any) -> LeasedJob:
    """Give a job as a worker leases it: action and context went through JSON, the workload was added."""
    return LeasedJob(
        queue_id=7,
        attempt=1,
        execution_id=STORY_EXECUTION,
        node_id=node_id(STORY_EXECUTION, job.step, job.visit, job.item_index),
        node_name=job.step,
        node_type=job.node_type,
        action=json.dumps(job.action),
        context=json.dumps({**job.context, "workload": workload}).replace("1e+308", f"{10**308}"),  # as jsonb does
        priority=job.priority,
        timeout_seconds=job.timeout,
    )


@pytest.fixture
def work(shared: WorkerResources, site: Site) -> Work:
    """Run the last job of a story whose payload has templates with secrets; give its result.

    URL is the site's, ECHO a code.
    """

    async def run(body: str, *more: str) -> Any:
        body = dedent(body).replace("URL", site.url).replace("ECHO", ECHO)
        story = "\n".join([f"> execution_start {json.dumps({'note': BAIT, 'items': [BAIT, 'b']})}", *more])
        decisions = [decision for _, decision, _ in play_turns(playbook(body), read_events(story))]
        *_, job = [job for decision in decisions for job in decision.jobs]
        [workload] = [begun.workload for begun in decisions[0].of(ExecutionBegun)]
        outcome = await execute(leased(job, workload), shared, time_limit_seconds=20)
        assert isinstance(outcome, Success), outcome
        return json.loads(outcome.result)

    return run


async def test_a_deferred_field_is_rendered_and_data_beside_it_is_not(work: Work, site: Site) -> None:
    """Data from the payload and from a result, in a field and in a body."""
    await work(
        """
        workload: {note: ""}
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: s}
        - step: s
          type: http
          method: POST
          url: URL
          headers: {A: "Bearer {{ secret.api_token }}", B: "{{ note }}"}
          payload: {note: "{{ workload.note }}", result: "{{ a }}", both: "{{ a.v }}{{ env.CITY }}"}
        """,
        f"> action_completed a {json.dumps({'v': BAIT})}",
    )
    [request] = site.requests
    assert (request["headers"]["a"], request["headers"]["b"]) == (f"Bearer {TOLD}", BAIT)
    assert json.loads(request["body"]) == {"note": BAIT, "result": {"v": BAIT}, "both": f"{BAIT}Oslo"}


async def test_only_inputs_that_are_templates_are_rendered(work: Work) -> None:
    """Data of a transition that replaces a template stays data."""
    result = await work(
        """
        workload: {note: ""}
        workflow:
        - {step: start, next: [{step: s, args: {over: "{{ note }}", came: "{{ note }}"}}]}
        - step: s
          type: python
          code: "ECHO"
          args: {over: "{{ secret.api_token }}", auth: "{{ secret.api_token }} {{ came }}", own: "{{ note }}"}
        """
    )
    assert result == {"over": BAIT, "came": BAIT, "auth": f"{TOLD} {BAIT}", "own": BAIT}


async def test_a_deferred_default_of_the_workload_is_rendered_where_it_is_read(work: Work, site: Site) -> None:
    """In fields and inputs; a default that the payload replaced is data."""
    result = await work(
        """
        workload:
          {city: "{{ env.CITY }}", place: "in {{ env.CITY }}", note: "{{ env.X }}", path: "{{ secret.api_token }}"}
        workflow:
        - {step: start, next: s}
        - step: s
          type: python
          code: "ECHO"
          args: {own: "{{ place }}", note: "{{ note }}", given: "{{ workload.city }}", all: "{{ workload }}"}
          save: {storage: http, url: "URL/{{ workload.path }}", method: POST, data: {x: "{{ city }}"}}
        """
    )
    workload = {"city": "Oslo", "place": "in Oslo", "path": TOLD, "note": BAIT, "items": [BAIT, "b"]}
    assert result == {"given": "Oslo", "all": workload, "own": "in Oslo", "note": BAIT}
    [request] = site.requests
    assert (request["target"], json.loads(request["body"])) == (f"/{TOLD}", {"x": "Oslo"})


async def test_a_save_renders_its_templates_and_no_data(work: Work, site: Site) -> None:
    """In each form of a save."""
    await work(
        """
        workload: {note: ""}
        workflow:
        - {step: start, next: s}
        - step: s
          type: python
          code: "ECHO"
          args: {note: "{{ note }}"}
          save:
            storage: {type: http, url: URL, method: POST, headers: {A: "{{ secret.api_token }}"}}
            payload: {result: "{{ result.note }}", note: "{{ note }}", twice: "{{ note }}{{ result.note }}"}
        """
    )
    [request] = site.requests
    assert request["headers"]["a"] == TOLD
    assert json.loads(request["body"]) == {"result": BAIT, "note": BAIT, "twice": BAIT * 2}


@pytest.mark.parametrize("word", ["args", "data"])
async def test_items_are_data_and_a_task_is_rendered_for_each(work: Work, word: str) -> None:
    """With its own inputs and those of the step."""
    body = """
    workload: {note: "", items: []}
    workflow:
    - {step: start, next: s}
    - step: s
      type: iterator
      collection: items
      element: i
      task: {type: python, code: "ECHO", WORD: {v: "{{ i }}", t: "{{ secret.api_token }}", n: "{{ note }}"}}
      args: {m: "{{ note }}"}
    """.replace("WORD", word)
    common = {"t": TOLD, "n": BAIT, "m": BAIT}
    assert await work(body) == [{"v": BAIT, **common}, {"v": "b", **common}]


async def test_a_rendered_where_is_a_value_and_no_expression(work: Work) -> None:
    """The broker has rendered the `where`, so the worker does not evaluate it."""
    body = """
    workload: {note: "", items: []}
    workflow:
    - {step: start, next: s}
    - step: s
      type: python
      code: "ECHO"
      args: {v: "{{ i }}"}
      loop: {collection: items, element: i, where: %s}
    """
    assert await work(body % "i == 'b'") == [{"v": "b"}]
    assert await work(body % "'{{ note }}'") == [{"v": BAIT}, {"v": "b"}]


async def test_the_job_of_an_item_can_read_its_element(work: Work, site: Site) -> None:
    """In a deferred string; the broker passes the name of the element."""
    await work(
        """
        workload: {note: "", items: []}
        workflow:
        - {step: start, next: s}
        - step: s
          type: iterator
          distribute: true
          mode: async
          collection: items
          element: i
          task:
            type: http
            method: POST
            url: URL/{{ k }}/{{ _loop.index }}
            args: {k: "{{ env.CITY }}"}
            payload: {both: "{{ secret.api_token }} {{ i }}", item: "{{ i }}", bait: "{{ note }}"}
        """
    )
    [request] = site.requests
    assert request["target"] == "/Oslo/1"
    assert json.loads(request["body"]) == {"both": f"{TOLD} b", "item": "b", "bait": BAIT}


async def uuids(work: Work, keys: str, *more: str) -> Any:
    """Give the inputs of a step that read `uuid()` beside a deferred value; `keys` are its other keys."""
    return await work(
        f"""
        workflow:
        - {{step: start, next: s}}
        - step: s
          type: python
          code: "ECHO"
          args: {{a: "{{{{ env.CITY }}}}{{{{ uuid() }}}}", b: "{{{{ env.CITY }}}}{{{{ uuid() }}}}"}}
          next: [{{when: "again|default(true)", step: s}}]
          {keys}
        """,
        *more,
    )


async def test_each_uuid_of_a_worker_is_different(work: Work) -> None:
    """For each call, item and visit. Another attempt gets the same ones."""
    loop = "loop: {collection: [1, 2, 3], element: n, mode: MODE}"
    one = await uuids(work, "")
    items = await uuids(work, loop.replace("MODE", "sequential"))
    second = await uuids(work, "", "> action_completed s 1")
    made = [made for given in (one, *items, second) for made in given.values()]
    assert len(set(made)) == len(made) == 10
    assert await uuids(work, "") == one
    assert await uuids(work, loop.replace("MODE", "async")) == items


async def test_a_uuid_in_an_input_is_the_one_that_is_saved(work: Work, site: Site) -> None:
    """Inputs are rendered once, for the task and its `save`."""
    given = await uuids(
        work, 'save: {storage: http, url: URL, method: POST, data: {a: "{{ a }}", r: "{{ result.a }}"}}'
    )
    [request] = site.requests
    assert json.loads(request["body"]) == {"a": given["a"], "r": given["a"]}


THROTTLED = {
    "a template": 'type: http, url: URL, timeout: "{{ env.LIMIT | default(SECONDS) }}"',
    "of a workbook": "type: workbook, task: act",
}


@pytest.mark.parametrize("limited", THROTTLED.values(), ids=THROTTLED)
async def test_a_timeout_of_a_request_does_not_limit_its_loop(work: Work, site: Site, limited: str) -> None:
    """Each request may take that long; together they may take longer."""
    body = f"""
    workbook: [{{name: act, type: http, url: URL, timeout: SECONDS}}]
    workflow:
    - {{step: start, next: s}}
    - {{step: s, {limited}, loop: {{collection: [1, 2, 3, 4, 5, 6], element: n, on_error: continue}}}}
    """
    site.pause_seconds = 0.6
    answers = await work(body.replace("SECONDS", "3"))
    assert [answer and answer["status_code"] for answer in answers] == [200] * 6
    assert unwrap(await work(body.replace("SECONDS", "0.1"))) == [None] * 6


NUMBERS = {"big": 1e16, "odd": 1.2345678901234568e17, "huge": 1e308, "long": 10**70, "minus": -0.0, "half": 0.5}
TEXT = "10000000000000000 123456789012345680 1e+308 1" + "0" * 70 + " 0.0 0.5"


async def test_a_save_sees_numbers_like_later_steps(work: Work, site: Site) -> None:
    """From 1e16 on jsonb returns a float as an integer; beyond 256 bits it stays a float."""
    read = "{{ result.big }} {{ result.odd }} {{ result.huge }} {{ result.long }} {{ result.minus }} {{ result.half }}"
    await work(
        f"""
        workflow:
        - {{step: start, next: a}}
        - step: a
          type: python
          code: |
            def main(): return {NUMBERS!r}
          save: {{storage: http, url: URL, method: POST, data: {{x: "{read}"}}}}
        """
    )
    assert json.loads(site.requests[0]["body"]) == {"x": TEXT}


async def test_a_deferred_string_sees_numbers_like_later_steps(work: Work) -> None:
    """In its context, beside a deferred value, and in its result."""
    read = "{{ a.big }} {{ a.odd }} {{ a.huge }} {{ a.long }} {{ a.minus }} {{ a.half }}"
    result = await work(
        f"""
        workflow:
        - {{step: start, next: a}}
        - {{step: a, type: python, code: x, next: s}}
        - step: s
          type: python
          code: "ECHO"
          args: {{x: "{read} {{{{ env.CITY }}}}", y: "{{{{ [a.huge > 5 and env.CITY, a.big * 3.7] }}}}"}}
        """,
        f"> action_completed a {json.dumps(NUMBERS)}",
    )
    assert result == {"x": f"{TEXT} Oslo", "y": ["Oslo", 37_000_000_000_000_000]}


async def test_a_result_that_cannot_be_stored_is_not_saved(shared: WorkerResources, site: Site) -> None:
    """Its attempt fails, and the next one would save again."""
    action = {
        "name": "a",
        "type": "python",
        "code": "def main(): return {'x': '\\x00'}",
        "save": {"storage": "http", "url": site.url, "method": "POST", "data": {"x": 1}},
    }
    job = leased(JobRow("a", 1, "python", 0, action, {}, 5, 1, None), {})
    assert isinstance(await execute(job, shared, time_limit_seconds=20), Failure)
    assert site.requests == []

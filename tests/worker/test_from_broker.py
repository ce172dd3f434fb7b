"""Jobs as the broker writes them, run by the worker: what is a template is finished, and data never is."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from textwrap import dedent
from typing import Any

import pytest

from noetl_broker.broker.model import Job
from noetl_broker.broker.story import STORY_EXECUTION, play_turns, read_events
from noetl_broker.store.jobs import LeasedJob
from noetl_broker.store.rows import node_id
from noetl_broker.template import unwrap
from noetl_broker.worker.execute import Success, execute
from noetl_broker.worker.faults import Failure
from noetl_broker.worker.tools.task import Lent
from tests.stories import playbook
from tests.worker.conftest import Site

TOLD = "s3cret"
BAIT = "{{ secret.api_token }}{{ env.CITY }}"
ECHO = "def main(**given): return given"

Work = Callable[..., Awaitable[Any]]


def leased(job: Job, workload: Any) -> LeasedJob:
    """A job as a worker gets it from the queue: its action and context went through JSON, the workload was added."""
    return LeasedJob(
        queue_id=7,
        attempt=1,
        execution_id=STORY_EXECUTION,
        node_id=node_id(STORY_EXECUTION, job.step, job.visit, job.place),
        node_name=job.step,
        node_type=job.node_type,
        action=json.dumps(job.action),
        context=json.dumps({**job.context, "workload": workload}).replace("1e+308", f"{10**308}"),  # as jsonb does
        priority=job.priority,
        timeout_seconds=job.timeout,
    )


@pytest.fixture
def work(lent: Lent, site: Site) -> Work:
    """Run the last job of a story whose payload holds the bait, and give its result; URL is the site's, ECHO a code."""

    async def run(body: str, *more: str) -> Any:
        body = dedent(body).replace("URL", site.url).replace("ECHO", ECHO)
        story = "\n".join([f"> execution_start {json.dumps({'note': BAIT, 'items': [BAIT, 'b']})}", *more])
        decisions = [decision for _, decision, _ in play_turns(playbook(body), read_events(story))]
        *_, job = [job for decision in decisions for job in decision.jobs]
        workload = decisions[0].begun.workload if decisions[0].begun is not None else None
        outcome = await execute(leased(job, workload), lent, time_limit_seconds=20)
        assert isinstance(outcome, Success), outcome
        return json.loads(outcome.result)

    return run


async def test_a_field_is_finished_and_data_beside_it_is_not(work: Work, site: Site) -> None:
    """From the payload and from a result, in a field and in a body."""
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


async def test_inputs_are_finished_where_they_are_templates(work: Work) -> None:
    """A transition's data over an own template is data, and an input may read one that is a template."""
    result = await work(
        """
        workload: {note: ""}
        workflow:
        - {step: start, next: [{step: s, args: {token: "{{ secret.api_token }}", over: "{{ note }}"}}]}
        - step: s
          type: python
          code: "ECHO"
          args: {over: "{{ secret.api_token }}", auth: "Bearer {{ token }} {{ over }}", own: "{{ note }}"}
        """
    )
    assert result == {"token": TOLD, "over": BAIT, "auth": f"Bearer {TOLD} {BAIT}", "own": BAIT}


async def test_a_field_that_reads_an_unfinished_input_is_finished(work: Work, site: Site) -> None:
    """With the input's value, not with its text."""
    await work(
        """
        workflow:
        - {step: start, next: s}
        - {step: s, type: http, url: URL, args: {t: "{{ secret.api_token }}"}, headers: {A: "<{{ t }}>"}}
        """
    )
    assert site.requests[0]["headers"]["a"] == f"<{TOLD}>"


async def test_a_default_of_the_workload_is_finished_by_whoever_uses_it(work: Work, site: Site) -> None:
    """In fields, in inputs and in what a transition gives; one that the payload replaced is data."""
    result = await work(
        """
        workload: {city: "{{ env.CITY }}", place: "in {{ city }}", note: "{{ env.X }}", path: "{{ secret.api_token }}"}
        workflow:
        - {step: start, next: [{step: s, args: {given: "{{ workload.city }}", all: "{{ workload }}"}}]}
        - step: s
          type: python
          code: "ECHO"
          args: {own: "{{ place }}", note: "{{ note }}"}
          save: {storage: http, url: "URL/{{ workload.path }}", method: POST, data: {x: "{{ city }}"}}
        """
    )
    workload = {"city": "Oslo", "place": "in Oslo", "path": TOLD, "note": BAIT, "items": [BAIT, "b"]}
    assert result == {"given": "Oslo", "all": workload, "own": "in Oslo", "note": BAIT}
    [request] = site.requests
    assert (request["target"], json.loads(request["body"])) == (f"/{TOLD}", {"x": "Oslo"})


async def test_what_a_transition_hands_on_is_finished_by_the_next_worker(work: Work) -> None:
    """By name, or all of it."""
    body = """
    workflow:
    - {step: start, next: [{step: a, args: {token: "{{ secret.api_token }}", note: "{{ workload.note }}"}}]}
    - {step: a, type: python, code: x, next: [{step: s, args: WHAT}]}
    - {step: s, type: python, code: "ECHO"}
    """
    done = "> action_completed a 1"
    assert await work(body.replace("WHAT", '{t: "{{ token }}"}'), done) == {"t": TOLD}
    assert await work(body.replace("WHAT", '"{{ args }}"'), done) == {"token": TOLD, "note": BAIT}


async def test_how_a_step_ended_is_known_to_what_the_worker_finishes(work: Work) -> None:
    """Its status and its error, beside a word of the worker."""
    body = """
    workflow:
    - {step: start, next: a}
    - {step: a, type: python, code: x, on_error: continue, next: s}
    - {step: s, type: python, code: "ECHO", args: {v: "{{ env.CITY }} {{ a.status }} {{ a.error.message }} {{ a }}"}}
    """
    told = await work(body, '> action_failed a {"message": "no"}')
    assert told == {"v": "Oslo FAILED no None"}


async def test_a_save_finishes_its_templates_and_no_data(work: Work, site: Site) -> None:
    """Whatever the forms of a save are brought into."""
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
async def test_items_are_data_and_a_task_is_finished_for_each(work: Work, word: str) -> None:
    """Its own inputs and those of the step, wherever they stood."""
    body = """
    workload: {note: "", items: []}
    workflow:
    - {step: start, next: s}
    - step: s
      type: iterator
      collection: items
      element: i
      task: {type: python, code: "ECHO", WORD: {v: "{{ i }}", t: "{{ secret.api_token }}", n: "{{ note }}"}}
      args: {u: "{{ env.CITY }}", m: "{{ note }}"}
    """.replace("WORD", word)
    common = {"t": TOLD, "n": BAIT, "u": "Oslo", "m": BAIT}
    assert await work(body) == [{"v": BAIT, **common}, {"v": "b", **common}]


async def test_a_loop_chooses_by_its_own_expressions_and_by_no_data(work: Work) -> None:
    """A `where` that the broker rendered is a value, not an expression to evaluate."""
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


async def test_the_job_of_an_item_finds_its_element_beside_the_workers_words(work: Work, site: Site) -> None:
    """The broker left the string, and tells the worker what the item is called by in it."""
    await work(
        """
        workload: {note: "", items: []}
        workflow:
        - {step: start, next: [{step: s, args: {k: "{{ env.CITY }}"}}]}
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
            payload: {both: "{{ secret.api_token }} {{ i }}", item: "{{ i }}", bait: "{{ note }}"}
        """
    )
    [request] = site.requests
    assert request["target"] == "/Oslo/1"
    assert json.loads(request["body"]) == {"both": f"{TOLD} b", "item": "b", "bait": BAIT}


async def uuids(work: Work, keys: str, *more: str) -> Any:
    """What a step whose inputs read `uuid()` beside a word of the worker is given; `keys` are its others."""
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


async def test_each_id_that_a_worker_makes_is_another_one(work: Work) -> None:
    """Of each call, item and visit; another attempt makes the same ones."""
    loop = "loop: {collection: [1, 2, 3], element: n, mode: MODE}"
    one = await uuids(work, "")
    items = await uuids(work, loop.replace("MODE", "sequential"))
    second = await uuids(work, "", "> action_completed s 1")
    made = [made for given in (one, *items, second) for made in given.values()]
    assert len(set(made)) == len(made) == 10
    assert await uuids(work, "") == one
    assert await uuids(work, loop.replace("MODE", "async")) == items


async def test_an_id_among_the_inputs_is_the_one_that_is_saved(work: Work, site: Site) -> None:
    """They are finished once, for the task and its `save`."""
    given = await uuids(
        work, 'save: {storage: http, url: URL, method: POST, data: {a: "{{ a }}", r: "{{ result.a }}"}}'
    )
    [request] = site.requests
    assert json.loads(request["body"]) == {"a": given["a"], "r": given["a"]}


LIMITED = {
    "a template": 'type: http, url: URL, timeout: "{{ env.LIMIT | default(SECONDS) }}"',
    "of a workbook": "type: workbook, task: act",
}


@pytest.mark.parametrize("limited", LIMITED.values(), ids=LIMITED)
async def test_a_timeout_of_a_request_does_not_limit_the_loop_around_it(work: Work, site: Site, limited: str) -> None:
    """Where the worker finishes it, or the workbook has it: each request may take so long, and all together longer."""
    body = f"""
    workbook: [{{name: act, type: http, url: URL, timeout: SECONDS}}]
    workflow:
    - {{step: start, next: s}}
    - {{step: s, {limited}, loop: {{collection: [1, 2, 3], element: n, on_error: continue}}}}
    """
    site.pause_seconds = 0.4
    answers = await work(body.replace("SECONDS", "1"))
    assert [answer and answer["status_code"] for answer in answers] == [200, 200, 200]
    assert unwrap(await work(body.replace("SECONDS", "0.1"))) == [None, None, None]


NUMBERS = {"big": 1e16, "odd": 1.2345678901234568e17, "huge": 1e308, "long": 10**70, "minus": -0.0, "half": 0.5}
TEXT = "10000000000000000 123456789012345680 1e+308 1" + "0" * 70 + " 0.0 0.5"


async def test_a_save_sees_the_numbers_of_its_result_as_later_steps_do(work: Work, site: Site) -> None:
    """From 1e16 on jsonb gives a float back as an integer; what 256 bits do not hold stays a float."""
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


async def test_a_template_left_for_the_worker_sees_the_same_numbers(work: Work) -> None:
    """In its context, beside a word of the worker's, and in what it makes of them."""
    read = "{{ a.big }} {{ a.odd }} {{ a.huge }} {{ a.long }} {{ a.minus }} {{ a.half }}"
    told = await work(
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
    assert told == {"x": f"{TEXT} Oslo", "y": ["Oslo", 37_000_000_000_000_000]}


async def test_a_result_that_cannot_be_stored_is_not_saved(lent: Lent, site: Site) -> None:
    """Its attempt fails, and another one would save again."""
    action = {
        "name": "a",
        "type": "python",
        "code": "def main(): return {'x': '\\x00'}",
        "save": {"storage": "http", "url": site.url, "method": "POST", "data": {"x": 1}},
    }
    job = leased(Job("a", 1, "python", 0, action, {}, 5, 1, None), {})
    assert isinstance(await execute(job, lent, time_limit_seconds=20), Failure)
    assert site.requests == []

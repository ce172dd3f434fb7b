"""An input that is left for a worker sees what it would see at the broker: the inputs of the levels under its own."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from noetl_broker.broker.story import play_turns, read_events
from noetl_broker.worker.execute import Success, execute
from noetl_broker.worker.tools.task import Lent, Task
from tests.stories import playbook
from tests.worker.test_from_broker import TOLD, leased

ITEMS = ["", "distribute: true, mode: async"]


async def _seen(task: Task) -> Any:
    return {"args": dict(task.args), "url": task.action["url"], "with": task.action.get("with")}


async def seen_by(lent: Lent, step: str, body: str, story: str = "> execution_start") -> list[Any]:
    """What the tool is given for the jobs of a step, or for the items of its only one."""
    turns = list(play_turns(playbook(body), read_events(story)))
    jobs = [job for _, decision, _ in turns for job in decision.jobs if job.step == step and not job.delegated]
    begun = turns[0][1].begun
    using = replace(lent, tools={"http": _seen})
    answers = [await execute(leased(job, begun and begun.workload), using, time_limit_seconds=20) for job in jobs]
    assert all(isinstance(answer, Success) for answer in answers), answers
    results = [json.loads(answer.result) for answer in answers if isinstance(answer, Success)]
    return results[0] if results and isinstance(results[0], list) else results


OWN = """
workload: {host: db.example, p: outer}
workflow:
  - {step: start, next: [{step: call, args: {came: "%s"}}]}
  - {step: call, type: http, url: "{{ host }}/{{ p }}", %s}
"""


@pytest.mark.parametrize(
    "came, inputs, given, url",
    [
        ("1", 'args: {host: "{{ host }}:{{ env.CITY }}"}', {"host": "db.example:Oslo"}, "db.example:Oslo/outer"),
        ("1", 'with: {host: "{{ host }}:{{ env.CITY }}"}', {"host": "db.example:Oslo"}, "db.example:Oslo/outer"),
        (
            "1",
            'args: {p: inner, plain: "{{ p }}-x", q: "{{ p }}-{{ env.CITY }}"}',
            {"p": "inner", "plain": "outer-x", "q": "outer-Oslo"},
            "db.example/inner",
        ),
        (
            "1",
            'args: {p: "{{ env.CITY }}", q: "{{ p }}-{{ env.CITY }}"}',
            {"p": "Oslo", "q": "outer-Oslo"},
            "db.example/Oslo",
        ),
        (
            "1",
            'args: {p: "{{ args.keys() | list }}{{ env.CITY }}"}',
            {"p": "['came']Oslo"},
            "db.example/['came']Oslo",
        ),
        (
            "{{ secret.api_token }}",
            'args: {p: "{{ came }}-{{ p }}", q: "{{ p }}-{{ came }}"}',
            {"p": f"{TOLD}-outer", "q": f"outer-{TOLD}"},
            f"db.example/{TOLD}-outer",
        ),
    ],
)
async def test_an_input_that_is_left_sees_neither_itself_nor_its_siblings(
    lent: Lent, came: str, inputs: str, given: dict[str, Any], url: str
) -> None:
    """What it names is what it would be without the word of the worker; all that is given later sees the inputs."""
    [found] = await seen_by(lent, "call", OWN % (came, inputs))
    assert found["args"] == {"came": came.replace("{{ secret.api_token }}", TOLD), **given}
    assert found["url"] == url
    if "with" in inputs:
        assert found["with"] == given


LOOP = """
workload: {base: root}
workflow:
  - {step: start, next: [{step: call, args: {came: "%s"}}]}
  - {step: call, type: http, url: "{{ base }}", %s, args: {%s}, loop: {collection: [1, 2], element: it, DISTRIBUTE}}
"""
ITERATOR = """
workload: {base: root, top: t}
workflow:
  - {step: start, next: [{step: call, args: {came: "%s"}}]}
  - step: call
    type: iterator
    args: {%s}
    collection: [1, 2]
    element: it
    DISTRIBUTE
    task: {type: http, url: "{{ base }}", args: {%s}}
"""


@pytest.mark.parametrize("distribute", ITEMS)
@pytest.mark.parametrize("word", ["", "{{ env.CITY }}"])
async def test_an_input_of_a_loop_sees_what_a_transition_gave(lent: Lent, word: str, distribute: str) -> None:
    """Neither itself nor its siblings, whoever repeats it."""
    own = 'base: "{{ base }}/{{ it }}WORD", too: "{{ base }}{{ came }}{{ it }}WORD"'.replace("WORD", word)
    body = (LOOP % ("c", "headers: {}", own)).replace("DISTRIBUTE", distribute)
    found = await seen_by(lent, "call", body)
    city = "Oslo" if word else ""
    assert [one["url"] for one in found] == [f"root/1{city}", f"root/2{city}"]
    assert [one["args"]["too"] for one in found] == [f"rootc1{city}", f"rootc2{city}"]


@pytest.mark.parametrize("distribute", ITEMS[:1])
@pytest.mark.parametrize("word", ["", "{{ env.CITY }}"])
@pytest.mark.parametrize("came", ["c", "{{ env.CITY }}"])
async def test_an_input_of_a_task_sees_those_of_its_step(lent: Lent, came: str, word: str, distribute: str) -> None:
    """Also one that it overrides; and an own input of the step sees what a transition gave."""
    step = 'base: step, also: "{{ base }}{{ came }}WORD", top: "{{ top }}"'
    task = 'base: "{{ base }}/{{ it }}WORD", more: "{{ base }}-{{ also }}-{{ it }}WORD"'
    body = (ITERATOR % (came, step, task)).replace("WORD", word)
    body = body.replace("DISTRIBUTE", distribute.replace(", ", "\n    "))
    found = await seen_by(lent, "call", body)
    city, told = "Oslo" if word else "", "Oslo" if came != "c" else "c"
    for index, one in enumerate(found, 1):
        assert one["url"] == one["args"]["base"] == f"step/{index}{city}"
        assert one["args"]["also"] == f"root{told}{city}"
        assert one["args"]["more"] == f"step-root{told}{city}-{index}{city}"
        assert one["args"]["top"] == "t"
    assert len(found) == 2


async def test_a_collection_reads_an_input_that_was_left(lent: Lent) -> None:
    """As its value, not as its text."""
    body = (ITERATOR % ("{{ env.CITY }}", "base: b", "")).replace("[1, 2]", '"{{ came | list }}"')
    assert len(await seen_by(lent, "call", body.replace("DISTRIBUTE", ""))) == len("Oslo")

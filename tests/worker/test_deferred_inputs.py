"""What a deferred input sees at the worker: the rendered inputs of its visit."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from noetl_broker.broker.model.effects import ExecutionBegun
from noetl_broker.history.story import play_turns, read_events
from noetl_broker.playbook import PlaybookError
from noetl_broker.worker.executor import Success, execute
from noetl_broker.worker.tools.task import Task, WorkerResources
from tests.stories import playbook
from tests.worker.test_jobs_of_broker import leased

ITEMS = ["", "distribute: true, mode: async"]


async def _seen(task: Task) -> Any:
    return {"args": dict(task.args), "url": task.action["url"], "with": task.action.get("with")}


async def seen_by(shared: WorkerResources, step: str, body: str, story: str = "> execution_start") -> list[Any]:
    """Give the tool's inputs for the jobs of a step, or for the items of its only job."""
    turns = list(play_turns(playbook(body), read_events(story)))
    jobs = [job for _, decision, _ in turns for job in decision.jobs if job.step == step and not job.delegated]
    begun = turns[0][1].last(ExecutionBegun)
    using = replace(shared, tools={"http": _seen})
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
            'args: {p: "{{ env.CITY }}", q: "{{ workload.p }}-{{ env.CITY }}-{{ came }}{{ args.came }}"}',
            {"p": "Oslo", "q": "outer-Oslo-11"},
            "db.example/Oslo",
        ),
    ],
)
async def test_a_deferred_input_sees_what_a_transition_gave_and_not_itself(
    shared: WorkerResources, came: str, inputs: str, given: dict[str, Any], url: str
) -> None:
    """The fields see all inputs."""
    [found] = await seen_by(shared, "call", OWN % (came, inputs))
    assert found["args"] == {"came": came, **given}
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
async def test_an_input_of_a_loop_sees_what_a_transition_gave(
    shared: WorkerResources, word: str, distribute: str
) -> None:
    """Not itself, whoever iterates."""
    own = 'base: "{{ workload.base }}/{{ it }}WORD", too: "{{ workload.base }}{{ came }}{{ it }}WORD"'
    own = own.replace("WORD", word)
    body = (LOOP % ("c", "headers: {}", own)).replace("DISTRIBUTE", distribute)
    found = await seen_by(shared, "call", body)
    city = "Oslo" if word else ""
    assert [one["url"] for one in found] == [f"root/1{city}", f"root/2{city}"]
    assert [one["args"]["too"] for one in found] == [f"rootc1{city}", f"rootc2{city}"]


@pytest.mark.parametrize("distribute", ITEMS)
@pytest.mark.parametrize("word", ["", "{{ env.CITY }}"])
async def test_an_input_of_a_task_sees_those_of_its_step(shared: WorkerResources, word: str, distribute: str) -> None:
    """The step's own input sees the inputs of the transition."""
    step = 'root: step, also: "{{ base }}{{ came }}", top: "{{ top }}"'
    task = 'one: "{{ root }}/{{ it }}WORD", more: "{{ root }}-{{ also }}-{{ it }}WORD"'
    body = (ITERATOR % ("c", step, task)).replace("WORD", word)
    body = body.replace("DISTRIBUTE", distribute.replace(", ", "\n    "))
    found = await seen_by(shared, "call", body)
    city = "Oslo" if word else ""
    for index, one in enumerate(found, 1):
        assert one["args"]["one"] == f"step/{index}{city}"
        assert one["args"]["also"] == "rootc"
        assert one["args"]["more"] == f"step-rootc-{index}{city}"
        assert one["args"]["top"] == "t"
    assert len(found) == 2


async def test_an_input_of_a_task_sees_the_one_that_it_replaces(shared: WorkerResources) -> None:
    """If one worker iterates the task; the job of one item does not have both."""
    task = 'base: "{{ base.a }}/{{ it }}{{ env.CITY }}", top: "{{ args.top }}{{ args.base.b }}{{ it }}{{ env.CITY }}"'
    body = ITERATOR % ("c", "base: {a: step, b: 2}, top: own", task)
    found = await seen_by(shared, "call", body.replace("DISTRIBUTE", ""))
    assert [one["url"] for one in found] == ["step/1Oslo", "step/2Oslo"]
    assert [one["args"]["top"] for one in found] == ["own21Oslo", "own22Oslo"]
    with pytest.raises(PlaybookError, match="reads `base`, and an input does not see those of its own level"):
        playbook(body.replace("DISTRIBUTE", "distribute: true"))

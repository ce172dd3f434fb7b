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


@pytest.mark.parametrize("distribute", ITEMS)
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


HANDED = """
workload: {name: workload, d: "{{ env.CITY }}", e: "{{ env.CITY }}"}
workflow:
  - {step: start, next: [{step: ask, args: %s}]}
  - {step: ask, type: http, url: "x", next: [{step: tell, args: %s}]}
  - {step: tell, type: http, url: "x", args: {city: Bonn, name: tell, q: other}}
"""
DONE = '\n> action_completed ask {"said": "{{ env.CITY }}"}'


@pytest.mark.parametrize(
    "came, text, line",
    [
        ("{city: Rome}", "{{ city }} {{ env.CITY }}", "Rome Oslo"),
        ("{city: Rome}", "{{ args.city }} {{ env.CITY }}", "Rome Oslo"),
        ("{city: Rome}", "{{ city ~ env.CITY ~ name ~ this.said }}", "RomeOsloworkload{{ env.CITY }}"),
        ("{city: Rome}", "{{ q | default('none') }} {{ env.CITY }}", "none Oslo"),
        ('{city: {a: [1, "{{ env.CITY }}"], b: 2}}', "{{ [city.a[0], city.b, env.CITY] }}", [1, 2, "Oslo"]),
        ("{city: Rome}", "{{ city }} {{ d }}", "Rome Oslo"),
        ("{q: '{{ 7 }}'}", "{{ q }} {{ d }}", "7 Oslo"),
        ("{q: 7, t: '{{ env.CITY }}'}", "{{ q }} {{ env.CITY }}{{ t is defined }}", "7 OsloTrue"),
    ],
)
@pytest.mark.parametrize("key", ["line", "city", "name"])
async def test_a_transitions_input_sees_what_it_leaves(lent: Lent, came: str, text: str, line: Any, key: str) -> None:
    """Under whatever name it arrives, and whatever the next step's inputs are called: their values went with it."""
    given = f'{{{key}: "{text}", result: "{{{{ result.said }}}}"}}'
    [found] = await seen_by(lent, "tell", HANDED % (came, given), f"> execution_start{DONE}")
    assert found["args"] == {"city": "Bonn", "name": "tell", "q": "other", "result": "{{ env.CITY }}", key: line}


async def test_a_large_input_leaves_behind_what_is_not_read(lent: Lent) -> None:
    """Of a mapping only the keys that the text names travel."""
    text = "{{ city.a.b }} {{ city.gone is defined }} {{ city.c is defined }} {{ env.CITY }}"
    body = HANDED % ('"{{ workload.big }}"', f'{{line: "{text}"}}')
    big = {"city": {"a": {"b": 1, "c": "x" * 90_000}, "c": {}, "d": "x" * 90_000}}
    story = f"> execution_start {json.dumps({'big': big})}{DONE}"
    [found] = await seen_by(lent, "tell", body, story)
    assert found["args"]["line"] == "1 False True Oslo"


async def test_what_a_router_hands_on_sees_the_inputs_of_the_router(lent: Lent) -> None:
    """Through one after the other, each with inputs of the same name."""
    body = """
    workflow:
      - {step: start, args: {a: 1}, next: [{step: one, args: {a: "{{ a }}{{ env.CITY }}", b: "{{ a }}"}}]}
      - {step: one, args: {a: 3}, next: [{step: tell, args: {a: "{{ a }}", c: "{{ b }}{{ env.CITY }}"}}]}
      - {step: tell, type: http, url: x, args: {b: 2, d: "{{ a }}{{ c }}{{ b | default(9) }}"}}
    """
    [found] = await seen_by(lent, "tell", body)
    assert found["args"] == {"a": "1Oslo", "c": "1Oslo", "b": 2, "d": "1Oslo1Oslo9"}


@pytest.mark.parametrize("distribute", ITEMS)
async def test_an_input_of_a_task_sees_the_one_that_it_hides(lent: Lent, distribute: str) -> None:
    """Beside a word of the worker too, by its name and as one of `args`."""
    task = 'base: "{{ base.a }}/{{ it }}{{ env.CITY }}", top: "{{ args.top }}{{ args.base.b }}{{ it }}{{ env.CITY }}"'
    body = ITERATOR % ("c", "base: {a: step, b: 2}, top: own", task)
    found = await seen_by(lent, "call", body.replace("DISTRIBUTE", distribute.replace(", ", "\n    ")))
    assert [one["url"] for one in found] == ["step/1Oslo", "step/2Oslo"]
    assert [one["args"]["top"] for one in found] == ["own21Oslo", "own22Oslo"]

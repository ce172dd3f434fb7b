"""A worker that iterates goes through the items that the broker would: `distribute: true` changes who works alone."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from noetl_broker.broker.model import JSON
from noetl_broker.broker.story import play_turns, read_events
from noetl_broker.worker.execute import Success, execute
from noetl_broker.worker.faults import Failure
from noetl_broker.worker.tools.task import Lent, Task
from tests.broker.test_chosen_items import ABOUT_ITEMS, CHOSEN, EACH, ENTERED_WITH, WRONG
from tests.stories import playbook
from tests.worker.test_from_broker import leased


async def iterated(lent: Lent, keys: str) -> Success | Failure | str:
    """Give what a worker makes of the job; the message, where the broker already sees that there cannot be one."""
    compiled = playbook(EACH.format(keys=keys.replace(" | ", "\n  "), shown="n", task="type: http, url: x"))
    [(_, decision, _)] = play_turns(compiled, read_events("> execution_start"))
    if not decision.jobs:
        return str(decision.events[-1].error)
    job = decision.jobs[0]
    task = {**job.action["task"], "type": "noop"}  # which answers with its inputs
    return await execute(leased(job._replace(action={**job.action, "task": task}), {}), lent, time_limit_seconds=20)


@pytest.mark.parametrize("keys, items", CHOSEN)
async def test_the_items_are_those_that_the_broker_chooses(lent: Lent, keys: str, items: JSON) -> None:
    """In the same order, with the same names in the same order."""
    done = await iterated(lent, keys)
    assert isinstance(done, Success), done
    results: list[dict[str, Any]] = json.loads(done.result)
    assert json.dumps([result["it"] for result in results]) == json.dumps(items)


@pytest.mark.parametrize("keys, items", ABOUT_ITEMS)
async def test_an_item_hides_an_input_of_its_name_for_the_worker_too(lent: Lent, keys: str, items: JSON) -> None:
    """Where items are chosen; `args` still has the input."""
    [(_, decision, _)] = play_turns(playbook(ENTERED_WITH.format(keys=keys)), read_events("> execution_start"))
    job = decision.jobs[0]._replace(node_type="noop")
    done = await execute(leased(job._replace(action={**job.action, "type": "noop"}), {}), lent, time_limit_seconds=20)
    assert isinstance(done, Success), done
    assert len(json.loads(done.result)) == len(items)


NAMED_AS_A_WORD = """
workflow:
- {step: start, next: job}
- {step: job, type: http, url: x, next: each}
- {step: env, type: http, url: x, next: each}
- step: each
  type: http
  args: {it: "{{ n }}"}
  loop: {distribute: DISTRIBUTE, collection: [3, 1, 2], element: n, KEYS}
"""


@pytest.mark.parametrize(
    "keys, items",
    [
        ("where: n > job.least", [3, 2]),
        ("where: n > results.job.least", [3, 2]),
        ("order_by: n * job.least", [1, 2, 3]),
        ("where: n > 1 and env is defined", []),
        ("where: n > 1 and env is not defined", [3, 2]),
    ],
)
async def test_a_step_of_a_worker_s_word_chooses_items_for_the_worker_too(lent: Lent, keys: str, items: JSON) -> None:
    """By its name; one that never ran is undefined, though the worker knows such a word."""

    def decided(distribute: str) -> Any:
        body = NAMED_AS_A_WORD.replace("DISTRIBUTE", distribute).replace("KEYS", keys)
        story = read_events('> execution_start\n> action_completed job {"least": 1}')
        *_, (_, decision, _) = play_turns(playbook(body), story)
        return decision

    assert [chosen.values for chosen in decided("true").items] == [items]
    job = decided("false").jobs[0]._replace(node_type="noop")
    done = await execute(leased(job._replace(action={**job.action, "type": "noop"}), {}), lent, time_limit_seconds=20)
    assert isinstance(done, Success), done
    assert [result["it"] for result in json.loads(done.result)] == items


@pytest.mark.parametrize("keys, message", WRONG)
async def test_what_the_broker_cannot_iterate_the_worker_cannot_either(lent: Lent, keys: str, message: str) -> None:
    """In the same words, and it is not tried again."""
    done = await iterated(lent, keys)
    told = done if isinstance(done, str) else done.error["message"] if isinstance(done, Failure) else "it went through"
    assert message in told
    assert not isinstance(done, Failure) or not done.retryable


GIVEN = """
workload: {users: [{id: 7}], id: WORKLOAD, opts: {a: 5, o: 5}, extra: {x: 1}}
workbook: [{name: act, type: http, url: "x/{{ a }}{{ b }}", with: {a: 1, b: 1}}]
workflow:
- {step: start, next: [{step: each, args: {of: transition}}]}
- step: each
  type: iterator
  collection: users
  element: user
  args: {k: step, own: 1}
  DISTRIBUTE
  task: {TASK}
"""
FETCH = "type: workbook, task: act"


async def seen(item: Task) -> Any:
    """What a task's tool is given, as its answer."""
    return {"inputs": dict(item.args), "list": item.action.get("args"), **item.action}


async def seen_by_items(lent: Lent, task: str, distribute: str) -> list[Any]:
    """What is given to the task of each item, whoever repeats it."""
    return await given_to_items(lent, GIVEN.replace("DISTRIBUTE", distribute).replace("TASK", task), distribute)


async def given_to_items(lent: Lent, body: str, distribute: str) -> list[Any]:
    """What is given to the task of each item of a playbook's first step."""
    [(_, decision, _)] = play_turns(playbook(body), read_events("> execution_start"))
    using = replace(lent, tools={"http": seen, "container": seen, "postgres": seen})
    jobs = [job for job in decision.jobs if not job.delegated]
    workload = decision.begun.workload if decision.begun is not None else None
    answers = [await execute(leased(job, workload), using, time_limit_seconds=20) for job in jobs]
    results: list[Any] = [json.loads(done.result) for done in answers if isinstance(done, Success)]
    return results if distribute else [*results[0]]


@pytest.mark.parametrize(
    "task, url, own",
    [
        (f'{FETCH}, args: {{b: "{{{{ user.id }}}}"}}', "x/17", {"a": 1, "b": 7}),
        (f'{FETCH}, with: {{b: "{{{{ user.id }}}}"}}', "x/17", {"a": 1, "b": 7}),
        (f'{FETCH}, with: {{b: 2, d: "{{{{ user.id }}}}"}}, args: {{b: 3}}', "x/13", {"a": 1, "b": 3, "d": 7}),
        (f'{FETCH}, data: "{{{{ opts }}}}"', "x/51", {"a": 5, "b": 1, "o": 5}),
        (f'{FETCH}, data: "{{{{ opts }}}}", args: {{a: "{{{{ user.id }}}}"}}', "x/71", {"a": 7, "b": 1, "o": 5}),
        ('type: http, args: {id: "{{ user.id }}"}, url: "x/{{ id }}"', "x/7", {"id": 7}),
        ('type: http, args: {id: "{{ user.id }}"}, url: "x/{{ args.id }}"', "x/7", {"id": 7}),
        ('type: http, args: {k: "task-{{ user.id }}"}, url: "x/{{ k }}"', "x/task-7", {"k": "task-7"}),
        ('type: http, args: {k: task}, url: "x/{{ k }}/{{ own }}"', "x/task/1", {"k": "task"}),
        ('type: http, args: {k: task, of: "{{ k }}/{{ id }}"}, url: "x/{{ of }}"', "x/step/WORKLOAD", None),
        ('type: container, args: [a], data: {n: "{{ user.id }}"}, url: "x/{{ k }}/{{ n }}"', "x/step/7", {"n": 7}),
        ('type: http, url: "x/{{ k }}/{{ id }}/{{ user.id }}"', "x/step/WORKLOAD/7", {}),
    ],
)
@pytest.mark.parametrize("distribute", ["", "distribute: true"])
async def test_a_task_is_given_its_inputs_and_its_fields_see_them(
    lent: Lent, distribute: str, task: str, url: str, own: dict[str, Any] | None
) -> None:
    """Workbook action < task, key by key, over the inputs of the step."""
    [found] = await seen_by_items(lent, task, distribute)
    assert found["url"] == url
    if own is not None:
        assert found["inputs"] == {"of": "transition", "k": "step", "own": 1, **own}
    if "container" in task:
        assert found["list"] == ["a"]


@pytest.mark.parametrize(
    "unread",
    [
        'retry: {retry_when: "{{ status_code == 503 }}"}',
        'desc: "{{ of }}"',
        'next: [{when: "{{ act.ok }}", step: each}]',
        "join: '{{ act }}'",
        "on_error: '{{ error }}'",
    ],
)
@pytest.mark.parametrize("where", ["task", "workbook"])
@pytest.mark.parametrize("distribute", ["", "distribute: true"])
async def test_what_is_not_read_in_a_task_is_not_rendered(lent: Lent, distribute: str, where: str, unread: str) -> None:
    """Neither in it nor in its workbook action: `retry` there speaks of what no item knows."""
    action = f"{{name: act, type: http, url: x{', ' + unread if where == 'workbook' else ''}}}"
    task = FETCH if where == "workbook" else f"type: http, url: x, {unread}"
    body = f"""
    workbook: [{action}]
    workflow:
    - {{step: start, next: each}}
    - step: each
      type: iterator
      collection: [1]
      element: n
      {distribute}
      task: {{{task}}}
    """
    assert [found["url"] for found in await given_to_items(lent, body, distribute)] == ["x"]


@pytest.mark.parametrize(
    "keys",
    [
        "loop: {collection: rows, element: n, where: n > 1, order_by: 0 - n}",
        "loop: {collection: rows, element: n, where: n > 1, order_by: 0 - n, limit: } | limit: 9 | where: no",
        'loop: {where: n > 1, order_by: "{{ 0 - n }}"} | collection: rows | element: n',
    ],
)
@pytest.mark.parametrize("distribute", ["", "distribute: true"])
async def test_the_keys_of_an_iterator_may_stand_in_its_loop(lent: Lent, distribute: str, keys: str) -> None:
    """Some of them or all; there they are over those of the step."""
    body = f"""
    workload: {{rows: [1, 2, 3]}}
    workflow:
    - {{step: start, next: each}}
    - step: each
      type: iterator
      mode: async
      {distribute}
      task: {{type: http, url: "x/{{{{ n }}}}"}}
      {keys.replace(" | ", chr(10) + "      ")}
    """
    assert [found["url"] for found in await given_to_items(lent, body, distribute)] == ["x/3", "x/2"]


@pytest.mark.parametrize(
    "task, said",
    [
        ('with: "{{ more }}", args: {id: "{{ n }}"}', {}),
        ('method: POST, with: "{{ more }}", args: {id: "{{ n }}"}, input: {id: 0, k: 1}', {}),
        ('with: "{{ more }}", data: {id: "{{ n }}"}', {"data": {"id": 1}}),
        ('data: "{{ more }}", args: {id: "{{ n }}"}', {"data": {"a": 1}}),
        ('data: {id: "{{ n }}"}, args: {k: 1}', {"data": {"id": 1}}),
        ('data: {id: "{{ n }}"}, with: {id: 0}, args: {k: 1}', {"data": {"id": 1}}),
        ('type: postgres, with: "{{ less }}", input: "{{ more }}", args: {id: "{{ n }}"}', {"data": {"a": 1}}),
    ],
)
async def test_inputs_are_told_under_no_word_that_is_the_tasks_own(lent: Lent, task: str, said: dict[str, Any]) -> None:
    """`data` is what http sends and `params` are the values of SQL, only where the author says so."""
    typed = task if "type" in task else f"type: http, {task}"
    body = f"""
    workload: {{more: {{a: 1}}, less: {{a: 0}}}}
    workflow:
    - {{step: start, next: each}}
    - {{step: each, type: iterator, collection: [1], element: n, task: {{url: x, {typed}}}}}
    """
    [found] = await given_to_items(lent, body, "")
    assert {key: found[key] for key in ("data", "params", "payload") if key in found} == said
    assert found["inputs"]["a" if "more" in task else "id"] == 1

"""A worker iterates the same items as the broker: `distribute: true` only changes who iterates."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from noetl_broker.broker.model.effects import ExecutionBegun, ItemsChosen
from noetl_broker.broker.model.values import JSON
from noetl_broker.history.story import play_turns, read_events
from noetl_broker.worker.errors import Failure
from noetl_broker.worker.executor import Success, execute
from noetl_broker.worker.tools.task import Task, WorkerResources
from tests.broker.test_chosen_items import ABOUT_ITEMS, CHOSEN, EACH, ENTERED_WITH, WRONG
from tests.stories import playbook
from tests.worker.test_jobs_of_broker import leased


async def iterated(shared: WorkerResources, keys: str) -> Success | Failure | str:
    """Give the worker's result of the job; the message, if the broker already refuses it."""
    compiled = playbook(EACH.format(keys=keys.replace(" | ", "\n  "), expression="n", task="type: http, url: x"))
    [(_, decision, _)] = play_turns(compiled, read_events("> execution_start"))
    if not decision.jobs:
        return str(decision.events[-1].error)
    job = decision.jobs[0]
    task = {**job.action["task"], "type": "noop"}  # which answers with its inputs
    return await execute(leased(job._replace(action={**job.action, "task": task}), {}), shared, time_limit_seconds=20)


@pytest.mark.parametrize("keys, items", CHOSEN)
async def test_the_worker_chooses_the_same_items_as_the_broker(shared: WorkerResources, keys: str, items: JSON) -> None:
    """In the same order."""
    done = await iterated(shared, keys)
    assert isinstance(done, Success), done
    results: list[dict[str, Any]] = json.loads(done.result)
    assert json.dumps([result["it"] for result in results]) == json.dumps(items)


@pytest.mark.parametrize("keys, items", ABOUT_ITEMS)
async def test_an_item_hides_an_input_of_its_name_in_the_worker_too(
    shared: WorkerResources, keys: str, items: JSON
) -> None:
    """While items are chosen; `args` still has the input."""
    [(_, decision, _)] = play_turns(playbook(ENTERED_WITH.format(keys=keys)), read_events("> execution_start"))
    job = decision.jobs[0]._replace(node_type="noop")
    done = await execute(leased(job._replace(action={**job.action, "type": "noop"}), {}), shared, time_limit_seconds=20)
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
async def test_a_condition_reads_a_step_that_is_named_like_a_worker_word(
    shared: WorkerResources, keys: str, items: JSON
) -> None:
    """A step that never ran is undefined, though the worker defines such a word."""

    def decided(distribute: str) -> Any:
        body = NAMED_AS_A_WORD.replace("DISTRIBUTE", distribute).replace("KEYS", keys)
        story = read_events('> execution_start\n> action_completed job {"least": 1}')
        *_, (_, decision, _) = play_turns(playbook(body), story)
        return decision

    assert [chosen.values for chosen in decided("true").of(ItemsChosen)] == [items]
    job = decided("false").jobs[0]._replace(node_type="noop")
    done = await execute(leased(job._replace(action={**job.action, "type": "noop"}), {}), shared, time_limit_seconds=20)
    assert isinstance(done, Success), done
    assert [result["it"] for result in json.loads(done.result)] == items


@pytest.mark.parametrize("keys, message", WRONG)
async def test_the_worker_refuses_the_same_collections_as_the_broker(
    shared: WorkerResources, keys: str, message: str
) -> None:
    """With the same message, and without a retry."""
    done = await iterated(shared, keys)
    outcome = (
        done if isinstance(done, str) else done.error["message"] if isinstance(done, Failure) else "it went through"
    )
    assert message in outcome
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
    """Return the inputs of a task's tool as its answer."""
    return {"inputs": dict(item.args), "list": item.action.get("args"), **item.action}


async def seen_by_items(shared: WorkerResources, task: str, distribute: str) -> list[Any]:
    """Give the inputs of the task of each item, whoever iterates."""
    return await given_to_items(shared, GIVEN.replace("DISTRIBUTE", distribute).replace("TASK", task), distribute)


async def given_to_items(shared: WorkerResources, body: str, distribute: str) -> list[Any]:
    """Give the inputs of the task of each item of a playbook's first step."""
    [(_, decision, _)] = play_turns(playbook(body), read_events("> execution_start"))
    using = replace(shared, tools={"http": seen, "container": seen, "postgres": seen})
    jobs = [job for job in decision.jobs if not job.delegated]
    [workload] = [begun.workload for begun in decision.of(ExecutionBegun)]
    answers = [await execute(leased(job, workload), using, time_limit_seconds=20) for job in jobs]
    results: list[Any] = [json.loads(done.result) for done in answers if isinstance(done, Success)]
    return results if distribute or jobs[0].item_index is not None else [*results[0]]


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
async def test_a_task_gets_its_inputs_and_its_fields_see_them(
    shared: WorkerResources, distribute: str, task: str, url: str, own: dict[str, Any] | None
) -> None:
    """The task overrides its workbook action, which overrides the inputs of the step."""
    [found] = await seen_by_items(shared, task, distribute)
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
async def test_unused_keys_of_a_task_are_not_rendered(
    shared: WorkerResources, distribute: str, where: str, unread: str
) -> None:
    """Also those of its workbook action: `retry` there reads names that an item does not have."""
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
    assert [found["url"] for found in await given_to_items(shared, body, distribute)] == ["x"]


@pytest.mark.parametrize(
    "keys",
    [
        "loop: {collection: rows, element: n, where: n > 1, order_by: 0 - n}",
        "loop: {collection: rows, element: n, where: n > 1, order_by: 0 - n, limit: } | limit: 9 | where: no",
        'loop: {where: n > 1, order_by: "{{ 0 - n }}"} | collection: rows | element: n',
    ],
)
@pytest.mark.parametrize("distribute", ["", "distribute: true"])
async def test_the_keys_of_an_iterator_may_be_in_its_loop(shared: WorkerResources, distribute: str, keys: str) -> None:
    """Some or all; they override those of the step."""
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
    assert [found["url"] for found in await given_to_items(shared, body, distribute)] == ["x/3", "x/2"]


@pytest.mark.parametrize(
    "task, expected_keys",
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
async def test_inputs_do_not_become_keys_of_the_tool(
    shared: WorkerResources, task: str, expected_keys: dict[str, Any]
) -> None:
    """The http tool sends `data` and SQL gets `params` only if the playbook says so."""
    typed = task if "type" in task else f"type: http, {task}"
    body = f"""
    workload: {{more: {{a: 1}}, less: {{a: 0}}}}
    workflow:
    - {{step: start, next: each}}
    - {{step: each, type: iterator, collection: [1], element: n, task: {{url: x, {typed}}}}}
    """
    [found] = await given_to_items(shared, body, "")
    assert {key: found[key] for key in ("data", "params", "payload") if key in found} == expected_keys
    assert found["inputs"]["a" if "more" in task else "id"] == 1

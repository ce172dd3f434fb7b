"""Iterating in the worker: which items, in which order, and their results."""

from __future__ import annotations

import base64
import dataclasses
from typing import Any

import pytest

from noetl_broker.worker.tools.task import WorkerResources
from tests.worker.conftest import Perform, failed

ECHO = "def main(**given): return given"


def iterator(items: Any, task: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Make an action that iterates a task, by default an echo of the item."""
    task = task or {"type": "python", "code": ECHO, "args": {"x": "{{ item }}", "at": "{{ _loop.index }}"}}
    return {"type": "iterator", "collection": items, "element": "item", "task": task, **more}


async def test_a_task_runs_for_each_item(perform: Perform) -> None:
    """Results are ordered by index; the task's inputs override those of the step."""
    result = await perform(iterator(["a", "b"], args={"x": "no", "y": 1}))
    assert result == [{"x": "a", "at": 0, "y": 1}, {"x": "b", "at": 1, "y": 1}]


@pytest.mark.parametrize("mode", ["sequential", "async"])
async def test_a_loop_repeats_a_step_of_any_type(perform: Perform, mode: str) -> None:
    """The other form: a `loop` beside the keys of the task."""
    action = {
        "type": "python",
        "code_b64": base64.b64encode(ECHO.encode()).decode(),
        "args": {"v": "{{ n * 2 }}"},
        "loop": {"collection": [1, 2, 3], "element": "n", "mode": mode},
    }
    assert await perform(action) == [{"v": 2}, {"v": 4}, {"v": 6}]


@pytest.mark.parametrize(
    "more, expected",
    [
        ({"where": "{{ item > 1 }}"}, [3, 2]),
        ({"where": "item > 1", "order_by": "item"}, [2, 3]),
        ({"limit": 2}, [3, 1]),
        ({"chunk": 2}, [[3, 1], [2]]),
        ({"enumerate": True, "limit": 1}, [{"index": 0, "item": 3}]),
    ],
)
async def test_items_are_chosen_before_the_task_runs(perform: Perform, more: dict[str, Any], expected: Any) -> None:
    """By `where`, `order_by`, `limit`, `enumerate`, `chunk`."""
    result = await perform(iterator([3, 1, 2], {"type": "noop", "args": {"x": "{{ item }}"}}, **more))
    assert [one["x"] for one in result] == expected


async def test_a_mapping_is_iterated_as_key_and_value(perform: Perform) -> None:
    """An empty collection gives an empty list."""
    task = {"type": "noop", "args": {"x": "{{ item }}"}}
    assert await perform(iterator({"a": 1}, task)) == [{"x": {"key": "a", "value": 1}}]
    assert await perform(iterator([], task)) == []


async def test_items_are_data_and_no_templates(perform: Perform) -> None:
    """Even if their text looks like a template."""
    task = {"type": "noop", "args": {"x": "{{ item }}"}}
    assert await perform(iterator(["{{ env.HOME }}"], task)) == [{"x": "{{ env.HOME }}"}]


async def test_an_iterator_tolerates_some_failures(perform: Perform) -> None:
    """One more fails it, and the rest does not run."""
    task = {
        "type": "python",
        "code": "def main(x):\n    if x == 0:\n        raise KeyError(x)\n    return x",
        "args": {"x": "{{ item }}"},
    }
    result = await perform(iterator([0, 1, 2, 3], task, tolerate="25%"))
    assert result["data"] == [None, 1, 2, 3]
    error = failed(await perform(iterator([1, 0, 0, 1], task, tolerate=1)))
    assert (error["type"], error["index"]) == ("too_many_items_failed", 2)
    assert error["message"].startswith("2 of 4 items failed, and tolerate is 1; item 2: ")


async def test_a_failed_item_fails_the_step_or_is_null(perform: Perform) -> None:
    """The error has the index; with `on_error: continue` the item is listed beside the results."""
    task = {"type": "python", "code": "def main(x): return 1 // x", "args": {"x": "{{ item }}"}}
    error = failed(await perform(iterator([1, 0, 2], task)))
    assert (error["type"], error["index"]) == ("ZeroDivisionError", 1)
    result = await perform(iterator([1, 0, 1], task, on_error="continue"))
    [entry] = result["meta"].pop("failed")
    assert result == {"data": [1, None, 1], "meta": {}}
    assert (entry["index"], entry["error"]["type"]) == (1, "ZeroDivisionError")
    assert await perform(iterator([1, 1], task, on_error="continue")) == [1, 1]


async def test_errors_of_failed_items_are_redacted(perform: Perform) -> None:
    """Like the error of a job."""
    code = "def main(x): raise ValueError('it was ' + x)"
    task = {"type": "python", "code": code, "args": {"x": "{{ secret.api_token }}"}}
    result = await perform(iterator([1], task, on_error="continue"))
    assert [one["error"]["message"] for one in result["meta"]["failed"]] == ["it was [secret]"]


async def test_the_save_of_an_iterator_can_read_the_failed_items(perform: Perform) -> None:
    """Like a later step."""
    code = "def main(x): return 1 // x"
    task = {"type": "python", "code": code, "args": {"x": "{{ item }}"}}
    save = {
        "storage": "python",
        "code": "def main(data): raise ValueError(str(data))",
        "data": "{{ result.failed | length }}",
    }
    assert failed(await perform(iterator([1, 0, 0], task, on_error="continue", save=save)))["message"] == "2"


async def test_errors_of_very_many_failed_items_are_null(perform: Perform) -> None:
    """So that the result stays within its limit. All failed items are listed."""
    task = {"type": "noop_not_there"}
    result = await perform(iterator([*range(5000)], task, on_error="continue"))
    failed = result["meta"]["failed"]
    assert [one["index"] for one in failed] == [*range(5000)]
    assert failed[0]["error"]["type"] == "unknown_type"
    assert failed[-1]["error"] is None


@pytest.mark.parametrize("given", ["{{ item }}", ["a"]])
async def test_inputs_of_a_task_that_are_no_mapping_fail_the_step(perform: Perform, given: Any) -> None:
    """The task does not run."""
    error = failed(await perform(iterator([{"x": 1}], {"type": "noop", "data": given})))
    what = "a string" if isinstance(given, str) else "a list"
    assert error["message"] == f"the inputs of the iterator's task must be a mapping, its `data` is {what}"


@pytest.mark.parametrize("more", [{}, {"collection": [1], "limit": "{{ secret.api_token }}"}])
async def test_an_excerpt_of_a_wrong_collection_shows_no_part_of_a_secret(
    perform: Perform, shared: WorkerResources, more: dict[str, Any]
) -> None:
    """It is redacted before it is cut."""
    key = "".join(map(chr, range(35, 91))) * 3
    using = dataclasses.replace(shared, environment={**shared.environment, "NOETL_SECRET_API_TOKEN": key})
    message = failed(await perform(iterator("{{ secret.api_token }}", **more), using=using))["message"]
    assert message.endswith('it is "[secret]… (170 characters)')


async def test_the_error_of_a_template_shows_no_part_of_a_secret(perform: Perform, shared: WorkerResources) -> None:
    """It is redacted before it is cut."""
    key = "".join(map(chr, range(48, 91))) * 10
    using = dataclasses.replace(shared, environment={**shared.environment, "NOETL_SECRET_API_TOKEN": key})
    action = {"type": "noop", "args": {"x": "{{ [1] | map(secret.api_token) | list }}"}}
    assert "No filter named '[secret]…" in failed(await perform(action, using=using))["message"]

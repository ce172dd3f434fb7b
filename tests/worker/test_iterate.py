"""Iterating in the worker: which items, in which order, and what comes of them."""

from __future__ import annotations

import base64
import dataclasses
from typing import Any

import pytest

from noetl_broker.worker.tools.task import Lent
from tests.worker.conftest import Perform, failed

ECHO = "def main(**given): return given"


def iterator(items: Any, task: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Make an action that iterates a task, an echo of the item by default."""
    task = task or {"type": "python", "code": ECHO, "args": {"x": "{{ item }}", "at": "{{ _loop.index }}"}}
    return {"type": "iterator", "collection": items, "element": "item", "task": task, **more}


async def test_a_task_runs_for_each_item(perform: Perform) -> None:
    """Results stand by index; the step's inputs are under the task's."""
    result = await perform(iterator(["a", "b"], args={"x": "no", "y": 1}))
    assert result == [{"x": "a", "at": 0, "y": 1}, {"x": "b", "at": 1, "y": 1}]


@pytest.mark.parametrize("mode", ["sequential", "async"])
async def test_a_loop_of_any_type_repeats_it(perform: Perform, mode: str) -> None:
    """The other form: a `loop` beside the task's own keys."""
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
async def test_items_are_chosen_before(perform: Perform, more: dict[str, Any], expected: Any) -> None:
    """`where`, `order_by`, `limit`, `enumerate`, `chunk`."""
    result = await perform(iterator([3, 1, 2], {"type": "noop", "args": {"x": "{{ item }}"}}, **more))
    assert [one["x"] for one in result] == expected


async def test_a_mapping_iterates_its_items(perform: Perform) -> None:
    """As key and value; nothing at all gives an empty list."""
    task = {"type": "noop", "args": {"x": "{{ item }}"}}
    assert await perform(iterator({"a": 1}, task)) == [{"x": {"key": "a", "value": 1}}]
    assert await perform(iterator([], task)) == []


async def test_items_are_data(perform: Perform) -> None:
    """What stands in the collection is not a template, whatever it looks like."""
    task = {"type": "noop", "args": {"x": "{{ item }}"}}
    assert await perform(iterator(["{{ env.HOME }}"], task)) == [{"x": "{{ env.HOME }}"}]


async def test_a_failed_item_fails_the_step(perform: Perform) -> None:
    """With its index; or it leaves a hole, where the iterator goes on, and is told of beside the list."""
    task = {"type": "python", "code": "def main(x): return 1 // x", "args": {"x": "{{ item }}"}}
    error = failed(await perform(iterator([1, 0, 2], task)))
    assert (error["type"], error["index"]) == ("ZeroDivisionError", 1)
    result = await perform(iterator([1, 0, 1], task, on_error="continue"))
    [told] = result["meta"].pop("failed")
    assert result == {"data": [1, None, 1], "meta": {}}
    assert (told["index"], told["error"]["type"]) == (1, "ZeroDivisionError")
    assert await perform(iterator([1, 1], task, on_error="continue")) == [1, 1]


async def test_no_error_of_a_failed_item_tells_a_secret(perform: Perform) -> None:
    """It is cleaned as that of a job."""
    code = "def main(x): raise ValueError('it was ' + x)"
    task = {"type": "python", "code": code, "args": {"x": "{{ secret.api_token }}"}}
    result = await perform(iterator([1], task, on_error="continue"))
    assert [one["error"]["message"] for one in result["meta"]["failed"]] == ["it was [secret]"]


async def test_the_save_of_an_iterator_reads_which_items_failed(perform: Perform) -> None:
    """As a later step does."""
    code = "def main(x): return 1 // x"
    task = {"type": "python", "code": code, "args": {"x": "{{ item }}"}}
    save = {
        "storage": "python",
        "code": "def main(data): raise ValueError(str(data))",
        "data": "{{ result.failed | length }}",
    }
    assert failed(await perform(iterator([1, 0, 0], task, on_error="continue", save=save)))["message"] == "2"


async def test_the_errors_of_very_many_failed_items_are_left_out(perform: Perform) -> None:
    """The result must stay within its limit; which items failed is told of all."""
    task = {"type": "noop_not_there"}
    result = await perform(iterator([*range(5000)], task, on_error="continue"))
    failed = result["meta"]["failed"]
    assert [one["index"] for one in failed] == [*range(5000)]
    assert failed[0]["error"]["type"] == "unknown_type"
    assert failed[-1]["error"] is None


@pytest.mark.parametrize("given", ["{{ item }}", ["a"]])
async def test_inputs_of_a_task_that_are_no_mapping_fail_the_step(perform: Perform, given: Any) -> None:
    """As they would on any step; the task does not run without them."""
    error = failed(await perform(iterator([{"x": 1}], {"type": "noop", "data": given})))
    what = "a string" if isinstance(given, str) else "a list"
    assert error["message"] == f"the inputs of the iterator's task must be a mapping, its `data` is {what}"


@pytest.mark.parametrize("more", [{}, {"collection": [1], "limit": "{{ secret.api_token }}"}])
async def test_what_is_shown_in_place_of_items_is_no_start_of_a_secret(
    perform: Perform, lent: Lent, more: dict[str, Any]
) -> None:
    """It is cut, and what is cut is cleaned all the same."""
    key = "".join(map(chr, range(35, 91))) * 3
    using = dataclasses.replace(lent, environment={**lent.environment, "NOETL_SECRET_API_TOKEN": key})
    message = failed(await perform(iterator("{{ secret.api_token }}", **more), using=using))["message"]
    assert message.endswith('it is "[secret]… (170 characters)')


async def test_what_a_template_says_of_its_fault_is_no_start_of_a_secret(perform: Perform, lent: Lent) -> None:
    """The same."""
    key = "".join(map(chr, range(48, 91))) * 10
    using = dataclasses.replace(lent, environment={**lent.environment, "NOETL_SECRET_API_TOKEN": key})
    action = {"type": "noop", "args": {"x": "{{ [1] | map(secret.api_token) | list }}"}}
    assert "No filter named '[secret]…" in failed(await perform(action, using=using))["message"]

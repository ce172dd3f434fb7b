"""A worker that iterates goes through the items that the broker would: `distribute: true` changes who works alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from noetl_broker.broker.model import JSON
from noetl_broker.broker.story import play_turns, read_events
from noetl_broker.worker.execute import Success, execute
from noetl_broker.worker.faults import Failure
from noetl_broker.worker.tools.task import Lent
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
    """In the same order, with the same names."""
    done = await iterated(lent, keys)
    assert isinstance(done, Success), done
    results: list[dict[str, Any]] = json.loads(done.result)
    assert [result["it"] for result in results] == items


@pytest.mark.parametrize("keys, items", ABOUT_ITEMS)
async def test_an_item_hides_an_input_of_its_name_for_the_worker_too(lent: Lent, keys: str, items: JSON) -> None:
    """Where items are chosen; `args` still has the input."""
    [(_, decision, _)] = play_turns(playbook(ENTERED_WITH.format(keys=keys)), read_events("> execution_start"))
    job = decision.jobs[0]._replace(node_type="noop")
    done = await execute(leased(job._replace(action={**job.action, "type": "noop"}), {}), lent, time_limit_seconds=20)
    assert isinstance(done, Success), done
    assert len(json.loads(done.result)) == len(items)


@pytest.mark.parametrize("keys, message", WRONG)
async def test_what_the_broker_cannot_iterate_the_worker_cannot_either(lent: Lent, keys: str, message: str) -> None:
    """In the same words, and it is not tried again."""
    done = await iterated(lent, keys)
    told = done if isinstance(done, str) else done.error["message"] if isinstance(done, Failure) else "it went through"
    assert message in told
    assert not isinstance(done, Failure) or not done.retryable

"""The schema of the workload: what a start may be given."""

from __future__ import annotations

import pytest

from noetl_broker.broker.model.values import JSON
from noetl_broker.history.recovery_plan import plan_recovery
from noetl_broker.history.story import play_story
from tests.forks import fork_story, history_of
from tests.stories import assert_story, playbook

BODY = """
workload: {city: Oslo, limits: {low: 1}}
workload_schema:
  required: [order_id]
  additionalProperties: false
  properties:
    order_id: {type: string}
    city: {type: string}
    limits: {properties: {low: {maximum: 5}, high: {type: integer}}}
workflow:
- {step: start, next: end}
- {step: end, result: "{{ order_id }}"}
"""


def test_a_workload_that_fits_starts() -> None:
    """The defaults count as well as the payload."""
    assert_story(
        BODY,
        """
        > execution_start {"order_id": "o-1", "limits": {"high": 3}}
            event execution_complete "o-1"
        """,
    )


def test_a_workload_that_does_not_fit_fails_the_execution() -> None:
    """Before any step, with each place, also inside a default that the payload is merged over."""
    faults = "order_id is missing; limits.low is 7, the most is 5"
    assert_story(
        BODY,
        f"""
        > execution_start {{"limits": {{"low": 7}}}}
            event execution_failed "the workload does not fit workload_schema: {faults}"
            cancel all work
        """,
    )


def test_the_error_lists_the_places() -> None:
    """Programs need not read the message."""
    history = history_of(playbook(BODY), '> execution_start {"order_id": 1}')
    assert history.ended is not None
    assert history.ended.error == {
        "message": "the workload does not fit workload_schema: order_id is 1, it must be string",
        "type": "payload",
        "places": [{"path": "order_id", "message": "is 1, it must be string"}],
    }
    assert history.workload == {"order_id": 1, "city": "Oslo", "limits": {"low": 1}}


@pytest.mark.parametrize("key", ["schedule", "signal"])
def test_what_the_broker_adds_to_a_workload_is_not_checked(key: str) -> None:
    """A schedule or a signal starts the playbook as a person does."""
    assert_story(
        BODY,
        f"""
        > execution_start {{"order_id": "o-1", "{key}": {{"name": "n"}}}}
            event execution_complete "o-1"
        """,
    )


def test_a_retry_is_not_checked() -> None:
    """An operator who retries wants this workload."""
    source = history_of(playbook(BODY), '> execution_start {"order_id": 1}')
    assert fork_story(source, plan_recovery(source)) == "> fork\n    event execution_complete 1"


@pytest.mark.parametrize(
    "schema, payload, message",
    [
        ("{minProperties: 2}", {}, "it has 1 keys, the least is 2"),
        ("{not: {required: [b]}}", {"b": 1}, "it is a mapping of 2, it fits the schema under `not`"),
    ],
)
def test_a_fault_of_the_whole_workload_is_told_as_well(schema: str, payload: dict[str, JSON], message: str) -> None:
    """It has no path."""
    body = f"""
    workload: {{a: 1}}
    workload_schema: {schema}
    workflow: [{{step: start, next: end}}, {{step: end}}]
    """
    given = str(payload).replace("'", '"')
    assert f"the workload does not fit workload_schema: {message}" in play_story(
        playbook(body), f"> execution_start {given}"
    )

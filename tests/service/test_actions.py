"""Actions of the service: each names its role, its request and its answer; requests say what is wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, cast

import pytest
from fastapi import APIRouter
from pydantic import BaseModel

from noetl_broker import service
from noetl_broker.console.api.route import Row, add_route
from noetl_broker.errors import ForbiddenFault, OperatorFault
from noetl_broker.service import bulk
from noetl_broker.service.action import Caller, ServiceAction
from noetl_broker.service.field_errors import request_of
from noetl_broker.service.models import actions, executions, playbooks, schedules, slots, waits
from noetl_broker.service.models.base import Given, Role
from noetl_broker.service.typed_json import json_text, read_json

LONG = "x" * 1_001
ONE = {"execution_id": "5"}


def every_action() -> Iterator[tuple[str, ServiceAction[Any, Any]]]:
    """Yield each action of each module, with its name."""
    for found in iter_modules(service.__path__):
        if not found.ispkg:
            module = import_module(f"noetl_broker.service.{found.name}")
            for name, value in vars(module).items():
                if isinstance(value, ServiceAction) and value.function.__module__ == module.__name__:
                    yield f"{found.name}.{name}", value


ACTIONS = dict(every_action())


def test_each_action_has_a_request_and_only_health_needs_no_role() -> None:
    """So all faces can read its fields, and check the role."""
    assert all(issubclass(action.request, Given) for action in ACTIONS.values())
    assert [name for name, action in ACTIONS.items() if action.roles is None] == ["health.ask_health"]


@pytest.mark.parametrize(
    "name", [name for name, action in ACTIONS.items() if not Role.VIEWER.may(action.roles or (Role.VIEWER,))]
)
async def test_an_action_of_an_operator_refuses_a_viewer(name: str) -> None:
    """Before it looks at the database, whatever face asks."""
    viewer = Caller(role=Role.VIEWER, name="wall", is_authenticated=True)
    with pytest.raises(ForbiddenFault, match=r"wall has the role viewer; this needs .*an operator"):
        await ACTIONS[name](cast("Any", None), viewer, Given())


@pytest.mark.parametrize(
    "status,allowed",
    [
        ("QUEUED", "fork pause cancel"),
        ("RUNNING", "fork pause cancel"),
        ("PAUSED", "fork resume cancel"),
        ("COMPENSATING", ""),
        ("COMPLETED", "fork erase"),
        ("FAILED", "retry fork erase"),
        ("CANCELLED", "fork erase"),
    ],
)
def test_a_status_allows_these_actions(status: str, allowed: str) -> None:
    """In every face: what is offered is not left out, and what is left out has a reason."""
    row = {"status": status, "recovered_as": None, "parent_execution_id": None}
    left_out = {action: bulk.why_left_out(cast("Any", action), row) for action in bulk.actions_for("")}
    assert bulk.actions_for(status) == allowed.split()
    assert [action for action, why in left_out.items() if why is None] == allowed.split()


def test_a_route_of_a_function_without_a_role_is_refused() -> None:
    """At import, where the table is read."""

    async def bare(_connection: Any, _caller: Any, _given: Given) -> None: ...

    with pytest.raises(TypeError, match="bare is no action of the service: give it @action"):
        add_route(APIRouter(), Row("GET", "/bare", cast("Any", bare)))


def test_models_load_without_the_store() -> None:
    """So help and completion of options do not wait for a driver."""
    names = [found.name for found in iter_modules(import_module("noetl_broker.service.models").__path__)]
    loads = "; ".join(f"import noetl_broker.service.models.{name}" for name in names)
    shows = "print([name for name in sys.modules if name.startswith(('asyncpg', 'noetl_broker.store'))])"
    done = subprocess.run([sys.executable, "-c", f"import sys; {loads}; {shows}"], capture_output=True, check=True)
    assert done.stdout == b"[]\n"


@pytest.mark.parametrize(
    "model,values,message",
    [
        (executions.StartRequest, {}, "path: it is missing"),
        (executions.StartRequest, {"path": ""}, "path: it must not be empty; it is ''"),
        (executions.StartRequest, {"path": LONG}, "path: it must have at most 1000 characters; it is 'xxx"),
        (executions.StartRequest, {"path": "a", "payload": 5}, "payload: it must be a JSON object; it is 5"),
        (executions.StartRequest, {"path": "a", "version": 0}, "version: it must be at least 1; it is 0"),
        (executions.StartRequest, {"path": "a", "idempotency_key": ""}, "idempotency_key: it must not be empty"),
        (executions.StartRequest, {"pth": "a"}, "path: it is missing"),
        (executions.StartRequest, {"path": "a", "payloads": 1}, "payloads: there is no such field"),
        (executions.ListExecutions, {"status": "DONE"}, "status: it must be 'QUEUED', 'RUNNING'"),
        (executions.ListExecutions, {"since": "soon"}, "since: 'soon' is neither a span"),
        (executions.ListExecutions, {"limit": 1_001}, "limit: it must be at most 1000; it is 1001"),
        (executions.ListExecutions, {"cursor": LONG}, "cursor: it must have at most 1000 characters"),
        (executions.ListExecutions, {"tag": ["Customer=7"]}, "tag: it must be NAME=VALUE, such as customer=7"),
        (executions.StartRequest, {"path": "a", "tags": {"Customer": 7}}, "tags: it must be a name of at most 63"),
        (executions.SnapshotRequest, {**ONE, "turn": 0}, "turn: it must be at least 1; it is 0"),
        (executions.GraphRequest, {**ONE, "format": "png"}, "format: it must be 'svg' or 'mermaid'; it is 'png'"),
        (actions.ReasonRequest, {"execution_id": "abc"}, "execution_id: an id is a number of at most 19 digits"),
        (actions.ReasonRequest, {**ONE, "reason": LONG}, "reason: it must have at most 1000 characters"),
        (actions.RetryRequest, {**ONE, "version": "old"}, "version: it must be a whole number"),
        (
            actions.RetryRequest,
            {**ONE, "version": 0},
            "version: it must be at least 1, or it must be 'latest'; it is 0",
        ),
        (actions.RetryRequest, {**ONE, "or_from_start": "yes"}, "or_from_start: it must be true or false"),
        (actions.ForkRequest, ONE, "from: it is missing"),
        (actions.SignalExecutionRequest, {**ONE, "name": "x" * 256}, "name: it must have at most 255 characters"),
        (actions.BulkRequest, {"action": "stop", "which": {}}, "action: it must be 'cancel', 'pause'"),
        (actions.BulkRequest, {"action": "cancel", "which": {}, "limit": 501}, "limit: it must be at most 500"),
        (playbooks.ValidateRequest, {"content": "x" * (1 << 20) + "x"}, "content: it must have at most 1048576"),
        (playbooks.StepTypeRequest, {"name": "1st"}, "name: it must match"),
        (schedules.ScheduleRequest, {"name": "x" * 901, "path": "a"}, "name: it must have at most 900 characters"),
        (schedules.ScheduleRequest, {"name": "a", "path": "a", "every": 0.5}, "every: it must be at least 1"),
        (schedules.ScheduleRequest, {"name": "a", "path": "a", "jitter": -1}, "jitter: it must be at least 0"),
        (schedules.ScheduleRequest, {"name": "a", "path": "a", "overlap": "x"}, "overlap: it must be 'skip', 'queue'"),
        (schedules.NextRequest, {"name": "a", "count": 1_001}, "count: it must be at most 1000"),
        (slots.ThrottleRequest, {"name": "a", "rate": 0}, "rate: it must be more than 0.0"),
        (slots.ThrottleRequest, {"name": "a", "burst": 2**31}, "burst: it must be at most 2147483647"),
        (slots.KeysRequest, {"name": "a", "limit": 0}, "limit: it must be at least 1"),
        (waits.SendRequest, {"name": "a", "key": "b", "keep_seconds": 0}, "keep_seconds: it must be at least 0.001"),
        (waits.SendRequest, {"name": "a", "key": None}, "key: it must be a text"),
        (waits.DecisionRequest, {**ONE, "step": "a", "approved": 1}, "approved: it must be true or false; it is 1"),
        (waits.DecisionRequest, {**ONE, "step": "a", "approved": True, "decided_by": ""}, "decided_by: it must not be"),
    ],
)
def test_a_request_names_the_field_and_what_is_wrong(
    model: type[BaseModel], values: dict[str, Any], message: str
) -> None:
    """The bounds stand in the models: every face says this."""
    with pytest.raises(OperatorFault) as fault:
        request_of(model, values)
    assert str(fault.value).startswith(message)


@pytest.mark.parametrize(
    "text,message",
    [
        ("{", "it is not JSON: Expecting property name enclosed in double quotes in line 1, column 2"),
        ("NaN", "it is not JSON: NaN is not a JSON number"),
        ('{"x": -Infinity}', "it is not JSON: -Infinity is not a JSON number"),
        ("1e400", "it is not JSON: the number 1e400 is too large"),
        ("[" * 100_000, "it is not JSON: it is nested too deeply"),
    ],
)
def test_typed_json_that_the_database_cannot_hold_is_refused(text: str, message: str) -> None:
    """With one opinion in all faces."""
    with pytest.raises(ValueError) as fault:  # noqa: PT011 - the message is compared
        read_json(text)
    assert str(fault.value).startswith(message)


@pytest.mark.parametrize("value", [float("inf"), {"x": float("nan")}, {"x": object()}, {1: {2, 3}}])
def test_a_value_that_json_cannot_hold_is_refused(value: Any) -> None:
    """Before it is sent."""
    with pytest.raises(OperatorFault, match=r"the payload must be a (mapping|value) that JSON can hold"):
        json_text(value)

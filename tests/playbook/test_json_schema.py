"""The JSON Schema of playbooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from noetl_broker.playbook.json_schema import playbook_schema
from noetl_broker.playbook.keywords import SQL_TYPES
from noetl_broker.playbook.step_types import TYPES
from tests.playbook.documents import findings_of

EXAMPLES = sorted((Path(__file__).parents[2] / "playbooks").glob("*.yaml"))
VALIDATOR = Draft202012Validator(playbook_schema())
FULL: dict[str, Any] = {
    "apiVersion": "noetl.io/v1",
    "kind": "Playbook",
    "metadata": {"path": "a/b", "max_visits": 5, "on_signal": {"signal": "go", "when": "{{ signal.payload }}"}},
    "workload": {"x": 1},
    "workbook": [{"name": "fetch", "type": "http", "url": "x"}],
    "workflow": [
        {"step": "start", "next": "a"},
        {
            "step": "a",
            "type": "workbook",
            "task": "fetch",
            "retry": {"max_attempts": 3},
            "args": "{{ workload }}",
            "next": [{"when": "{{ a }}", "then": ["b", {"step": "end", "args": {"x": 1}}], "else": "b"}],
        },
        {"step": "c", "join": "any"},
        {"step": "d", "join": {"need": 2, "losers": "cancel"}},
        {"step": "b", "type": "iterator", "collection": "{{ x }}", "element": "n", "task": {"type": "playbook"}},
        {"step": "end", "result": {"y": 1}},
    ],
}


def test_a_playbook_fits_the_schema() -> None:
    """The schema accepts the forms that the readers accept."""
    assert [fault.message for fault in VALIDATOR.iter_errors(FULL)] == []


@pytest.mark.parametrize("join", ["{losers: run}", "{need: 0}", "{need: 10001}", "{need: 1, loser: run}"])
def test_a_bad_join_does_not_fit(join: str) -> None:
    """Editors report a missing, a wrong or an unknown key of `join`."""
    assert faults_of_step(f"join: {join}") != []


def test_a_type_offers_its_own_keys() -> None:
    """An editor completes `url` on an http step."""
    rules = playbook_schema()["$defs"]["StepModel"]["allOf"]
    http = next(rule for rule in rules if rule["if"]["anyOf"][0]["properties"]["type"]["const"] == "http")
    assert "url" in http["then"]["properties"]


def test_the_schema_has_the_types_of_the_setting() -> None:
    """Beside the built-in types."""
    schema = playbook_schema(frozenset({"dbt"}))
    assert "dbt" in schema["$defs"]["StepModel"]["properties"]["type"]["enum"]


def test_a_step_has_a_name_and_a_playbook_a_workflow() -> None:
    """By either alias."""
    schema = playbook_schema()
    assert schema["required"] == ["apiVersion", "kind"]
    assert schema["anyOf"] == [{"required": ["workflow"]}, {"required": ["steps"]}]
    assert schema["$defs"]["StepModel"]["anyOf"] == [{"required": ["step"]}, {"required": ["name"]}]


def faults_of_step(step: str, metadata: str = "name: x") -> list[str]:
    """Return what the schema finds in a playbook with this step."""
    source = (
        f"{{apiVersion: noetl.io/v1, kind: Playbook, metadata: {{{metadata}}}, workflow: [{{step: start, {step}}}]}}"
    )
    return [fault.message for fault in VALIDATOR.iter_errors(yaml.safe_load(source))]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_schema_accepts_the_examples(example: Path) -> None:
    """An editor shows no fault in them."""
    assert [fault.message for fault in VALIDATOR.iter_errors(yaml.safe_load(example.read_bytes()))] == []


@pytest.mark.parametrize(
    "step",
    [
        "type: wait",
        "type: wait, for: 3d, until: x",
        "tool: wait, for: 3d, retry: 3",
        "type: approval, retry: 3",
        "type: signal",
        "type: signal, signal: x, retry: true",
        "type: http, url: x, retry: {initial_delay: -1}",
        "type: http, method: PUT",
        "type: transfer, source: {}",
        "type: http, url: x, retry: {max_atempts: 3}",
        "type: http, url: x, retry: {max_attempts: 1001}",
    ],
)
def test_the_schema_refuses_wrong_steps(step: str) -> None:
    """An editor shows them."""
    assert faults_of_step(step) != []


@pytest.mark.parametrize("metadata", ["on_signal: {when: x}", "on_signal: {signal: x, wen: y}", "deadline: [1]"])
def test_the_schema_refuses_wrong_metadata(metadata: str) -> None:
    """An editor shows it."""
    assert faults_of_step("type: noop", metadata) != []


def test_the_schema_accepts_waits_and_durations() -> None:
    """In each of their forms."""
    steps = [
        "type: wait, for: 3d",
        "type: wait, signal: [a, b], key: 5",
        "type: approval, timeout: 24h",
        "type: signal, signal: x",
        "type: http, url: x, retry: {initial_delay: 5m, max_delay: 60}, throttle: {name: a, rate: 10/s}",
    ]
    assert [faults_of_step(step, "name: x, deadline: 24h, on_signal: [{signal: x}]") for step in steps] == [[]] * 5


# What a step of a type needs beside it, where it needs something.
NEEDED = {
    "http": "url: u",
    **dict.fromkeys(SQL_TYPES, "command: select 1"),
    "transfer": "source: {}, target: {}",
    "secrets": "secret_name: s",
    "save": "data: {a: 1}",
    "sleep": "seconds: 1",
    "container": "image: i",
    "wait": "for: 1d",
    "signal": "signal: s",
    "playbook": "path: p",
    "iterator": "collection: [1], element: n, task: {type: http, url: u}",
}


@pytest.mark.parametrize("name", sorted({*TYPES, "workbook"}))
def test_the_schema_and_the_reader_refuse_retries_of_the_same_types(name: str) -> None:
    """Each type that exists, and each that has a rule in the schema."""
    step = f"type: {name}, {NEEDED.get(name, 'desc: x')}"
    read = findings_of(f"workflow: [{{step: start, next: a}}, {{step: a, {step}, retry: 3}}]")
    assert [line for line in read if "unknown-type" in line] == []
    assert faults_of_step(step) == []
    assert bool(faults_of_step(f"{step}, retry: 3")) == any(" error " in line and ".retry:" in line for line in read)

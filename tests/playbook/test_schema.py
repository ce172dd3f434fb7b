"""The JSON Schema of playbooks."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from noetl_broker.playbook import document
from noetl_broker.playbook import vocabulary as words
from noetl_broker.playbook.schema import playbook_schema

FULL: dict[str, Any] = {
    "apiVersion": "noetl.io/v1",
    "kind": "Playbook",
    "metadata": {"path": "a/b", "max_visits": 5},
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
        {"step": "b", "type": "iterator", "collection": "{{ x }}", "element": "n", "task": {"type": "playbook"}},
        {"step": "end", "result": {"y": 1}},
    ],
}


def keys_of(model: type[BaseModel]) -> set[str]:
    """Give the keys of a model as an author writes them."""
    return {field.alias or name for name, field in model.model_fields.items()}


def test_a_playbook_fits_the_models() -> None:
    """The forms that the readers accept are those of the schema."""
    assert document.PlaybookModel.model_validate(FULL).workflow is not None


def test_a_bad_retry_does_not_fit() -> None:
    """An unknown key of `retry` is an error, in an editor too."""
    with pytest.raises(ValidationError):
        document.RetryModel.model_validate({"max_atempts": 3})


def test_the_schema_knows_every_key_that_the_readers_know() -> None:
    """The tables and the models name the same keys."""
    assert keys_of(document.RetryModel) == set(words.RETRY_KEYS)
    assert keys_of(document.LoopModel) == words.ITERATION_KEYS - {"task"}
    assert words.BROKER_KEYS | {*words.INPUT_WORDS, *words.SAVE_KEYS} <= keys_of(document.StepModel)
    assert words.ENTRY_KEYS - {"desc", "description"} == keys_of(document.EntryModel)
    assert words.ROOT_KEYS - {"description", "version"} == keys_of(document.PlaybookModel)
    assert keys_of(document.MetadataModel) <= words.METADATA_KEYS


def test_a_type_offers_its_own_keys() -> None:
    """An editor completes `url` on an http step."""
    rules = playbook_schema()["$defs"]["StepModel"]["allOf"]
    http = next(rule for rule in rules if rule["if"]["anyOf"][0]["properties"]["type"]["const"] == "http")
    assert "url" in http["then"]["properties"]


def test_the_operators_types_are_offered() -> None:
    """Types of the setting stand beside the built-in ones."""
    schema = playbook_schema(frozenset({"dbt"}))
    assert "dbt" in schema["$defs"]["StepModel"]["properties"]["type"]["enum"]


def test_a_step_has_a_name_and_a_playbook_a_workflow() -> None:
    """Either of two aliases will do."""
    schema = playbook_schema()
    assert schema["required"] == ["apiVersion", "kind"]
    assert schema["anyOf"] == [{"required": ["workflow"]}, {"required": ["steps"]}]
    assert schema["$defs"]["StepModel"]["anyOf"] == [{"required": ["step"]}, {"required": ["name"]}]

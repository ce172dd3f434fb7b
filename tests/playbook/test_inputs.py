"""Merging of inputs: six words, two levels, and templates for all inputs."""

from __future__ import annotations

from noetl_broker.playbook.inputs import merge
from noetl_broker.playbook.model import Inputs
from tests.playbook.documents import compiled


def inputs_of(text: str, step_type: str = "python") -> Inputs:
    """Compile one action step with the given keys."""
    return compiled(f"workflow:\n  - {{step: start, type: {step_type}, code: x, url: x, {text}}}\n").start.inputs


def test_input_words_merge_by_their_strength() -> None:
    """With < payload < input < params < data < args."""
    words = ("args", "data", "params", "input", "payload", "with")
    text = ", ".join(
        f"{word}: {{{', '.join(f'k{n}: {word}' for n in range(index, 6))}}}" for index, word in enumerate(words)
    )
    found = inputs_of(text)
    expected = {f"k{index}": "args" for index in range(6)}
    assert {key: tree.fixed for key, tree in found.keys.items()} == expected
    assert found.aliases["with"] == ("k5",)
    assert {*found.aliases} == {*words}


def test_keys_of_the_type_are_no_inputs() -> None:
    """`params` and `payload` of an http step are fields."""
    start = compiled(
        "workflow: [{step: start, type: http, url: x, params: {a: 1}, payload: {b: 2}, data: {c: 3}}]"
    ).start
    assert [*start.inputs.keys] == ["c"]
    assert [*start.fields.parts] == ["url", "params", "payload"]


def test_the_argument_list_of_a_container_is_no_input() -> None:
    """A mapping is inputs."""
    body = "workflow: [{{step: start, type: container, image: x, args: {}}}]"
    assert "args" in compiled(body.format("[ls, /]")).start.fields.parts
    assert [*compiled(body.format("{a: 1}")).start.inputs.keys] == ["a"]


def test_one_template_may_give_all_inputs() -> None:
    """Keys of a stronger word win over it."""
    found = inputs_of("data: '{{ workload }}', args: {a: 1}")
    assert found.whole is not None
    assert found.whole.names == {"workload"}
    assert [*found.keys] == ["a"]
    assert found.aliases == {"data": None, "args": ("a",)}


def test_a_template_for_all_inputs_keeps_weaker_inputs_under_it() -> None:
    """Its keys win over those of weaker words."""
    found = inputs_of("data: {a: 1}, args: '{{ workload }}'")
    assert found.base is not None
    assert [*found.base.keys] == ["a"]
    assert found.whole is not None
    assert not found.keys


def test_null_inputs_are_none() -> None:
    """A word without a value gives no inputs."""
    assert inputs_of("args: null").empty


def test_inputs_of_the_workbook_action_stay_under_those_of_the_step() -> None:
    """Also if the step has one template for all inputs."""
    under = inputs_of("args: {z: 1}")
    over = inputs_of("data: {a: 1}, args: '{{ workload }}'")
    merged = merge(under, over)
    assert merged.whole is over.whole
    assert merged.base is not None
    assert [*merged.base.keys] == ["z", "a"]
    assert merged.aliases == {"args": None, "data": ("a",)}

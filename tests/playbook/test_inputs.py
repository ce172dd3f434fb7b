"""How inputs merge: six words, two levels, and templates for the whole."""

from __future__ import annotations

from noetl_broker.playbook.inputs import merge
from noetl_broker.playbook.model import Inputs
from tests.playbook.documents import compiled, told


def inputs_of(text: str, step_type: str = "python") -> Inputs:
    """Compile one action step with the given keys."""
    return compiled(f"workflow:\n  - {{step: start, type: {step_type}, code: x, url: x, {text}}}\n").start.inputs


def test_words_merge_by_their_strength() -> None:
    """With < payload < input < params < data < args."""
    words = ("args", "data", "params", "input", "payload", "with")
    text = ", ".join(
        f"{word}: {{{', '.join(f'k{n}: {word}' for n in range(place, 6))}}}" for place, word in enumerate(words)
    )
    found = inputs_of(text)
    expected = {f"k{place}": "args" for place in range(6)}
    assert {key: tree.render(None) for key, tree in found.keys.items()} == expected  # type: ignore[arg-type] # constant
    assert found.aliases["with"] == ("k5",)
    assert {*found.aliases} == {*words}


def test_a_types_own_keys_are_no_inputs() -> None:
    """`params` and `payload` of an http step are its own, and fields."""
    start = compiled(
        "workflow: [{step: start, type: http, url: x, params: {a: 1}, payload: {b: 2}, data: {c: 3}}]"
    ).start
    assert [*start.inputs.keys] == ["c"]
    assert [*start.fields.parts] == ["url", "params", "payload"]


def test_a_containers_argument_list_is_its_own() -> None:
    """A list is its argument vector, a mapping its inputs."""
    body = "workflow: [{{step: start, type: container, image: x, args: {}}}]"
    assert "args" in compiled(body.format("[ls, /]")).start.fields.parts
    assert [*compiled(body.format("{a: 1}")).start.inputs.keys] == ["a"]


def test_one_template_may_give_the_whole() -> None:
    """Keys of a stronger word lie over it."""
    found = inputs_of("data: '{{ workload }}', args: {a: 1}")
    assert found.whole is not None
    assert found.whole.names == {"workload"}
    assert [*found.keys] == ["a"]
    assert found.aliases == {"data": None, "args": ("a",)}


def test_a_whole_over_keys_keeps_them_as_its_base() -> None:
    """A stronger word that is one template lies over weaker keys."""
    found = inputs_of("data: {a: 1}, args: '{{ workload }}'")
    assert found.base is not None
    assert [*found.base.keys] == ["a"]
    assert found.whole is not None
    assert not found.keys


def test_null_inputs_are_none() -> None:
    """A word without a value gives nothing."""
    assert inputs_of("args: null").empty


def test_levels_merge_with_the_base_at_the_bottom() -> None:
    """Under a whole over keys, the weaker level goes to the very bottom."""
    under = inputs_of("args: {z: 1}")
    over = inputs_of("data: {a: 1}, args: '{{ workload }}'")
    merged = merge(under, over)
    assert merged.whole is over.whole
    assert merged.base is not None
    assert [*merged.base.keys] == ["z", "a"]
    assert merged.aliases == {"args": None, "data": ("a",)}


def test_an_overridden_input_is_not_warned_of() -> None:
    """What neither the step nor a transition leaves to be rendered cannot fail."""
    body = """
    workbook: [{name: w, type: http, url: x, with: {city: "{{ city }}"}}]
    workflow:
      - {step: start, next: [{step: a}, {step: b, args: {town: 1}}]}
      - {step: a, type: workbook, task: w, args: {city: 1}}
      - {step: b, type: http, url: "{{ town }}", args: {town: "{{ town }}"}}
    """
    assert told(body) == []

"""The compiled form of `next`: entries, targets with inputs, transitions."""

from __future__ import annotations

import pytest

from noetl_broker.playbook.model import Entry, Inputs
from tests.playbook.documents import compiled


def entries(text: str) -> tuple[Entry, ...]:
    """Compile the `next` of a `start` with three steps after it."""
    return compiled(
        f"workload: {{x: 1}}\nworkflow:\n  - step: start\n    next: {text}\n"
        "  - {step: a}\n  - {step: b}\n  - {step: c}\n"
    ).start.next


def shape(entry: Entry) -> tuple[str, list[str], list[str]]:
    """Return the kind of an entry and the names of its targets."""
    return entry.kind, [target.step for target in entry.then], [target.step for target in entry.otherwise]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a", [("plain", ["a"], [])]),
        ("{step: a}", [("plain", ["a"], [])]),
        ("{name: a}", [("plain", ["a"], [])]),
        ("[a, {step: b}, a]", [("plain", ["a"], []), ("plain", ["b"], []), ("plain", ["a"], [])]),
        ("{then: [a, {step: b}]}", [("plain", ["a", "b"], [])]),
        ("{when: x, step: a}", [("when", ["a"], [])]),
        ("{condition: '{{ x }}', then: a}", [("when", ["a"], [])]),
        ("{pass: x, then: {step: a}}", [("when", ["a"], [])]),
        ("{when: x, then: [a], else: [b, c]}", [("when", ["a"], ["b", "c"])]),
        ("{when: x, else: b}", [("when", [], ["b"])]),
        ("[{when: x, step: a}, {else: {step: b}}]", [("when", ["a"], []), ("else", [], ["b"])]),
        ("[a, {when: x, step: b}, c]", [("plain", ["a"], []), ("when", ["b"], []), ("plain", ["c"], [])]),
        ("[]", []),
        ("null", []),
    ],
)
def test_next_has_many_forms(text: str, expected: list[object]) -> None:
    """Strings, mappings and lists of them mean the same entries."""
    assert [shape(entry) for entry in entries(text)] == expected


def constants(inputs: Inputs) -> dict[str, object]:
    """Return inputs that are no templates."""
    return {key: tree.fixed for key, tree in inputs.keys.items()}


def test_inputs_of_an_entry_are_defaults_of_its_targets() -> None:
    """Inputs of the target win, key by key."""
    (entry,) = entries("{when: x, args: {k: 1, l: 2}, then: [a, {step: b, data: {k: 3}}], else: [{step: c}]}")
    found = [constants(target.inputs) for target in (*entry.then, *entry.otherwise)]
    assert found == [{"k": 1, "l": 2}, {"k": 3, "l": 2}, {"k": 1, "l": 2}]


def test_transitions_are_numbered_in_document_order() -> None:
    """Two transitions to one target are two. Each has its condition."""
    playbook = compiled("""
    workload: {x: 1}
    workflow:
      - step: start
        next:
          - {when: "{{ x }}", then: [a, a], else: b, args: {k: "{{ x }}"}}
      - {step: a, next: b}
      - {step: b}
    """)
    assert [(arc.ordinal, arc.source, arc.target, arc.entry, arc.branch, arc.condition) for arc in playbook.arcs] == [
        (0, "start", "a", 0, "then", "{{ x }}"),
        (1, "start", "a", 0, "then", "{{ x }}"),
        (2, "start", "b", 0, "else", "{{ x }}"),
        (3, "a", "b", 0, "plain", None),
    ]
    assert playbook.arcs[0].inputs == {"k": "{{ x }}"}
    assert [target.arc for target in playbook.start.next[0].then] == [0, 1]
    assert playbook.graph.incoming("a") == 2


def test_next_mode_is_on_the_step() -> None:
    """Exclusive or, by default, inclusive."""
    body = "workflow: [{{step: start{}}}]"
    assert compiled(body.format(", next_mode: exclusive")).start.exclusive
    assert not compiled(body.format("")).start.exclusive

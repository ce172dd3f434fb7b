"""Mappings that templates make with `dict` and the filter `merge`."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_broker.template import Allowance
from tests.template.evaluating import error_message_of, value_of

LEFT = {"a": 1, "deep": {"x": 1, "y": {"z": 2}}, "list": [1, 2]}
RIGHT = {"deep": {"y": {"z": 3, "w": 4}}, "list": [3], "b": None}
NAMES: dict[str, Any] = {
    "m": {"a": 1, "k": 0},
    "pairs": [["a", 1], ["b", 2]],
    "left": LEFT,
    "right": RIGHT,
    "wide": {str(number): number for number in range(1_000)},
}


@pytest.mark.parametrize(
    "source,expected",
    [
        ("{{ dict() }}", {}),
        ("{{ dict(k=1) }}", {"k": 1}),
        ("{{ dict(m) }}", {"a": 1, "k": 0}),
        ("{{ dict(m, k=1, n=m.a) }}", {"a": 1, "k": 1, "n": 1}),
        ("{{ dict(pairs) }}", {"a": 1, "b": 2}),
        ("{{ dict(pairs, b=3) }}", {"a": 1, "b": 3}),
        ("{{ dict([('a', 1), ('a', 2)]) }}", {"a": 2}),
        ("{{ dict(m.items()) }}", {"a": 1, "k": 0}),
        ("{{ dict((m | items) + pairs) }}", {"a": 1, "k": 0, "b": 2}),
        ("{{ dict(m | dictsort) }}", {"a": 1, "k": 0}),
        ("{{ dict([{'s': 1}] | groupby('s')) | length }}", 1),
        ("{{ dict([]) }}", {}),
        ("{{ dict(m | items | map('list')) }}", {"a": 1, "k": 0}),
        ("{{ dict({1: 2})[1] }}", 2),
    ],
)
def test_dict_takes_a_mapping_or_pairs_and_named_values(source: str, expected: Any) -> None:
    """A named value replaces the value of its key; a later pair replaces an earlier one."""
    assert value_of(source, inputs=NAMES) == expected


@pytest.mark.parametrize(
    "source,reason",
    [
        ("{{ dict(1) }}", "`dict` takes a mapping or a list of pairs, not a number"),
        ("{{ dict(none) }}", "`dict` takes a mapping or a list of pairs, not a null"),
        ("{{ dict('ab') }}", "`dict` takes a mapping or a list of pairs, not a text"),
        ("{{ dict(['ab']) }}", "`dict` takes pairs: each element must be a list of a key and a value, one is a text"),
        (
            "{{ dict(pairs + [[1]]) }}",
            "`dict` takes pairs: each element must be a list of a key and a value, one is a list of 1",
        ),
        (
            "{{ dict(m, right) }}",
            "`dict` takes one mapping or one list of pairs, here are 2: write `a | merge(b)` to merge mappings",
        ),
        ("{{ dict([[[1], 2]]) }}", "a list cannot be a key of a mapping"),
        ("{{ dict(nobody) }}", "`nobody` is undefined: no input, step with a result or workload key has that name"),
        ("{{ dict([[1, 2]]) }}", "a mapping's key is 1, a number; in JSON keys are texts"),
    ],
)
def test_dict_names_a_value_that_it_cannot_convert(source: str, reason: str) -> None:
    """The message has the accepted forms."""
    assert error_message_of(source, inputs=NAMES) == reason


@pytest.mark.parametrize(
    "source,expected",
    [
        ("{{ {} | merge({}) }}", {}),
        ("{{ m | merge({'k': 2}) }}", {"a": 1, "k": 2}),
        ("{{ m | merge({}) }}", {"a": 1, "k": 0}),
        (
            "{{ left | merge(right) }}",
            {"a": 1, "deep": {"x": 1, "y": {"z": 3, "w": 4}}, "list": [3], "b": None},
        ),
        ("{{ {'a': {'b': 1}} | merge({'a': 2}) }}", {"a": 2}),
        ("{{ {'a': 2} | merge({'a': {'b': 1}}) }}", {"a": {"b": 1}}),
        ("{{ {'a': {'b': 1}} | merge({'a': none}) }}", {"a": None}),
        ("{{ [{'a': 1}, {'a': 2}] | map('merge', {'b': 0}) }}", [{"a": 1, "b": 0}, {"a": 2, "b": 0}]),
        ("{{ left | merge(right) | merge(m) | length }}", 5),
    ],
)
def test_merge_takes_the_right_value_of_a_shared_key(source: str, expected: Any) -> None:
    """At every level, as a payload is merged over the workload."""
    assert value_of(source, inputs=NAMES) == expected


def test_merge_keeps_the_order_of_keys_and_changes_neither_mapping() -> None:
    """Keys of the left mapping come first."""
    left, right = {"b": {"y": 1}, "a": 1}, {"c": 1, "b": {"x": 2}}
    merged = value_of("{{ left | merge(right) }}", inputs={"left": left, "right": right})
    assert [*merged] == ["b", "a", "c"]
    assert (left, right) == ({"b": {"y": 1}, "a": 1}, {"c": 1, "b": {"x": 2}})


@pytest.mark.parametrize(
    "source,reason",
    [
        ("{{ m | merge }}", "a filter, a test or a method has the wrong arguments (missing 1 required positional"),
        ("{{ m | merge(1) }}", "`merge` takes two mappings, the right one is a number"),
        ("{{ m | merge(pairs) }}", "`merge` takes two mappings, the right one is a list"),
        ("{{ none | merge(m) }}", "`merge` takes two mappings, the left one is a null"),
        ("{{ nobody | merge(m) }}", "`nobody` is undefined: no input"),
        ("{{ m | merge(nobody) }}", "`nobody` is undefined: no input"),
    ],
)
def test_merge_names_a_value_that_it_cannot_merge(source: str, reason: str) -> None:
    """The message has the side of the value."""
    assert error_message_of(source, inputs=NAMES).startswith(reason)


@pytest.mark.parametrize("body", ["dict(wide)", "dict(wide, k=1)", "dict(wide | items)", "{} | merge(wide)"])
def test_a_mapping_costs_by_its_size(body: str) -> None:
    """Each entry costs, so a loop of copies reaches the limit of steps before the time."""
    one = f"{{{{ ({body}) is none }}}}"
    assert value_of(one, inputs=NAMES, allowance=Allowance(steps=20_000)) is False
    again = f"{{% for i in range(100) %}}{{% set x = {body} %}}{{% endfor %}}"
    assert "steps that one evaluation may take" in error_message_of(
        again, inputs=NAMES, allowance=Allowance(steps=100_000)
    )

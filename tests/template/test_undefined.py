"""Undefined values can be chained, tested and given a default. Any other use is an error."""

from __future__ import annotations

import pytest

from noetl_broker.template import StepResult
from tests.template.evaluating import error_message_of, value_of


@pytest.mark.parametrize(
    "source",
    [
        "{{ a | default(1) }}",
        "{{ a.b.c | default(1) }}",
        "{{ a['b'][0].c | default(1) }}",
        "{{ a[1:].b | default(1) }}",
        "{{ get.nothing.below | d(1) }}",
        "{{ get.list[9] | default(1) }}",
        "{{ get.number.x | default(1) }}",
        "{{ results['no such step'].x | default(1) }}",
        "{{ none | default(1, true) }}",
        "{{ (a if true else 2) | default(1) }}",
    ],
)
def test_an_undefined_value_can_be_chained_and_given_a_default(source: str) -> None:
    """`a.b.c | default(1)` is 1 when `a` never ran."""
    assert value_of(source, steps={"get": {"list": [1], "number": 5}}, never_ran=("a",)) == 1


def test_is_defined_takes_undefined_values() -> None:
    """At any depth of a chain."""
    assert value_of("{{ a is defined }}") is False
    assert value_of("{{ a.b.c is defined }}") is False
    assert value_of("{{ a.b is not defined }}") is True
    assert value_of("{{ a.b is undefined }}") is True
    assert value_of("{{ a is defined }}", inputs={"a": None}) is True
    assert value_of("{{ 1 if a.b is defined and a.b > 3 else 0 }}") == 0


@pytest.mark.parametrize(
    "source",
    [
        "{{ a }}",
        "x {{ a }}",
        "{{ a.b.c }}",
        "{{ a + 1 }}",
        "{{ 1 + a }}",
        "{{ a == 1 }}",
        "{{ 1 == a }}",
        "{{ a in [] }}",
        "{{ 1 in a }}",
        "{{ 'x' ~ a }}",
        "{{ -a }}",
        "{{ not a }}",
        "{{ a and true }}",
        "{{ true and a }}",
        "{{ false or a }}",
        "{{ (false or a) | default(1) }}",
        "{{ 1 if a else 2 }}",
        "{% if a %}x{% endif %}",
        "{% for x in a %}x{% endfor %}",
        "{{ [a] | length }}",
        "{{ [1, a] }}",
        "{{ {'k': a} | length }}",
        "{{ {a: 1} }}",
        "{{ range(a) }}",
        "{{ 'x'.replace('x', a) }}",
        "{{ 1 | default(a) }}",
        "{{ 'x' | center(a) }}",
        "{{ a | upper }}",
        "{{ a | length }}",
        "{{ a | tojson }}",
        "{{ a is none }}",
        "{{ a is mapping }}",
        "{{ 1 is divisibleby(a) }}",
        "{{ a.upper() }}",
        "{{ [1][a] | default(1) }}",
        "{{ 1 < 2 < a }}",
        "{{ [{'x': 1}] | map(attribute='y') | list }}",
    ],
)
def test_other_uses_of_an_undefined_value_are_errors(source: str) -> None:
    """Output, an operand, an argument, an element, another test."""
    assert "is undefined" in error_message_of(source)


def test_the_error_of_an_undefined_value_has_its_whole_path() -> None:
    """The author sees which name was looked up."""
    assert error_message_of("{{ get.temp.max }}", steps={"get": {"temp": {}}}) == (
        "`get.temp.max` is undefined: there is no such key in a mapping"
    )
    assert error_message_of("{{ gte.temp }}") == (
        "`gte` is undefined: no input, step with a result or workload key has that name"
    )
    assert error_message_of("{{ results['x y'] }}") == ("`results.x y` is undefined: no step of that name has a result")


@pytest.mark.parametrize("source", ["{{ a.id }}", "{{ a.data.id }}", "{{ results['a'].id }}", "{{ a['id'] }}"])
def test_the_error_says_that_an_envelope_was_unwrapped(source: str) -> None:
    """The author returned the key, and must learn where it went."""
    unwrapped = StepResult({"total": 5}, "success", unwrapped=True)
    assert "the result of `a` was an envelope" in error_message_of(source, steps={"a": unwrapped})
    assert "envelope" not in error_message_of(source, steps={"a": {"total": 5}})
    assert "envelope" not in error_message_of("{{ a.total.id }}", steps={"a": unwrapped})
    assert "envelope" not in error_message_of("{{ b.id }}", inputs={"b": {}}, steps={"a": unwrapped})


def test_a_false_inline_if_without_else_is_undefined() -> None:
    """`x if y` without an `else` has no value."""
    assert error_message_of("{{ 1 if false }}") == "the condition is false, and there is no `else`"
    assert value_of("{{ (1 if false) | default(2) }}") == 2

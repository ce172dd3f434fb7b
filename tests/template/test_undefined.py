"""Undefined values: they chain, may be defaulted and asked for, and are an error anywhere else."""

from __future__ import annotations

import pytest

from tests.template.evaluating import complaint_about, value_of


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
def test_undefined_stays_undefined_along_a_chain_and_may_be_defaulted(source: str) -> None:
    """`a.b.c | default(1)` is 1 when `a` never ran."""
    assert value_of(source, steps={"get": {"list": [1], "number": 5}}, never_ran=("a",)) == 1


def test_is_defined_and_is_not_defined_take_what_is_undefined() -> None:
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
def test_any_other_use_is_an_error(source: str) -> None:
    """Output, an operand, an argument, an element, another test."""
    assert "is undefined" in complaint_about(source)


def test_the_error_names_the_whole_path() -> None:
    """So that its author finds it, and learns what was looked for."""
    assert complaint_about("{{ get.temp.max }}", steps={"get": {"temp": {}}}) == (
        "`get.temp.max` is undefined: there is no such key in a mapping"
    )
    assert complaint_about("{{ gte.temp }}") == (
        "`gte` is undefined: no input, step with a result or workload key has that name"
    )
    assert complaint_about("{{ results['x y'] }}") == ("`results.x y` is undefined: no step of that name has a result")


def test_a_condition_without_else_that_is_false_is_undefined() -> None:
    """`x if y` without an `else` has no value to give."""
    assert complaint_about("{{ 1 if false }}") == "the condition is false, and there is no `else`"
    assert value_of("{{ (1 if false) | default(2) }}") == 2

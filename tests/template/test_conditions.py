"""Conditions: one expression, and when it counts as true."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_broker.template import TemplateError, compile_condition, is_true
from tests.template.evaluating import scope_with


@pytest.mark.parametrize("source", ["n > 2", "{{ n > 2 }}", "  {{ n > 2 }}\n", "{{n>2}}", "n\n > 2\n"])
def test_a_condition_may_stand_with_or_without_braces(source: str) -> None:
    """Both forms are one expression."""
    condition = compile_condition(source, "when")
    assert condition.evaluate(scope_with(inputs={"n": 3})) is True
    assert condition.names == {"n"}


@pytest.mark.parametrize("source,expected", [(True, True), (False, False), (0, 0), ("true", True), ("'no'", "no")])
def test_a_plain_value_stands_for_itself(source: object, expected: Any) -> None:
    """YAML reads `when: true` as a boolean."""
    assert compile_condition(source, "when").evaluate(scope_with()) == expected


@pytest.mark.parametrize(
    "source",
    [
        None,
        "",
        "  \n",
        "{{ }}",
        "x {{ n }}",
        "{{ n }} x",
        "{{ n }}{{ n }}",
        "{{ n }} and {{ n }}",
        "n == {{ n }}",
        "{% if n %}true{% endif %}",
        "n }} x {{ n",
        "n, n",
        "n >",
        {"a": 1},
        [],
    ],
)
def test_what_is_not_one_expression_is_refused(source: object) -> None:
    """Text outside the braces, nothing at all, null, a mapping, half an expression."""
    with pytest.raises(TemplateError) as caught:
        compile_condition(source, "workflow[2].next[0].when")
    assert caught.value.at == "workflow[2].next[0].when"


@pytest.mark.parametrize("word", ["env", "job", "secret", "secrets", "keychain"])
def test_a_workers_word_in_a_condition_is_refused(word: str) -> None:
    """The broker decides conditions, and it does not know the worker's words."""
    with pytest.raises(TemplateError, match="known to workers only"):
        compile_condition(f"{word}.x == 1", "when")
    assert compile_condition(f"{word}.x == 1", "when", worker_words=frozenset()).names == {word}


def test_an_error_in_a_condition_is_neither_true_nor_false() -> None:
    """It is raised, with template, place and reason."""
    with pytest.raises(TemplateError) as caught:
        compile_condition("get.temp > 25", "workflow[1].next[0].when").evaluate(scope_with())
    assert str(caught.value) == (
        "workflow[1].next[0].when: `get` is undefined: no input, step with a result or workload key has that name, "
        "in the template 'get.temp > 25'"
    )


def test_the_same_text_at_two_places_complains_at_its_own() -> None:
    """The cache holds what was compiled, not where it stood."""
    for at in ("one", "two"):
        with pytest.raises(TemplateError) as caught:
            compile_condition("absent_everywhere", at).evaluate(scope_with())
        assert caught.value.at == at


FALSE: list[Any] = [
    None,
    False,
    0,
    0.0,
    "",
    [],
    {},
    "false",
    "no",
    "off",
    "0",
    "none",
    "null",
    " False ",
    "NO",
    "\tOff\n",
    "  ",
]
TRUE = [True, 1, -1, 0.1, "true", "yes", "1", "00", "0.0", "nothing", "[]", [0], {"a": None}]


@pytest.mark.parametrize("value", FALSE)
def test_python_false_values_and_words_that_say_no_are_false(value: Any) -> None:
    """In any case, trimmed."""
    assert is_true(value) is False


@pytest.mark.parametrize("value", TRUE)
def test_all_else_is_true(value: Any) -> None:
    """Also texts that look like nothing."""
    assert is_true(value) is True

"""Conditions: one expression, and the values that count as true."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_broker.template import TemplateError, compile_condition, is_true
from tests.template.evaluating import scope_with


@pytest.mark.parametrize("source", ["n > 2", "{{ n > 2 }}", "  {{ n > 2 }}\n", "{{n>2}}", "n\n > 2\n"])
def test_a_condition_may_omit_the_braces(source: str) -> None:
    """Both forms are one expression."""
    condition = compile_condition(source, "when")
    assert condition.evaluate(scope_with(inputs={"n": 3})) is True
    assert condition.names == {"n"}


@pytest.mark.parametrize("source,expected", [(True, True), (False, False), (0, 0), ("true", True), ("'no'", "no")])
def test_a_condition_may_be_a_plain_value(source: object, expected: Any) -> None:
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
def test_a_condition_that_is_not_one_expression_is_refused(source: object) -> None:
    """Text outside the braces, an empty text, null, a mapping, half an expression."""
    with pytest.raises(TemplateError) as caught:
        compile_condition(source, "workflow[2].next[0].when")
    assert caught.value.at == "workflow[2].next[0].when"


@pytest.mark.parametrize("word", ["env", "job", "secret", "secrets", "keychain"])
def test_a_condition_that_reads_a_word_of_the_worker_is_refused(word: str) -> None:
    """The broker evaluates conditions and does not know these words."""
    with pytest.raises(TemplateError, match="known to workers only"):
        compile_condition(f"{word}.x == 1", "when")
    assert compile_condition(f"{word}.x == 1", "when", worker_words=frozenset()).names == {word}


def test_an_error_in_a_condition_is_raised() -> None:
    """It has the template, its place and the reason."""
    with pytest.raises(TemplateError) as caught:
        compile_condition("get.temp > 25", "workflow[1].next[0].when").evaluate(scope_with())
    assert str(caught.value) == (
        "workflow[1].next[0].when: `get` is undefined: no input, step with a result or workload key has that name, "
        "in the template 'get.temp > 25'"
    )


def test_an_error_names_the_place_of_this_use_of_a_text() -> None:
    """The cache holds compiled texts without places."""
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
def test_false_values_of_python_and_false_texts_are_false(value: Any) -> None:
    """In any case, trimmed."""
    assert is_true(value) is False


@pytest.mark.parametrize("value", TRUE)
def test_all_other_values_are_true(value: Any) -> None:
    """Also texts such as `none` that are not in the list."""
    assert is_true(value) is True

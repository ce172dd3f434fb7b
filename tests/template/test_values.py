"""The value of a template: native for one expression, else text; always JSON."""

from __future__ import annotations

from typing import Any

import pytest

from tests.template.evaluating import error_message_of, value_of


@pytest.mark.parametrize(
    "source,expected",
    [
        ("{{ n }}", 3),
        ("  {{ n }}\n", 3),
        ("{{- n -}}", 3),
        ("{{ n > 2 }}", True),
        ("{{ none }}", None),
        ("{{ [n, 'a'] }}", [3, "a"]),
        ("{{ {'a': {'b': n}} }}", {"a": {"b": 3}}),
        ("{{ '{{ n }}' }}", "{{ n }}"),
    ],
)
def test_one_expression_gives_its_native_value(source: str, expected: Any) -> None:
    """White space around the expression does not make it a text."""
    assert value_of(source, inputs={"n": 3}) == expected


@pytest.mark.parametrize(
    "source,expected",
    [
        ("{{ n }}{{ n }}", "33"),
        ("n={{ n }}", "n=3"),
        ("{{ n }} ", 3),
        ("{{ n }}{# a note #}", "3"),
        ("{% if n %}{{ n }}{% endif %}", "3"),
        ("{{ true }} {{ none }} {{ 1.5 }} {{ [1] }}", "True None 1.5 [1]"),
    ],
)
def test_text_or_several_expressions_give_a_text(source: str, expected: Any) -> None:
    """They are joined."""
    assert value_of(source, inputs={"n": 3}) == expected


@pytest.mark.parametrize(
    "source,expected",
    [
        ("{{ 1e16 }}", 10**16),
        ("{{ -1e16 }}", -(10**16)),
        ("{{ [1e23, {'a': 1e16}] }}", [10**23, {"a": 10**16}]),
        ("{{ {'a': 1e16}.get('a') | default(1) }}", 10**16),
        ("{{ 1e15 * 12.5 }}", 12_500_000_000_000_000),
        ("{{ 9999999999999998.0 }}", 9999999999999998.0),
        ("{{ 1e77 }}", 10**77),
        ("{{ 1e78 }}", 1e78),
        ("{{ 1e308 }}", 1e308),
        ("{{ 0.0 * -1 }}", 0.0),
        ("{{ 7.0 }}", 7.0),
        ("{{ {'a': 1e16} | to_json }}", '{"a": 10000000000000000}'),
        ("{{ n / 2 > 5 }}", True),
    ],
)
def test_a_number_equals_the_number_that_the_database_returns(source: str, expected: Any) -> None:
    """A float from 1e16 on is an integer of at most 256 bits. Zero has no sign."""
    found = value_of(source, inputs={"n": 1e308})
    assert (repr(found), type(found)) == (repr(expected), type(expected))


@pytest.mark.parametrize("text", ["007", "1", "true", "null", "[1]", '{"a": 1}', "1e3", " padded "])
def test_a_text_that_looks_like_something_else_stays_a_text(text: str) -> None:
    """No text is converted, whether written, looked up or joined."""
    assert value_of(text) == text
    assert value_of("{{ x }}", inputs={"x": text}) == text
    assert value_of("{% if true %}" + text + "{% endif %}") == text


def test_a_rendered_value_is_not_rendered_again() -> None:
    """A value that looks like a template is a value."""
    assert value_of("{{ x }}", inputs={"x": "{{ y }}"}) == "{{ y }}"
    assert value_of("a {{ x }}", inputs={"x": "{{ y }}"}) == "a {{ y }}"


@pytest.mark.parametrize("text", ["a\nb\n", "a\r\nb\r\n", "\n\n", "a\rb", "a\n"])
def test_newlines_are_kept(text: str) -> None:
    """The last newline and carriage returns stay, before and after an expression."""
    assert value_of(text) == text
    assert value_of(text + "{{ 1 }}" + text + "x") == text + "1" + text + "x"
    assert value_of("x{{ x }}", inputs={"x": text}) == "x" + text


def test_a_carriage_return_inside_an_expression_is_white_space() -> None:
    """Line breaks of any kind may split an expression. A quoted text keeps them."""
    assert value_of("{{ 1\r\n + 2 }}") == 3
    assert value_of("{{ 'a\r\nb' }}") == "a\r\nb"


@pytest.mark.parametrize(
    "source,expected",
    [
        ("{{ (1, 2) }}", [1, 2]),
        ("{{ range(3) }}", [0, 1, 2]),
        ("{{ [1, 2] | map('string') }}", ["1", "2"]),
        ("{{ {'a': (1, 2)} }}", {"a": [1, 2]}),
        ("{{ {'b': 1, 'a': 2} | dictsort }}", [["a", 2], ["b", 1]]),
        ("{{ 'ab' | list }}", ["a", "b"]),
        ("{{ [1, 2] | reverse }}", [2, 1]),
        ("of {{ [1, 2] | map('string') }}", "of ['1', '2']"),
    ],
)
def test_tuples_and_generators_become_lists(source: str, expected: Any) -> None:
    """Values are JSON, and no text shows a memory address."""
    assert value_of(source) == expected


@pytest.mark.parametrize(
    "source,reason",
    [
        ("{{ 'nan' | float }}", "nan is not a number that JSON can hold"),
        ("{{ 1e308 * 10 }}", "inf is not a number that JSON can hold"),
        ("{{ {1: 2} }}", "a mapping's key is 1, a number; in JSON keys are texts"),
        ("{{ namespace(a=1) }}", "a namespace is no value: only its parts can be used"),
        ("{{ '\\x00' }}", "it holds a NUL character"),
        ("{{ '\\ud800' }}", "it holds a lone surrogate"),
        ("{{ '\"\\\\u0000\"' | from_json }}", "the text holds a NUL character, which the database cannot keep"),
    ],
)
def test_a_value_that_json_cannot_hold_is_refused(source: str, reason: str) -> None:
    """NaN, keys that are no text, and text that the database refuses."""
    assert error_message_of(source) == reason


def test_a_path_gives_the_same_object() -> None:
    """A large result is not copied."""
    rows = [{"a": 1}]
    assert value_of("{{ get.rows }}", steps={"get": {"rows": rows}}) is rows


def test_an_error_has_reason_place_and_template() -> None:
    """The message is one sentence with all three."""
    assert error_message_of("{{ 1 / 0 }}") == "it divides by zero"
    assert error_message_of("{{ 1 + 'a' }}") == "`+` does not work on a number and a text"
    assert error_message_of("{{ none > 1 }}") == "`>` does not work on a null and a number"
    assert error_message_of("{{ 1 +").startswith("unexpected")

"""The syntax, filters, tests and methods of templates, and the names that they read."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_broker.template import TemplateError, compile_text
from tests.template.evaluating import error_message_of, scope_with, value_of


@pytest.mark.parametrize(
    "source,expected",
    [
        ("{% for x in [1, 2] %}{{ loop.index }}:{{ x }};{% endfor %}", "1:1;2:2;"),
        ("{% for k, v in {'a': 1}.items() %}{{ k }}={{ v }}{% endfor %}", "a=1"),
        ("{% for x in [1, 2, 3] if x is odd %}{{ x }}{% else %}none{% endfor %}", "13"),
        ("{% for x in [] %}{{ x }}{% else %}none{% endfor %}", "none"),
        ("{% if n > 5 %}a{% elif n == 3 %}b{% else %}c{% endif %}", "b"),
        ("{% set t = n * 2 %}{{ t }}!", "6!"),
        ("{% set t %}<{{ n }}>{% endset %}{{ t }}", "<3>"),
        ("{% with t = n %}{{ t }}{% endwith %}", "3"),
        ("{% filter upper %}a{{ n }}{% endfilter %}", "A3"),
        ("{% set s = namespace(t=0) %}{% for x in [1, 2] %}{% set s.t = s.t + x %}{% endfor %}{{ s.t }}", "3"),
        ("{% raw %}{{ n }}{% endraw %}", "{{ n }}"),
        ("a{# nothing #}b", "ab"),
        ("${#list[@]}", "${#list[@]}"),
        ("{{ 1 < n < 5 }}", True),
        ("{{ n in [3] and n not in [4] }}", True),
        ("{{ [1, 2, 3][-1] + [1, 2, 3][1:] | length }}", 5),
        ("{{ 7 // 2 }} {{ 7 % 4 }} {{ 7 / 2 }} {{ 7 - 2 }}", "3 3 3.5 5"),
        ("{{ 'a' + 'b' }} {{ [1] + [2] }} {{ 'a' ~ 1 }}", "ab [1, 2] a1"),
        ("{{ range(2) + [5] }} {{ range(2) == [0, 1] }} {{ range(2) * 2 }}", "[0, 1, 5] True [0, 1, 0, 1]"),
        ("{{ dict(a=1) }}", {"a": 1}),
    ],
)
def test_the_statements_and_operators_of_jinja_work(source: str, expected: Any) -> None:
    """Those that real SQL and header templates use."""
    assert value_of(source, inputs={"n": 3}) == expected


@pytest.mark.parametrize(
    "source,reason",
    [
        ("{% include 'x' %}", "a template cannot include another"),
        ("{% import 'x' as y %}", "a template cannot import another"),
        ("{% extends 'x' %}", "a template cannot extend another"),
        ("{% macro m() %}{% endmacro %}", "a macro is not allowed in templates"),
        ("{% for x in [] recursive %}{% endfor %}", "a recursive loop is not allowed in templates"),
        ("{{ 2 ** 3 }}", "`**` is not allowed in templates: multiply instead"),
        ("{{ self }}", "`self` has no meaning in templates"),
        ("{{ range(*[1]) }}", "arguments with * or ** are not allowed in templates"),
        ("{{ lipsum() }}", "there is no function `lipsum`: the functions are dict, namespace, now, range, uuid"),
        ("{{ x()() }}", "only a function or a method can be called"),
        ("{{ [1] | random }}", "there is no filter `random`"),
        ("{{ 'x' | attr('upper') }}", "there is no filter `attr`"),
        ("{{ 1 is strange }}", "there is no test `strange`"),
    ],
)
def test_syntax_that_is_not_allowed_does_not_compile(source: str, reason: str) -> None:
    """The message names it, at registration."""
    assert error_message_of(source) == reason


@pytest.mark.parametrize("source", ["{{ x.__class__ }}", "{{ x['__class__'] }}", "{{ x.upper }}", "{{ x.real }}"])
def test_attributes_of_objects_are_never_read(source: str) -> None:
    """A dot reads a key of a mapping."""
    assert "is undefined" in error_message_of(source, inputs={"x": "text"})


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'x'.format(1) }}",
        "{{ 'x'.encode() }}",
        "{{ [1].append(2) }}",
        "{{ {'a': 1}.pop('a') }}",
        "{{ {'a': 1}.update() }}",
        "{{ n.bit_length() }}",
        "{{ namespace().__init__() }}",
    ],
)
def test_only_the_listed_methods_can_be_called(source: str) -> None:
    """No method changes a value or formats without limit."""
    assert "has no method" in error_message_of(source, inputs={"n": 3})


@pytest.mark.parametrize(
    "source,expected",
    [
        ("{{ 'aBc'.upper() }}", "ABC"),
        ("{{ ' a '.strip() }}", "a"),
        ("{{ 'a,b'.split(',') }}", ["a", "b"]),
        ("{{ '-'.join(['a', 'b']) }}", "a-b"),
        ("{{ 'abc'.startswith('a') and 'abc'.endswith('c') }}", True),
        ("{{ 'aXa'.replace('X', '-') }}", "a-a"),
        ("{{ 'abc'.find('c') }}", 2),
        ("{{ '7'.zfill(3) }}", "007"),
        ("{{ {'a': 1}.get('a') }} {{ {'a': 1}.get('b', 2) }} {{ {'a': 1}.get('b') }}", "1 2 None"),
        ("{{ {'a': 1}.keys() }} {{ {'a': 1}.values() }}", "['a'] [1]"),
        ("{{ [1, 2, 1].count(1) }} {{ [1, 2].index(2) }}", "2 1"),
    ],
)
def test_common_methods_work(source: str, expected: Any) -> None:
    """Of texts, mappings and lists."""
    assert value_of(source) == expected


@pytest.mark.parametrize(
    "source,expected",
    [
        ("{{ {'b': 1, 'a': '<é>'} | tojson }}", '{"a": "\\u003c\\u00e9\\u003e", "b": 1}'),
        ("{{ {'b': 1, 'a': '<é>'} | to_json }}", '{"b": 1, "a": "<é>"}'),
        ("{{ '{\"a\": [1, null]}' | from_json }}", {"a": [1, None]}),
        ("{{ 'héllo' | b64encode }}", "aMOpbGxv"),
        ("{{ 'aMOpbGxv' | b64decode }}", "héllo"),
        ("{{ {'a': 1} | tojson | b64encode | b64decode | from_json }}", {"a": 1}),
        ("{{ '5' | int + 1 }} {{ '1.5' | float }} {{ 'x' | int(9) }}", "6 1.5 9"),
        ("{{ [3, 1, 2] | sort | join(', ') }}", "1, 2, 3"),
        ("{{ [1, 2, 3] | sum }} {{ [1, 2, 3] | max }} {{ [1, 2] | first }} {{ [1, 2] | last }}", "6 3 1 2"),
        ("{{ [{'n': 1}, {'n': 2}] | map(attribute='n') | list }}", [1, 2]),
        ("{{ [{'n': 1}, {'n': 2}] | selectattr('n', 'gt', 1) | list }}", [{"n": 2}]),
        ("{{ [{'n': 1}, {}] | selectattr('n', 'defined') | list }}", [{"n": 1}]),
        ("{{ [1, 1, 2] | unique | list }} {{ [1, 2, 3] | batch(2) | list }}", "[1, 2] [[1, 2], [3]]"),
        ("{{ {'a': 1} | items | list }}", [["a", 1]]),
        ("{{ 'a b' | urlencode }} {{ '<' | e }} {{ 'x' | safe }} {{ 'ab' | capitalize }}", "a%20b &lt; x Ab"),
        ("{{ [{'k': 'a', 'n': 1}, {'k': 'a', 'n': 2}] | groupby('k') | map(attribute='grouper') | list }}", ["a"]),
        ("{% for g in [{'k': 'a'}, {'k': 'a'}] | groupby('k') %}{{ g.list | length }}{% endfor %}", "2"),
        ("{{ 3.7 | round | int }} {{ -2 | abs }} {{ 'abc' | length }} {{ 'abc' | reverse }}", "4 2 3 cba"),
    ],
)
def test_the_filters_of_jinja_and_of_playbooks_work(source: str, expected: Any) -> None:
    """Their results are plain values."""
    assert value_of(source) == expected


def test_filters_give_plain_text_not_markup() -> None:
    """Markup would escape the text that is joined to it."""
    assert type(value_of("{{ {'a': 1} | tojson }}")) is str
    assert value_of("{{ ('<' | e) ~ '<' }}") == "&lt;<"
    assert value_of("{{ ('<' | e) + '<' }}") == "&lt;<"


def test_bad_input_of_a_filter_is_a_template_error() -> None:
    """Broken JSON, broken base64."""
    assert "Expecting value" in error_message_of("{{ 'x' | from_json }}")
    assert error_message_of("{{ '***' | b64decode }}")
    assert error_message_of("{{ [1] | dictsort }}").startswith("a filter cannot work on what it is given")
    assert error_message_of("{{ 'text' | truncate(true) }}").startswith("a filter cannot work on what it is given")
    assert error_message_of("{{ 1 | from_json }}") == "`from_json` reads a text, not a number"


def test_templates_do_not_change_values_of_the_scope() -> None:
    """A template cannot write into the result of a step."""
    rows = [3, 1, 2]
    assert value_of("{{ get | sort }} {{ get | reverse }} {{ get + [4] }}", steps={"get": rows})
    assert rows == [3, 1, 2]


@pytest.mark.parametrize(
    "source,names,results",
    [
        ("{{ get.temp > limit }}", {"get", "limit"}, set()),
        ("plain", set(), set()),
        ("{% for x in rows %}{{ x.a }}{{ y }}{% endfor %}", {"rows", "y"}, set()),
        ("{% set x = a %}{{ x }}", {"a"}, set()),
        ("{{ now() }} {{ range(n) }}", {"n"}, set()),
        ("{{ results['a b'].x }} {{ results.c }}", {"results"}, {"a b", "c"}),
        ("{{ results[name] }}", {"results", "name"}, None),
        ("{{ results | length }}", {"results"}, None),
        ("{{ results.a }} {{ results }}", {"results"}, None),
    ],
)
def test_a_compiled_template_has_the_names_that_it_reads(
    source: str, names: set[str], results: set[str] | None
) -> None:
    """So the broker loads only those results."""
    template = compile_text(source, "here")
    assert template.names == names
    assert template.results == results


def test_a_source_is_compiled_once() -> None:
    """Two places with one text share the compiled template."""
    one, two = compile_text("{{ a + 1 }}", "one"), compile_text("{{ a + 1 }}", "two")
    assert one._compiled is two._compiled
    assert (one.at, two.at) == ("one", "two")


def test_an_error_shows_the_begin_of_a_long_template() -> None:
    """The error object has the whole text."""
    source = "{{ 1 / 0 }}" + "x" * 1000
    with pytest.raises(TemplateError) as caught:
        compile_text(source, "here").evaluate(scope_with())
    assert caught.value.template == source
    assert len(str(caught.value)) < 300

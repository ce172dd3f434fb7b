"""Templates that would eat time or memory end in an error within 100 ms."""

from __future__ import annotations

import time

import pytest

from noetl_broker.template import Bounds, TemplateError, bounds, compile_text, set_bounds
from tests.template.evaluating import scope_with, value_of

LIMIT_SECONDS = 0.1

BOMBS = [
    "{{ 'a' * 10**10 }}",
    "{{ 'a' * 10000000000 }}",
    "{{ range(10**9) | list }}",
    "{{ range(1000000000) | list }}",
    "{{ range(0, -1000000000, -1) | list }}",
    "{{ 10 ** (10 ** 10) }}",
    "{% if false %}{{ 10 ** (10 ** 10) }}{% endif %}",
    "{{ ('a' * 100000000) | length }}",
    "{{ [0] * 100000000 }}",
    "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
    "{% for i in range(100000) %}{{ a.b | default(i) ~ i | string | upper }}{% endfor %}",
    "{% for i in range(100000) %}{% if 'a' * 1000000 == 'b' %}{% endif %}{% endfor %}",
    "{% for i in range(100000) %}{{ {'a': [i, i]} | tojson | from_json | to_json }}{% endfor %}",
    "{% for i in range(100000) %}" + "x" * 60_000 + "{% endfor %}",
    "{% for i in range(100000) %}{{ 1.5 in range(100000) }}{% endfor %}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ '%*d' | format(1000000000, 1) }}",
    "{{ '%.1000000000f' | format(1) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ 'x' | center(1000000000) }}",
    "{{ 'x'.zfill(1000000000) }}",
    "{{ 'x'.ljust(1000000000) }}",
    "{{ 'x' | indent(1000000000) }}",
    "{{ ('x' * 1000) | replace('x', 'y' * 100000) }}",
    "{{ ('x' * 1000).replace('', 'y' * 100000) }}",
    "{{ [1] | batch(1000000000, 0) | list }}",
    "{{ [1] | slice(1000000000) | list }}",
    "{{ 5 | round(-1000000000) }}",
    "{{ 5 | round(1000000000, 'ceil') }}",
    "{{ [1] | tojson(1000000000) }}",
    "{{ [[1], [2]] | sum(start=[]) }}",
    "{{ range(100000) | map('string') | map('upper') | list }}",
    "{{ range(100000) | groupby('" + "a." * 20_000 + "a') }}",
    "{{ ('a' * 1000000).strip('b' * 1000000 ~ 'a') }}",
    "{{ ('a' * 1000000).rsplit('b' ~ 'a' * 500000) }}",
    "{{ ('a ' * 500000).split() | length }}",
    "{{ ('<!---->' * 100000) | striptags }}",
    "{{ ('www.a.' * 100000) | urlize }}",
    "{% set n = namespace(x=[1]) %}{% for i in range(100) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x | tojson }}",
    "{% set n = namespace(x='ab') %}{% for i in range(100) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "{% set n = namespace(x=[1]) %}{% for i in range(100) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}",
    "{% set n = namespace(x=7) %}{% for i in range(100) %}{% set n.x = n.x * n.x %}{% endfor %}{{ n.x }}",
    "{% set n = namespace(x=[1]) %}{% for i in range(9000) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x }}",
    "{{ " + "9" * 5_000 + " }}",
    "{{ " + "9" * 100 + " }}",
    "{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}",
    "{{ " + "1+" * 20_000 + "1 }}",
    "{{ " + "not " * 10_000 + "1 }}",
    "{{ a" + ".a" * 30_000 + " }}",
    "{{ a" + " | upper" * 8_000 + " }}",
    "{{ [" + "''," * 20_000 + "] }}",
    "{{a}}" * 13_000,
    "{% if a %}" * 6_000,
    "{{ 1 }}" + "x" * 70_000,
    "{{ ('[' * 100000) | from_json }}",
    "{{ 1e999 }}",
]


@pytest.mark.parametrize("source", BOMBS, ids=lambda source: source[:60])
def test_a_bomb_ends_in_an_error_within_100_ms(source: str) -> None:
    """Also where it would never be reached: nothing is computed while compiling."""
    assert min(seconds_to_refuse(source) for _ in range(3)) < LIMIT_SECONDS


def seconds_to_refuse(source: str) -> float:
    """Give the processor time until the error; a busy machine does not count against the template."""
    started = time.thread_time()
    with pytest.raises(TemplateError):
        compile_text(source, "here").evaluate(scope_with(inputs={"a": "x"}))
    return time.thread_time() - started


@pytest.mark.parametrize(
    "source,expected",
    [
        ("{{ range(100000) | list | length }}", 100_000),
        ("{{ '-' * 40 }}", "-" * 40),
        ("{{ [0] * 3 }}", [0, 0, 0]),
        ("{{ '%05.2f' | format(3.14159) }}", "03.14"),
        ("{{ '%-5s|%d%%' | format('a', 7) }}", "a    |7%"),
        ("{{ 'x' | center(5) }}", "  x  "),
        ("{{ 12345.678 | round(1) }}", 12345.7),
        ("{{ ('a,' * 1000).split(',') | length }}", 1001),
    ],
)
def test_ordinary_amounts_are_within_the_bounds(source: str, expected: object) -> None:
    """The bounds are far from what playbooks do."""
    assert value_of(source) == expected


def test_a_list_of_the_widest_range_passes() -> None:
    """The collection of a wide iterator may be written as a range."""
    assert value_of("{{ range(100000) | list }}") == list(range(100_000))


def test_the_bounds_are_settings_of_the_process() -> None:
    """Fewer units of fuel stop a shorter loop."""
    source = "{% for i in range(1000) %}x{% endfor %}"
    before = bounds()
    assert value_of(source) == "x" * 1000
    set_bounds(Bounds(fuel=1000))
    try:
        with pytest.raises(TemplateError, match="more work than the 1,000 units"):
            value_of(source)
    finally:
        set_bounds(before)

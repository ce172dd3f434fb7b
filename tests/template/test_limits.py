"""The limits of an evaluation, and templates that are far below them."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_broker.template import Allowance, TemplateError, compile_text
from noetl_broker.template.compiled import compiled_text
from noetl_broker.template.engine import generate, parse
from noetl_broker.template.grammar import check
from tests.template.escapes import HARMLESS
from tests.template.evaluating import error_message_of, scope_with, value_of


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
        ("{{ 1.5 | round(20) }}", 1.5),
        ("{{ 1234 | round(-2) }}", 1200),
        ("{{ ('a,' * 1000).split(',') | length }}", 1001),
    ],
)
def test_ordinary_templates_are_within_the_limits(source: str, expected: object) -> None:
    """Templates of real playbooks are far below the limits."""
    assert value_of(source) == expected


@pytest.mark.parametrize(
    "source, message",
    [
        ("{{ x | round(400) }}", "400 is too large for this filter: numbers up to 20 are allowed"),
        ("{{ x | round(-21) }}", "-21 is too large for this filter: numbers up to 20 are allowed"),
        ("{{ x | round(precision=21) }}", "21 is too large for this filter: numbers up to 20 are allowed"),
        ("{{ x | round(21.0, 'ceil') }}", "21.0 is too large for this filter: numbers up to 20 are allowed"),
        ("{{ '%1000000000d' | format(1) }}", "`format` takes plain conversions such as %s, %d, %05.2f; widths"),
        ("{{ 'x' | truncate(1001) }}", "1001 is too large for this filter: numbers up to 1000 are allowed"),
    ],
)
def test_a_filter_refuses_a_number_that_is_too_large(source: str, message: str) -> None:
    """The message has the limit."""
    assert message in error_message_of(source.replace("x |", "1.5 |"))


LARGE: dict[str, Any] = {
    "rows": [{"id": number, "name": "abc", "city": "x", "age": 3} for number in range(20_000)],
    "n": 1,
}


@pytest.mark.parametrize(
    "source, expected",
    [
        ("{{ got is none }}", False),
        ("{{ got is mapping }}", True),
        ("{{ got.rows is sequence and got.rows is iterable and got.rows is not string }}", True),
        ("{{ 'error' in got }}", False),
        ("{{ 'rows' is in got }}", True),
        ("{{ [1] in got }}", False),
        ("{{ got == none }}", False),
        ("{{ got != none and none != got and got.rows != got }}", True),
        ("{{ got.rows != [] }}", True),
        ("{{ got.rows == [1, 2] or got == {} or got.rows == range(3) or got is eq('x') }}", False),
        ("{{ got is sameas none or got is sameas(true) }}", False),
        ("{{ got.rows | length }}", 20_000),
        ("{{ got.get('rows') }}", LARGE["rows"]),
        ("{{ got.get('none', {}).get('rows', [1]) }}", [1]),
        ("{{ got.rows | default([]) }}", LARGE["rows"]),
        ("{{ got.rows or {'a': 1} }}", LARGE["rows"]),
        ("{{ got.rows if got is mapping and got.rows | length > 0 else ['a', none] }}", LARGE["rows"]),
    ],
)
def test_operations_that_read_no_element_have_a_fixed_cost(source: str, expected: object) -> None:
    """Type tests, lookups of a key, values that differ in type or length, and values that are passed on."""
    assert value_of(source, steps={"got": LARGE}, allowance=Allowance(steps=6_000)) == expected


@pytest.mark.parametrize(
    "source",
    [
        "{{ got == same }}",
        "{{ got.rows != same.rows }}",
        "{{ got is sameas(same) }}",
        "{{ got.rows < same.rows }}",
        "{{ [got] == [same] }}",
        "{{ [got.rows] != [same.rows] }}",
        "{{ 1 in got.rows }}",
        "{{ got.rows in [same.rows] }}",
        "{{ text == text2 }}",
        "{{ 'b' in text }}",
        "{{ text in {'a': 1} }}",
        "{{ range(90000) == range(90000) }}",
        "{{ range(90000) == 1 }}",
        "{{ got.rows | sort(attribute='id') | length }}",
        "{{ {'rows': got.rows} }}",
        "{{ [got] }}",
        "{{ got.get('x', [got]) }}",
        "{{ got.items() }}",
        "{{ got.rows | default([]) | list }}",
    ],
)
def test_reading_elements_costs_by_their_number(source: str) -> None:
    """Comparisons, searches, sorts and copies."""
    texts = {"text": "a" * 100_000, "text2": "a" * 100_000}
    same = {"rows": [dict(row) for row in LARGE["rows"]], "n": 1}
    message = error_message_of(source, steps={"got": LARGE, "same": same, **texts}, allowance=Allowance(steps=2_000))
    assert "more than the 2,000 steps" in message


def test_the_widest_range_can_be_listed() -> None:
    """An iterator may write its collection as a range."""
    assert value_of("{{ range(100000) | list }}") == list(range(100_000))


def test_limits_come_from_the_allowance_of_the_turn() -> None:
    """Fewer steps stop a shorter loop, fewer characters a shorter text."""
    loop = "{% for i in range(1000) %}x{% endfor %}"
    assert value_of(loop) == "x" * 1000
    assert "more than the 1,000 steps" in error_message_of(loop, allowance=Allowance(steps=1000))
    assert "more than the allowed 100" in error_message_of("{{ 'x' * 101 }}", allowance=Allowance(output_chars=100))


def test_the_templates_of_one_turn_share_an_allowance() -> None:
    """Steps that one template used are gone for the next."""
    loop = "{% for i in range(1000) %}x{% endfor %}"
    allowance = Allowance(turn_steps=30_000)
    assert value_of(loop, allowance=allowance) == "x" * 1000
    assert value_of(loop, allowance=allowance) == "x" * 1000
    assert error_message_of(loop, allowance=allowance) == (
        "the templates of one turn take more than 30,000 steps together (template_max_steps)"
    )
    allowance.add_steps(30_000)
    assert value_of(loop, allowance=allowance) == "x" * 1000


def test_code_is_generated_at_the_first_evaluation() -> None:
    """Registration only parses and checks."""
    source = "{{ made_when_it_is_evaluated | default(1) }}"
    compiled = compiled_text(source)
    assert compiled.root is None
    assert value_of(source) == 1
    assert compiled.root is not None


@pytest.mark.parametrize(
    "source", [source for group in HARMLESS.values() for source in group], ids=lambda one: one[:40]
)
def test_every_checked_template_compiles(source: str) -> None:
    """The names of the tree equal those that the code looks up."""
    stripped = source.strip()
    tree = parse(stripped)
    checked = check(tree)
    _, names = generate(tree, native=False)
    assert checked.names in {None, names}


def test_a_false_text_may_have_much_white_space() -> None:
    """A long text is scanned once."""
    condition = compile_text("{{ word }}", "when")
    assert condition.holds(scope_with(inputs={"word": " " * 1000 + "No\n"})) is False
    assert condition.holds(scope_with(inputs={"word": "no" * 1000})) is True
    with pytest.raises(TemplateError, match="more than the 1,000 steps"):
        condition.holds(scope_with(inputs={"word": " " * 100_000}, allowance=Allowance(steps=1000)))


def test_results_as_a_value_cost_by_the_number_of_steps() -> None:
    """`results.a` reads one step only."""
    steps = {f"s{number}": number for number in range(10_000)}
    assert value_of("{{ results | length }} {{ results.s7 }}", steps=steps) == "10000 7"
    often = "{% for i in range(100) %}{{ results | length }}{% endfor %}"
    assert "more than the 500,000 steps" in error_message_of(often, steps=steps)
    assert value_of("{% for i in range(100) %}{{ results.s7 }}{% endfor %}", steps=steps) == "7" * 100

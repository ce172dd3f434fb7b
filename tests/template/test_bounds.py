"""The bounds of an evaluation, and what is far within them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from noetl_broker.template import Allowance, TemplateError, compile_text
from noetl_broker.template.compiled import text_of
from noetl_broker.template.engine import generate, parse
from noetl_broker.template.grammar import check
from tests.template.escapes import HARMLESS
from tests.template.evaluating import complaint_about, scope_with, value_of

LIMIT_SECONDS = 0.1
# Those that the specification names.
BOMBS = [
    "{{ 'a' * 10**10 }}",
    "{{ range(10**9) | list }}",
    "{{ 10 ** (10 ** 10) }}",
    "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ '{:1000000000}'.format(1) }}",
]


@pytest.mark.parametrize("source", BOMBS, ids=lambda source: source[:60])
def test_a_bomb_ends_in_an_error_within_100_ms(source: str) -> None:
    """Of the processor's time; and no more of memory, which the corpus of escapes is measured for."""
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
        ("{{ 1.5 | round(20) }}", 1.5),
        ("{{ 1234 | round(-2) }}", 1200),
        ("{{ ('a,' * 1000).split(',') | length }}", 1001),
    ],
)
def test_ordinary_amounts_are_within_the_bounds(source: str, expected: object) -> None:
    """The bounds are far from what playbooks do."""
    assert value_of(source) == expected


@pytest.mark.parametrize(
    "source, told",
    [
        ("{{ x | round(400) }}", "400 is too large for this filter: numbers up to 20 are allowed"),
        ("{{ x | round(-21) }}", "-21 is too large for this filter: numbers up to 20 are allowed"),
        ("{{ x | round(precision=21) }}", "21 is too large for this filter: numbers up to 20 are allowed"),
        ("{{ x | round(21.0, 'ceil') }}", "21.0 is too large for this filter: numbers up to 20 are allowed"),
        ("{{ 'x' | truncate(1001) }}", "1001 is too large for this filter: numbers up to 1000 are allowed"),
    ],
)
def test_a_number_that_is_too_large_for_a_filter_is_told_as_it_is_written(source: str, told: str) -> None:
    """With the bound that it goes by."""
    assert told in complaint_about(source.replace("x |", "1.5 |"))


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
def test_what_looks_at_no_element_costs_nothing_by_the_size_of_the_value(source: str, expected: object) -> None:
    """Questions of kind, whether a mapping has a key, values unequal by kind or length; and what hands a value on."""
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
def test_what_is_walked_through_is_paid_for(source: str) -> None:
    """All that is compared, searched, sorted or made anew."""
    texts = {"text": "a" * 100_000, "text2": "a" * 100_000}
    same = {"rows": [dict(row) for row in LARGE["rows"]], "n": 1}
    told = complaint_about(source, steps={"got": LARGE, "same": same, **texts}, allowance=Allowance(steps=2_000))
    assert "more than the 2,000 steps" in told


def test_a_list_of_the_widest_range_passes() -> None:
    """The collection of a wide iterator may be written as a range."""
    assert value_of("{{ range(100000) | list }}") == list(range(100_000))


def test_the_bounds_are_those_of_the_turns_allowance() -> None:
    """Fewer steps stop a shorter loop, fewer characters a shorter text."""
    loop = "{% for i in range(1000) %}x{% endfor %}"
    assert value_of(loop) == "x" * 1000
    assert "more than the 1,000 steps" in complaint_about(loop, allowance=Allowance(steps=1000))
    assert "more than the allowed 100" in complaint_about("{{ 'x' * 101 }}", allowance=Allowance(output_chars=100))


def test_the_templates_of_one_turn_share_an_allowance() -> None:
    """What one has taken the next cannot take."""
    loop = "{% for i in range(1000) %}x{% endfor %}"
    allowance = Allowance(turn_steps=30_000)
    assert value_of(loop, allowance=allowance) == "x" * 1000
    assert value_of(loop, allowance=allowance) == "x" * 1000
    assert complaint_about(loop, allowance=allowance) == (
        "the templates of one turn take more than 30,000 steps together (template_max_steps)"
    )
    allowance.widen(30_000)
    assert value_of(loop, allowance=allowance) == "x" * 1000


def test_code_is_made_at_the_first_evaluation() -> None:
    """At registration a template is parsed and checked; most of what a playbook holds is evaluated much later."""
    source = "{{ made_when_it_is_evaluated | default(1) }}"
    compiled = text_of(source)
    assert compiled.root is None
    assert value_of(source) == 1
    assert compiled.root is not None


@pytest.mark.parametrize(
    "source", [source for group in HARMLESS.values() for source in group], ids=lambda one: one[:40]
)
def test_what_passes_the_check_compiles(source: str) -> None:
    """And the names that the tree tells are those that the code looks up."""
    stripped = source.strip()
    tree = parse(stripped)
    checked = check(tree)
    _, names = generate(tree, native=False)
    assert checked.names in {None, names}


def test_a_text_that_counts_as_false_is_found_however_much_is_around_it() -> None:
    """And a long one is looked at once only."""
    condition = compile_text("{{ word }}", "when")
    assert condition.holds(scope_with(inputs={"word": " " * 1000 + "No\n"})) is False
    assert condition.holds(scope_with(inputs={"word": "no" * 1000})) is True
    with pytest.raises(TemplateError, match="more than the 1,000 steps"):
        condition.holds(scope_with(inputs={"word": " " * 100_000}, allowance=Allowance(steps=1000)))


def test_all_results_at_once_cost_by_the_number_of_steps() -> None:
    """`results` as a value looks at each of them; one step of it does not."""
    steps = {f"s{number}": number for number in range(10_000)}
    assert value_of("{{ results | length }} {{ results.s7 }}", steps=steps) == "10000 7"
    often = "{% for i in range(100) %}{{ results | length }}{% endfor %}"
    assert "more than the 500,000 steps" in complaint_about(often, steps=steps)
    assert value_of("{% for i in range(100) %}{{ results.s7 }}{% endfor %}", steps=steps) == "7" * 100

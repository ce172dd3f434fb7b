"""A template in which values stand in place of names gives what it gave with the names."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from noetl_broker.template import Allowance, Moment, Scope, TemplateError, closed, compile_text

BAIT = "Ro\"m'e\n\\ \r\n {{ env.T }} }} %} {% raw %}{# \U0001f600 \ufdd0 é"
VALUES: dict[str, Any] = {
    "a": BAIT,
    "d": {"b": {"c": [1, -2.5, 1e300, None, True]}, "get": 1, "x y": "{{ a }}"},
    "n": -3,
    "none_": None,
    "l": [],
    "z": False,
    "e": {},
    "upper": "U",
    "defined": 5,
    "if": 1,
}


def evaluated(text: str, inputs: dict[str, Any]) -> Any:
    """What a template gives that sees these inputs, or its fault."""
    scope = Scope(
        inputs=inputs,
        steps=lambda _: None,
        words={"env": {"T": "tok"}},
        workload=dict,
        is_step=(),
        moment=Moment(execution_id=1, turn=1, at=datetime(2025, 1, 1, tzinfo=UTC)),
    )
    return compile_text(text, "x", max_source_chars=None).evaluate(scope)


@pytest.mark.parametrize(
    "text",
    [
        "{{ a }} {{ env.T }}",
        "{{ a ~ env.T }}",
        "{{ a.upper() }}{{ a[0:2] }}",
        "{{ d }}",
        '{{ d["b"].c[1] ~ env.T }}{{ d.b.c.2 }}{{ d["x y"] }}',
        "{{ d.get('b').c | length }}{{ d.items() | list }}{{ d | dictsort | list }}",
        "{{ n * 2 }}-{{ n | abs }}{{ -n }}{{ 2 - n }}{{ 5 in d.b.c }}{{ range(n, 3) | list }}",
        "{{ a is defined and none_ is none and upper | upper }}{{ defined is defined }}{{ upper is not defined }}",
        "{% if z %}{{ a }}{% elif l %}x{% else %}{{ n }}{% endif %}{{ a if z else n }}",
        "{% for q in d.b.c %}{{ q }}{{ loop.index }}{% endfor %}",
        "{% for a in l %}{{ a }}{% endfor %}{% set q = n %}{{ q }}",
        "{{ dict(a=n, n=a) }}{{ namespace(n=n).n }}{{ a == n }}",
        "{# a #}{% raw %}{{ a }}{% endraw %}{{ a }}",
        "{{- a -}}  \r\n {{ n }}\r\n{%- if n -%}  y  {%- endif -%}",
        "{{ l | default('z') }}{{ e.k | default(a) }}{{ e.k is defined }}",
        "{{ [a, n] | join(upper) }}{{ 'a' }}",
    ],
)
def test_it_gives_the_same_without_the_names(text: str) -> None:
    """Whatever stands in the values: it is data."""
    alone = closed(text, "x", VALUES, Allowance())
    assert evaluated(alone, {}) == evaluated(text, VALUES)
    assert compile_text(alone, "x", max_source_chars=None).names <= {"env"}


def test_a_text_that_reads_none_stays_as_it_is() -> None:
    """To the letter."""
    text = "{{ env.T }} {{ b }}\r\n"
    assert closed(text, "x", VALUES, Allowance()) == text


def test_a_filter_that_only_a_worker_knows_stays() -> None:
    """The broker knows what the text reads all the same."""
    assert closed("{{ a | own(env.T) }}", "x", {"a": 1}, Allowance()) == "{{ (1) | own(env.T) }}"


@pytest.mark.parametrize(
    "text, a, reason",
    [
        ("{{ a }}{{ env.T }}", "x" * 70_000, "the values that it reads (a) are too long to travel in it"),
        ("{{ a }}{{ env.T }}", [*range(5_000)], "it has more than 4,000 words and signs"),
        ("{{ a }}{% set a = 1 %}{{ a }}", 2, "it gives a name of its own to one of a"),
        ("{% for a in a %}{{ a }}{% endfor %}", [1], "can't assign to 'list'"),
    ],
)
def test_what_cannot_be_written_so_is_refused(text: str, a: Any, reason: str) -> None:
    """With a remedy."""
    with pytest.raises(TemplateError) as refused:
        closed(text, "at", {"a": a}, Allowance())
    remedy = "hand the values on under their own names, and join them in the step"
    assert refused.value.message == f"it is left for a worker, and {reason}: {remedy}"
    assert (refused.value.template, refused.value.at) == (text, "at")


@pytest.mark.parametrize("turn", [{"turn_steps": 100_000}, {"turn_chars": 3_000}])
def test_a_turn_writes_only_so_many_of_them(turn: dict[str, int]) -> None:
    """Each costs more than its evaluation does."""
    allowance = Allowance(**turn)

    def write_all() -> None:
        for number in range(200):
            closed("{{ a }}{{ env.T }}", "at", {"a": number}, allowance)

    with pytest.raises(TemplateError, match=f"more than {next(iter(turn.values())):,} (steps|characters) together"):
        write_all()


def test_a_value_that_is_too_deep_is_refused() -> None:
    """As any template that is."""
    value: Any = 1
    for _ in range(2_000):
        value = [value]
    with pytest.raises(TemplateError, match="it is nested too deep"):
        closed("{{ a }}{{ env.T }}", "at", {"a": value}, Allowance())

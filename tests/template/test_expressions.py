"""Expressions as text: what is written again means the same, with brackets where they are needed and nowhere else."""

from __future__ import annotations

import pytest
from jinja2 import nodes

from noetl_broker.template import compile_text, engine, grammar
from noetl_broker.template.expressions import text_of

AS_WRITTEN = [
    "a.b > 25 and workload.n == 3",
    "a or b and not c",
    "(a or b) and not (c or d)",
    "a.b is defined",
    "a.b is not defined",
    "a is divisibleby(3)",
    "a.b | default(1) >= 2",
    "(a or b) | length",
    "a | join(', ', attribute='x')",
    "a['b c'][0]",
    "a[1:2]",
    "a[:-1:2]",
    "a - (b - c)",
    "a - b - c",
    "(a + b) * c",
    "-a + b",
    "-(a + b)",
    "a ~ b ~ 'x'",
    "a in [1, 'x', none, true]",
    "a not in {'x': 1}",
    "1 < a <= 3",
    "(a > 1) == b",
    "a.upper()",
    "range(3) | list",
    "a if b else c",
    "(a if b else c) + 1",
    "dict(a=1)",
    "not a == b",
    "1.5 * a // 2 % 7 / 3",
]


def parsed(source: str) -> nodes.Node:
    """The syntax tree of one expression, as conditions have it."""
    tree = engine.parse(f"{{{{ {source} }}}}")
    grammar.check(tree)
    output = tree.body[0]
    assert isinstance(output, nodes.Output)
    return output.nodes[0]


@pytest.mark.parametrize("source", AS_WRITTEN)
def test_an_expression_is_written_as_its_author_would(source: str) -> None:
    """To the letter."""
    assert text_of(parsed(source)) == source


@pytest.mark.parametrize(
    "source,text",
    [("a  and(b)", "a and b"), ("a['b']['c']", "a['b']['c']"), ("(a, b)", "(a, b)"), ("a|d", "a | d"), ("+a", "+a")],
)
def test_what_may_be_written_in_several_ways_is_written_in_one(source: str, text: str) -> None:
    """Blanks, and brackets without a meaning, go."""
    assert text_of(parsed(source)) == text


@pytest.mark.parametrize("source", AS_WRITTEN)
def test_what_is_written_again_compiles_to_the_same(source: str) -> None:
    """The text of the text is the text, and it is a template."""
    again = text_of(parsed(text_of(parsed(source))))
    assert again == source
    assert compile_text(f"{{{{ {again} }}}}", "here").names == compile_text(f"{{{{ {source} }}}}", "here").names

"""Expressions written as text have the same meaning, with the necessary parentheses only."""

from __future__ import annotations

import pytest
from jinja2 import nodes

from noetl_broker.template import compile_text, engine, grammar
from noetl_broker.template.breakdown import expression_text

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
    """Parse one expression as a condition is parsed."""
    tree = engine.parse(f"{{{{ {source} }}}}")
    grammar.check(tree)
    output = tree.body[0]
    assert isinstance(output, nodes.Output)
    return output.nodes[0]


@pytest.mark.parametrize("source", AS_WRITTEN)
def test_an_expression_as_text_equals_its_source(source: str) -> None:
    """Character by character."""
    assert expression_text(parsed(source)) == source


@pytest.mark.parametrize(
    "source,text",
    [("a  and(b)", "a and b"), ("a['b']['c']", "a['b']['c']"), ("(a, b)", "(a, b)"), ("a|d", "a | d"), ("+a", "+a")],
)
def test_an_expression_as_text_is_normalized(source: str, text: str) -> None:
    """Needless blanks and parentheses are dropped."""
    assert expression_text(parsed(source)) == text


@pytest.mark.parametrize("source", AS_WRITTEN)
def test_an_expression_as_text_compiles_to_the_same_tree(source: str) -> None:
    """The text of the text is equal and is a valid template."""
    again = expression_text(parsed(expression_text(parsed(source))))
    assert again == source
    assert compile_text(f"{{{{ {again} }}}}", "here").names == compile_text(f"{{{{ {source} }}}}", "here").names

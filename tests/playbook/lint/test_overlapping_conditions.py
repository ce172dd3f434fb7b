"""Whether two conditions can both be true."""

from __future__ import annotations

import pytest

from noetl_broker.playbook.lint.overlapping_conditions import alternatives, exclude_each_other

EXCLUSIVE = [
    ("x == 1", "x == 2"),
    ("{{ x > 25 }}", "{{ x <= 25 }}"),
    ("x", "not x"),
    ("a.b == 'x'", "a['b'] != 'x'"),
    ("x is defined", "x is not defined"),
    ("x in [1, 2]", "x in [3]"),
    ("x in ('a',)", "x not in ('a', 'b')"),
    ("x < 1 or x > 9", "x > 2 and x < 5"),
    ("x == 1 and y == 1", "x == 1 and y == 2"),
    ("5 > x", "x >= 5"),
    ("x == ''", "x"),
    ("x | length == 0", "x | length > 0"),
    ("x == -1", "x > 0"),
    ("false", "x"),
    ("x > y", "x <= y"),
    ("x.a < y", "y <= x['a']"),
    ("not x > y", "x > y"),
    ("x == y", "y != x"),
    ("x in y", "x not in y"),
    ("'a' in x", "not 'a' in x"),
    ("x is none", "x"),
    ("x is none", "x == 1"),
    ("x is true", "x == 'a'"),
    ("1 < x < 5", "x > 9"),
    ("1 < x < 5", "x <= 1 or x >= 5"),
    ("y < x < z", "x >= z"),
]
COMPATIBLE = [
    ("x > 1", "x > 5"),
    ("x", "y"),
    ("x != 1", "x != 2"),
    ("x >= 5", "x <= 5"),
    ("x == 1", "y == 2"),
    ("x == y", "x != 1"),
    ("f(x)", "f(x)"),
    ("1 < x < 5", "x > 2"),
    ("not 1 < x < 5", "x < 2"),
    ("x >= y", "x <= y"),
    ("x > y", "x > z"),
    ("x != y", "x < y"),
    ("x in y", "y in x"),
    ("x is not true", "x == true"),
    ("x is not none", "x"),
    ("x < 'a'", "x > 3"),
    ("x in y", "x not in ['a']"),
]


def exclusive(one: str, other: str) -> bool:
    """Return whether two readable conditions exclude each other."""
    first, second = alternatives(one), alternatives(other)
    assert first is not None
    assert second is not None
    return exclude_each_other(first, second)


@pytest.mark.parametrize("one, other", EXCLUSIVE)
def test_conditions_that_exclude_each_other_are_recognized(one: str, other: str) -> None:
    """In both orders."""
    assert exclusive(one, other)
    assert exclusive(other, one)


@pytest.mark.parametrize("one, other", COMPATIBLE)
def test_conditions_that_can_both_be_true_are_never_called_exclusive(one: str, other: str) -> None:
    """Unknown expressions exclude nothing."""
    assert not exclusive(one, other)


def test_text_that_is_no_condition_has_no_alternatives() -> None:
    """Text around the braces and broken syntax are ignored."""
    assert alternatives("a {{ x }} b") is None
    assert alternatives("{{ x }} {{ y }}") is None
    assert alternatives("x ==") is None


def test_a_condition_with_too_many_alternatives_is_ignored() -> None:
    """They would be too many to compare."""
    assert alternatives(" and ".join(f"(a{n} or b{n})" for n in range(10))) is None

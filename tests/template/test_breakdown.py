"""The breakdown of a condition: the outcome of each part and the values that it read."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_broker.template import NotLoaded, Scope, StepResult, compile_condition, compile_text, is_true
from noetl_broker.template.breakdown import Part, parts_of, reads_of
from tests.template.evaluating import scope_with

SCOPE = scope_with(
    inputs={"limit": 25},
    steps={"get": {"temp": 20, "rows": [1, 2]}, "bad": StepResult(None, "FAILED", {"message": "no"})},
    workload={"flag": "no", "n": 3},
    never_ran=("other",),
)


def breakdown_of(source: str) -> Part:
    """Return the parts of a condition over the scope above."""
    return parts_of(compile_condition(source, "here"), SCOPE)


def outline(part: Part) -> Any:
    """Return a part as its text and outcome, with its own parts below."""
    own = (part.text, part.holds)
    return (*own, [outline(inner) for inner in part.parts]) if part.parts else own


@pytest.mark.parametrize(
    "source,expected",
    [
        ("get.temp > 25", ("get.temp > 25", False)),
        (
            "{{ get.temp > 5 and n == 4 and flag }}",
            ("get.temp > 5 and n == 4 and flag", False, [("get.temp > 5", True), ("n == 4", False), ("flag", None)]),
        ),
        ("get.temp > 25 or n == 3", ("get.temp > 25 or n == 3", True, [("get.temp > 25", False), ("n == 3", True)])),
        ("n == 3 or get.temp", ("n == 3 or get.temp", True, [("n == 3", True), ("get.temp", None)])),
        ("not (n == 3)", ("not n == 3", False, [("n == 3", True)])),
        ("other is not defined", ("other is not defined", True)),
        (
            "n > 1 and (n > 5 or n > 4)",
            (
                "n > 1 and (n > 5 or n > 4)",
                False,
                [("n > 1", True), ("n > 5 or n > 4", False, [("n > 5", False), ("n > 4", False)])],
            ),
        ),
        ("n > 1 and flag", ("n > 1 and flag", False, [("n > 1", True), ("flag", False)])),
        ("flag or n", ("flag or n", False, [("flag", False), ("n", None)])),
        ("flag", ("flag", False)),
    ],
)
def test_each_part_of_a_condition_has_an_outcome(source: str, expected: Any) -> None:
    """Parts after a decided `and` or `or` have none. A false text is false as the value of the condition."""
    assert outline(breakdown_of(source)) == expected
    assert breakdown_of(source).holds == is_true(compile_condition(source, "here").evaluate(SCOPE))


@pytest.mark.parametrize(
    "source,reads",
    [
        ("get.temp > limit", [("get.temp", 20, ("get",)), ("limit", 25, ("limit",))]),
        ("get.rows | length == 2", [("get.rows | length", 2, ("get",))]),
        ("25 < get['temp'] + n", [("get['temp'] + n", 23, ("get", "n"))]),
        ("get.rows", [("get.rows", [1, 2], ("get",))]),
        ("bad.status == 'FAILED'", [("bad.status", "FAILED", ("bad",))]),
        (
            "results['get'].temp in get.rows",
            [("results['get'].temp", 20, ("results",)), ("get.rows", [1, 2], ("get",))],
        ),
        ("range(n) | list | length", [("n", 3, ("n",))]),
        ("true", []),
    ],
)
def test_each_part_of_a_condition_has_its_reads(source: str, reads: list[tuple[Any, ...]]) -> None:
    """Both sides of a comparison count. Constants are no reads."""
    assert [read[:3] for read in breakdown_of(source).reads] == reads


def test_a_part_that_fails_has_an_error() -> None:
    """It names the undefined value. Parts before it have their values."""
    part = breakdown_of("get.temp > 5 and other.rows > 1")
    assert (part.holds, [inner.holds for inner in part.parts]) == (None, [True, None])
    (read,) = part.parts[1].reads
    assert (read.text, read.undefined) == ("other.rows", True)
    assert part.error == "`other` is undefined: no input, step with a result or workload key has that name"


def test_a_breakdown_has_the_reads_of_a_template() -> None:
    """Of a text too; variables of its own loops are left out."""
    template = compile_text("{{ n }} of {% for row in get.rows %}{{ row }}, {% endfor %}{{ other.x }}", "here")
    assert [(read.text, read.value, read.undefined) for read in reads_of(template, SCOPE)] == [
        ("n", 3, False),
        ("get.rows", [1, 2], False),
        ("other.x", None, True),
    ]


def test_the_parts_of_a_condition_share_the_steps_of_one_evaluation() -> None:
    """As the condition itself has them."""
    parts = breakdown_of(" and ".join(f"range(99999) | list | length > {n}" for n in range(50))).parts
    assert [part.holds for part in parts] == [True] * 3 + [None] * 47
    assert str(parts[3].error).startswith("it takes more than the 500,000 steps")


def test_a_condition_of_very_many_parts_is_broken_down_in_part() -> None:
    """Each is compiled by itself."""
    fifty = " and ".join(f"n < {n + 10}" for n in range(50))
    groups = breakdown_of(" and ".join([f"({fifty})"] * 4)).parts
    assert {part.error for group in groups for part in group.parts} == {None, "it has too many parts to show them all"}


def test_a_breakdown_requests_data_that_is_not_loaded() -> None:
    """As a decision does."""

    def steps(_name: str) -> StepResult | None:
        raise NotLoaded(frozenset({("step", "get")}))

    scope = Scope(inputs={}, steps=steps, words={}, workload=dict, is_step=("get",), moment=SCOPE.moment)
    with pytest.raises(NotLoaded):
        parts_of(compile_condition("get.x", "here"), scope)


@pytest.mark.parametrize(
    "name,origin",
    [
        ("limit", "input"),
        ("get", "step"),
        ("other", "nowhere"),
        ("n", "workload"),
        ("workload", "word"),
        ("zz", "nowhere"),
    ],
)
def test_each_read_has_the_source_of_its_name(name: str, origin: str) -> None:
    """In the order of the lookup."""
    assert SCOPE.origin(name) == origin

"""Conditions taken apart: which part was false, what it read, and what was not read at all."""

from __future__ import annotations

import time
from typing import Any

import pytest

from noetl_broker.template import NotLoaded, Scope, StepResult, compile_condition, compile_text, is_true
from noetl_broker.template.parts import Part, parts_of, reads_of
from tests.template.evaluating import scope_with

SCOPE = scope_with(
    inputs={"limit": 25},
    steps={"get": {"temp": 20, "rows": [1, 2]}, "bad": StepResult(None, "FAILED", {"message": "no"})},
    workload={"flag": "no", "n": 3},
    never_ran=("other",),
)


def taken_apart(source: str) -> Part:
    """The parts of a condition in the scope above."""
    return parts_of(compile_condition(source, "here"), SCOPE)


def outline(part: Part) -> Any:
    """A part as its text and whether it held, with its own parts below."""
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
def test_each_part_says_whether_it_held(source: str, expected: Any) -> None:
    """What stands behind a decided `and` or `or` was not read; text that means false is false where it is the value."""
    assert outline(taken_apart(source)) == expected
    assert taken_apart(source).holds == is_true(compile_condition(source, "here").evaluate(SCOPE))


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
def test_each_part_says_what_it_read(source: str, reads: list[tuple[Any, ...]]) -> None:
    """The sides of a comparison, with the names that they begin with; constants are nothing that is read."""
    assert [read[:3] for read in taken_apart(source).reads] == reads


def test_a_part_that_cannot_be_evaluated_says_why() -> None:
    """What is undefined is named; what stands before it has its value."""
    part = taken_apart("get.temp > 5 and other.rows > 1")
    assert (part.holds, [inner.holds for inner in part.parts]) == (None, [True, None])
    (read,) = part.parts[1].reads
    assert (read.text, read.undefined) == ("other.rows", True)
    assert part.error == "`other` is undefined: no input, step with a result or workload key has that name"


def test_the_values_that_any_template_reads_are_given() -> None:
    """Also those of a text; not the variables of its own loops."""
    template = compile_text("{{ n }} of {% for row in get.rows %}{{ row }}, {% endfor %}{{ other.x }}", "here")
    assert [(read.text, read.value, read.undefined) for read in reads_of(template, SCOPE)] == [
        ("n", 3, False),
        ("get.rows", [1, 2], False),
        ("other.x", None, True),
    ]


@pytest.mark.parametrize(
    "source",
    [
        " and ".join(f"range(99999) | list | length > {n}" for n in range(50)),
        " or ".join(f"n > {n + 10}" for n in range(50)),
        "(" * 20 + "n" + ")" * 20 + " > 1",
        "(range(99999) | list | tojson | length > 1) and n",
    ],
)
def test_taking_apart_is_bounded(source: str) -> None:
    """All parts are on one account of fuel, and only so many are looked at."""
    began = time.perf_counter()
    part = taken_apart(source)
    assert time.perf_counter() - began < 1
    assert part.text


def test_what_is_not_loaded_is_asked_for() -> None:
    """As in a decision."""

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
def test_a_name_comes_from_one_place(name: str, origin: str) -> None:
    """In the order in which it is looked up."""
    assert SCOPE.origin(name) == origin

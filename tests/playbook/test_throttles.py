"""Errors of `throttle`, and what it means where it is right."""

from __future__ import annotations

import pytest

from noetl_broker.playbook.throttle import parse_rate
from tests.playbook.documents import compiled

ACTION = "type: python, code: 'def main(): pass'"
ITERATOR = "type: iterator, collection: [1], element: x"
THROTTLE = "throttle: {name: api, concurrency: 2}"
EXAMPLE = "(write throttle: {name: stripe, concurrency: 5})"


@pytest.mark.parametrize(
    "rate, a_second", [("10/s", 10.0), ("90 / m", 1.5), ("3600/h", 1.0), ("10", 10.0), (0.5, 0.5), (2, 2.0)]
)
def test_a_rate_is_a_number_a_second(rate: object, a_second: float) -> None:
    """Written as a number of a time, or as a number."""
    assert parse_rate(rate) == a_second


@pytest.mark.parametrize(
    "step, of_step, of_task",
    [
        (f"{ACTION}, {THROTTLE}", "api", None),
        (f"{ITERATOR}, {THROTTLE}, task: {{{ACTION}}}", "api", None),  # one worker iterates: one job
        (f"{ITERATOR}, task: {{{ACTION}, {THROTTLE}}}", None, "api"),
        (f"{ACTION}, {THROTTLE}, loop: {{collection: [1], element: x, distribute: true}}", None, "api"),
    ],
)
def test_each_job_has_the_limit_that_is_written_where_the_job_is(
    step: str, of_step: str | None, of_task: str | None
) -> None:
    """An item has a job of its own if the iterator is expanded; a `throttle` in the task expands it."""
    one = compiled(f"workflow: [{{step: start, next: a}}, {{step: a, {step}}}]").steps["a"]
    task = None if one.iteration is None else one.iteration.task
    named = [found and found.throttle and found.throttle.name for found in (one, task)]
    assert (named[0], named[1]) == (of_step, of_task)


@pytest.mark.parametrize("value", [True, None, [1], "", "1/y", 0, float("nan"), 1_000_001])
def test_what_is_no_rate_is_refused(value: object) -> None:
    """Of any type: a boolean is no number here."""
    with pytest.raises(ValueError, match="a number a second"):
        parse_rate(value)

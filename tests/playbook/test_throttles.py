"""Errors of `throttle`, and what it means where it is right."""

from __future__ import annotations

import pytest

from noetl_broker.playbook.throttle import parse_rate
from tests.playbook.documents import compiled, findings_of

ACTION = "type: python, code: 'def main(): pass'"
ITERATOR = "type: iterator, collection: [1], element: x"
THROTTLE = "throttle: {name: api, concurrency: 2}"
EXAMPLE = "(write throttle: {name: stripe, concurrency: 5})"


def found(keys: str) -> list[str]:
    """Return the findings of a step with these keys, without their place."""
    source = f"workflow: [{{step: start, next: a}}, {{step: a, {keys}}}]"
    return [line.partition(": ")[2] for line in findings_of(source)]


@pytest.mark.parametrize(
    "keys, expected",
    [
        (f"{ACTION}, throttle: 5", f"`throttle` of `a` is a number {EXAMPLE}"),
        (f"{ACTION}, throttle: {{name: api}}", f"`throttle` has neither `concurrency` nor `rate` {EXAMPLE}"),
        (
            f"{ACTION}, throttle: {{concurrency: 2}}",
            "`throttle` has no `name` (write name: stripe; a template belongs into `key`)",
        ),
        (
            f"{ACTION}, throttle: {{name: '{{{{ workload.x }}}}', concurrency: 2}}",
            "`throttle` has a template as its `name` (write name: stripe; a template belongs into `key`)",
        ),
        (
            f"{ACTION}, throttle: {{name: api, rate: 10/x}}",
            "`rate` is '10/x', not 10/s, 100/m, 5000/h or a number a second (write rate: 10/s; at most 1000000/s)",
        ),
        (
            f"{ACTION}, throttle: {{name: api, concurrency: 2, burst: 3}}",
            "`burst` needs a `rate` (add rate: 10/s, or remove it)",
        ),
        (
            f"{ACTION}, throttle: {{name: api, rate: 1, key: [1]}}",
            "`key` is a list, not a text of up to 1024 bytes, a number or a boolean (write what the limit counts by)",
        ),
        (
            f"type: wait, for: 3d, {THROTTLE}",
            "`throttle` of the step `a` has no meaning: no worker runs the step (write it on steps that workers run)",
        ),
        (
            f"{ITERATOR}, distribute: true, {THROTTLE}, task: {{{ACTION}}}",
            (
                "`throttle` of the step `a` has no meaning: no worker runs the step"
                " (write it in the task: each item has a job)"
            ),
        ),
    ],
)
def test_a_wrong_throttle_is_reported(keys: str, expected: str) -> None:
    """With the place and the remedy."""
    assert found(keys)[:1] == [expected]


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

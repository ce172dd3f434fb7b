"""Errors of waits for a moment, and of `start_timeout`."""

from __future__ import annotations

import pytest

from tests.playbook.documents import findings_of

FORMS = "a number of seconds, 90s, 15m, 2h30m, 3d, 2w or P3DT12H"
MOMENTS = "RFC 3339, such as 2026-03-01T09:00:00Z"
REMEDY = "(write it in a field or an input of the step whose worker needs it; or let an action return the value)"
HINT = "(write one of for: 3d, until: a moment, signal: a name)"


def found(keys: str) -> list[str]:
    """Return the findings of a step with these keys, without their place."""
    source = f"workflow: [{{step: start, next: a}}, {{step: a, {keys}}}]"
    return [line.partition(": ")[2] for line in findings_of(source)]


@pytest.mark.parametrize(
    "keys, expected",
    [
        ("type: wait", f"the wait step `a` does not say what it waits for {HINT}"),
        (
            "type: wait, for: 3d, until: '2026-01-01T00:00:00Z'",
            f"the wait step `a` has `for` and `until` {HINT}",
        ),
        ("type: wait, for: soon", f"`for` is 'soon', not a duration (write {FORMS})"),
        ("type: wait, for: -1", f"`for` is -1, not a duration (write {FORMS})"),
        ("type: wait, for: true", f"`for` is True, not a duration (write {FORMS})"),
        ("type: wait, until: 2026-01-01", f"`until` is '2026-01-01', not a moment (write {MOMENTS})"),
        ("type: wait, for: 3d, retry: 3", "`retry` of the wait step `a` has no meaning (remove it)"),
        (
            "type: wait, for: 3d, timeout: 3",
            "`timeout` of the wait step `a` needs `signal` (remove it, or wait for a signal)",
        ),
        (
            "type: wait, for: 3d, start_timeout: 3",
            "`start_timeout` of the step `a` has no meaning: no worker runs the step (remove it)",
        ),
        (
            "type: python, code: 'def main(): pass', start_timeout: soon",
            (
                f"`start_timeout` is 'soon', not {FORMS}, from 0.001 s to 365 days "
                "(write start_timeout: 90s, or a template that gives a duration)"
            ),
        ),
        (
            "type: iterator, collection: [1], element: x, task: {type: wait, for: 3d}",
            (
                "the iterator `a` repeats a step of type `wait` (put the step into a block: "
                "task: {workflow: [{step: start, next: …}, …]})"
            ),
        ),
    ],
)
def test_a_wrong_wait_is_refused(keys: str, expected: str) -> None:
    """With the value, and what to write."""
    assert found(keys) == [expected]


@pytest.mark.parametrize(
    "keys",
    [
        "type: wait, for: '{{ env.X }}'",
        "type: wait, until: '{{ env.X }}'",
        "type: wait, signal: '{{ env.X }}'",
        "type: wait, signal: s, key: 'order {{ env.X }}'",
        "type: wait, signal: s, since: '{{ env.X }}'",
        "type: wait, signal: s, timeout: '{{ env.X }}'",
        "type: approval, title: '{{ env.X }}'",
        "type: approval, details: {a: [1, '{{ env.X }}']}",
        "type: approval, timeout: '{{ env.X }}'",
        "type: signal, signal: s, key: '{{ env.X }}'",
        "type: signal, signal: s, payload: {a: '{{ env.X }}'}",
        "type: python, code: 'def main(): pass', timeout: '{{ env.X }}'",
        "type: http, url: x, start_timeout: '{{ env.X }}'",
    ],
)
def test_what_only_a_worker_knows_is_refused(keys: str) -> None:
    """The broker renders these keys itself."""
    message = "the broker evaluates this template, and only a worker knows `env`"
    assert found(keys) == [f"{message} {REMEDY}"]


def test_a_condition_of_a_wait_may_read_the_signal() -> None:
    """An input of that name does not hide it."""
    assert found("type: wait, signal: s, when: '{{ signal.payload.job }}', args: {signal: '{{ 1 }}'}") == []


@pytest.mark.parametrize(
    "keys",
    [
        "type: wait, for: 90",
        "type: wait, for: 2h30m",
        "type: wait, for: '{{ 1 + 2 }}d'",
        "type: wait, until: '2026-03-01T09:00:00+01:00'",
        "type: python, code: 'def main(): pass', start_timeout: 15m",
    ],
)
def test_durations_moments_and_templates_are_accepted(keys: str) -> None:
    """Numbers are seconds."""
    assert found(keys) == []


@pytest.mark.parametrize("keys", ["type: wait, for: 1", "type: approval, title: x", "type: signal, signal: s, key: k"])
def test_a_credential_is_an_unknown_key(keys: str) -> None:
    """The broker runs these steps, and uses none."""
    kind = keys.partition(",")[0].partition(": ")[2]
    assert found(f"{keys}, auth: bank") == [f"unknown key `auth` on the {kind} step `a` ()"]

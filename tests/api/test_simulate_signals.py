"""Signals in a simulation: a test sends them, and steps send them to other executions."""

from __future__ import annotations

from datetime import timedelta

import pytest

from noetl_broker import SimulationFault, simulate

HEAD = "apiVersion: noetl.io/v1\nkind: Playbook\nmetadata: {name: p, path: p}\n"
PAID = (
    HEAD
    + """
workload: {order: 42}
workflow:
- {step: start, next: paid}
- {step: paid, type: wait, signal: payment, key: "{{ order }}", when: "{{ signal.payload.amount > 9 }}", timeout: 1d}
"""
)


def test_a_wait_takes_the_first_signal_that_fits() -> None:
    """The clock jumps to its moment."""
    signals = [
        {"name": "payment", "key": 42, "payload": {"amount": 20}, "after": "3h"},
        {"name": "payment", "key": 42, "payload": {"amount": 5}, "after": "1h"},
        {"name": "payment", "key": 43, "payload": {"amount": 30}},
    ]
    story = simulate(PAID, signals=signals)
    assert (story.result, story.status) == ({"amount": 20}, "COMPLETED")
    assert timedelta(hours=2) < story.waited <= timedelta(hours=3)
    assert "    reopen paid" in story.text.splitlines()
    assert [line for line in story.text.splitlines() if line.startswith("#")] == [
        '# no wait took signal payment 43 {"amount": 30}',
        '# no wait took signal payment 42 {"amount": 5}',
    ]


def test_the_timeout_of_a_wait_that_is_over_is_forgotten() -> None:
    """The clock does not stop at it."""
    body = PAID.replace("timeout: 1d", "timeout: 1d, next: cool") + "- {step: cool, type: wait, for: 2d}\n"
    story = simulate(body, signals=[{"name": "payment", "key": 42, "payload": {"amount": 20}}])
    assert (story.status, [line for line in story.text.splitlines() if line.startswith("> timer_due paid")]) == (
        "COMPLETED",
        [],
    )


def test_a_signal_that_comes_too_late_does_not_count() -> None:
    """The timeout was first."""
    story = simulate(PAID, signals=[{"name": "payment", "key": "42", "payload": {"amount": 20}, "after": "25h"}])
    assert (story.status, story.error["type"]) == ("FAILED", "timeout")


def test_a_signal_to_the_execution_misses_a_wait_with_a_key() -> None:
    """The story says so; one that a later wait takes is not named."""
    story = simulate(PAID, signals=[{"name": "payment", "payload": {"amount": 20}}])
    assert (story.status, story.text.splitlines()[-1]) == ("FAILED", '# no wait took signal payment 1 {"amount": 20}')
    later = (
        HEAD
        + """
workflow:
- {step: start, next: first}
- {step: first, type: wait, signal: go, when: "{{ signal.payload == 2 }}", next: second}
- {step: second, type: wait, signal: go}
"""
    )
    story = simulate(later, signals=[{"name": "go", "payload": number} for number in (1, 2)])
    assert (story.result, "#" in story.text) == (1, False)


def test_a_signal_before_the_start_counts_for_a_wait_with_since() -> None:
    """Without it only later ones do."""
    signals = [{"name": "go", "payload": 1, "before": "1h"}]
    body = HEAD + "workflow:\n- {step: start, next: go}\n- {step: go, type: wait, signal: go, timeout: 1d}\n"
    assert simulate(body, signals=signals).status == "FAILED"
    assert simulate(body.replace("timeout", "since: 2h, timeout"), signals=signals).result == 1


def test_a_child_signals_its_parent() -> None:
    """By a key that both know."""
    parent = (
        HEAD
        + """
workflow:
- {step: start, next: [call, told]}
- {step: call, type: playbook, path: child}
- {step: told, type: wait, signal: done, key: k}
"""
    )
    child = """
apiVersion: noetl.io/v1
kind: Playbook
metadata: {name: child, path: child}
workflow:
- {step: start, next: tell}
- {step: tell, type: signal, signal: done, key: k, payload: {n: 7}}
"""
    assert simulate(parent, playbooks=[child]).visits("told")[0].result == {"n": 7}


def test_a_wrong_signal_is_refused() -> None:
    """With its place and the forms."""
    with pytest.raises(SimulationFault, match=r"signals\[0\]: after is 'soon', not a number of seconds"):
        simulate(PAID, signals=[{"name": "payment", "after": "soon"}])

"""Explanations without values, as viewers see them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from noetl_broker import explain
from noetl_broker.explain.explain import explain_execution, explain_step
from noetl_broker.explain.facts import Cause, Facts, SignalFact, UnreadEvent, WaitFact
from noetl_broker.explain.reason import Reason
from noetl_broker.explain.without_values import CUT, LEFT_OUT, PLAIN, SENTENCES, facts_without_values, without_values
from noetl_broker.history.record import History
from tests.explanations import NOW, facts_of, job, lines
from tests.forks import history_of
from tests.stories import dedented, playbook

VALUE = "canary"
ORDERS = """
workload: {who: canary}
workflow:
- {step: start, next: get}
- step: get
  type: python
  code: x
  args: {who: "{{ who }}"}
  next:
  - {when: "{{ get.name == 'canary' and get.ok }}", step: alert, args: {t: "{{ get.name }}"}}
  - {else: [log]}
- {step: alert, type: python, code: x, retry: {max_attempts: 2, initial_delay: 0}, next: end}
- {step: log, type: wait, signal: "{{ who }}", key: "{{ who }}", when: "{{ signal.payload == 'canaries' }}", next: ask}
- {step: ask, type: approval, title: "For {{ who }}", next: end}
- {step: end, result: "{{ who }}"}
"""
GOT = '> execution_start {"who": "canary-2"}\n> action_completed get {"name": "canary", "ok": 1}'
FAILED = f"""{GOT}
> action_failed alert {{"message": "canary", "type": "ValueError"}}
> action_failed alert {{"message": "canary", "type": "ValueError", "child_execution_id": 5, "child_step": "canary"}}
"""
ELSE = '> execution_start {"who": "canary-2"}\n> action_completed get {"name": "canary", "ok": 0}'
STORIES = (
    GOT,
    FAILED,
    ELSE,
    f"{GOT}\n> action_completed alert {{}}",
    f'{ELSE}\n> execution_cancel {{"reason": "canary"}}',
    f'{ELSE}\n> execution_pause {{"reason": "canary"}}',
)
STEPS = ("get", "alert", "log", "ask", "end")


def full_of_values(history: History) -> Facts:
    """Facts with the value in each field that may hold one."""
    waits = {
        ("log", 1, None): WaitFact("signal", NOW, None, (VALUE,), VALUE, VALUE, (VALUE,), 1),
        ("ask", 1, None): WaitFact("approval", NOW, None, (VALUE,), VALUE, VALUE, (VALUE,), 1),
    }
    return facts_of(
        history,
        signal=SignalFact("paid", VALUE, "2026-01-01T00:00:00Z"),
        causes={turn.turn.number: Cause(1, turn.event.type, NOW, VALUE) for turn in history.turns},
        jobs={
            (name, 1, None): job(worker=VALUE, status="leased", attempts=1, first_leased_at=NOW)
            for name in ("get", "alert")
        },
        waits=waits,
        dead_letters=(UnreadEvent(9, "action_failed", None, NOW, VALUE),),
    )


def test_a_condition_is_shown_by_its_outcome() -> None:
    """With where the values came from, and without the values."""
    history = history_of(playbook(ORDERS), GOT)
    facts = facts_without_values(facts_of(history, jobs={}))
    assert "\n".join(lines(without_values(explain_step(history, facts, "alert")))) == dedented("""
        alert of execution 1 (story version 1, RUNNING) is running
          alert is running but has no job (noetl-broker replay shows what is wrong)
          alert was entered in turn 2, at 2026-01-01 00:00:00.000Z
            get finished with action_completed (event 102, turn 2)
              a condition was true
                get was the result of get: action_completed (event 102, turn 2)
    """)


@pytest.mark.parametrize("story", STORIES)
def test_no_explanation_shows_a_value(story: str) -> None:
    """Of the execution and of each step, in sentences and in facts."""
    history = history_of(playbook(ORDERS), story)
    facts = full_of_values(history)
    assert VALUE in str([why.as_json() for why in _whys(history, facts)])
    shown = [str(without_values(why).as_json()) for why in _whys(history, facts_without_values(facts))]
    assert [text for text in shown if VALUE in text] == []


def _whys(history: History, facts: Facts) -> list[Reason]:
    return [explain_execution(history, facts), *(explain_step(history, facts, name) for name in STEPS)]


def test_each_kind_of_reason_is_listed() -> None:
    """A new kind is shown to operators only until somebody says what it may show."""
    kinds = set()
    for file in Path(explain.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Reason":
                kind = node.args[0]
                kinds |= {str(kind.value)} if isinstance(kind, ast.Constant) else set()
    assert kinds | {"paused", "queued"} == PLAIN | CUT | LEFT_OUT | {*SENTENCES}

"""The data of a spent token are no part of the execution's result."""

from __future__ import annotations

import json

import pytest

from noetl_broker.history.fork_plan import plan_fork
from noetl_broker.history.recovery_plan import plan_recovery
from tests.explanations import execution_lines, facts_of, step_lines
from tests.forks import fork_story, history_of
from tests.stories import playbook

RACE = """
workflow:
- {{step: start, next: [quick, slow]}}
- {{step: quick, type: python, code: x, next: first}}
- {{step: slow, type: python, code: x, next: [{{when: "{{{{ slow == 1 }}}}", step: first}}{otherwise}]}}
- {{step: first, join: any, type: python, code: x, next: {behind}}}
- {{step: end}}
- {{step: r}}
"""
LOST = "> execution_start\n> action_completed quick 1\n> action_completed slow 2\n> action_completed first 3"


def result_of(body: str, story: str) -> object:
    """Return the result of the execution of a story."""
    ended = history_of(playbook(body), story).ended
    assert ended is not None
    assert ended.status == "COMPLETED"
    return ended.result


@pytest.mark.parametrize("otherwise", ["", ", {else: [end]}", ", {else: [r]}"])
@pytest.mark.parametrize("behind", ["end", "r", "[]"])
def test_the_data_of_a_spent_token_is_no_part_of_the_result(otherwise: str, behind: str) -> None:
    """It ends at its step or at a control step, alone or with the winner."""
    body = RACE.format(otherwise=otherwise, behind=behind)
    assert result_of(body, LOST) == 3


def test_a_branch_that_ended_before_the_join_counts() -> None:
    """It could not reach the join when the join ran, so it was never spent."""
    body = RACE.format(otherwise=", {else: [end]}", behind="end")
    story = "> execution_start\n> action_completed slow 2\n> action_completed quick 1\n> action_completed first 3"
    assert result_of(body, story) == {"slow": 2, "first": 3}


MORE = """
workflow:
- {step: start, next: [quick, slow]}
- {step: quick, type: python, code: x, next: first}
- {step: slow, type: python, code: x, next: [first, more]}
- {step: more, type: python, code: x}
- {step: first, join: any, type: python, code: x}
"""


@pytest.mark.parametrize("order", [("quick", "slow"), ("slow", "quick")])
def test_a_step_that_no_longer_leads_to_the_join_counts(order: tuple[str, str]) -> None:
    """Its token cannot reach the join."""
    events = "".join(f"\n> action_completed {step} 1" for step in (*order, "first", "more"))
    assert result_of(MORE, f"> execution_start{events}") == {"first": 1, "more": 1}


def test_a_step_that_joins_a_spent_token_and_another_counts() -> None:
    """The merged token is spent only if all its parts are spent."""
    body = RACE.format(otherwise=", {else: [both]}", behind="both") + "- {step: both, type: python, code: x}\n"
    assert result_of(body, f"{LOST}\n> action_completed both 4") == 4


ON_THE_WAY = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: [j, r]}
- {step: r, next: [{when: "{{ a == 2 }}", step: j}]}
- {step: j, join: any, type: python, code: x}
"""


def test_a_token_that_is_spent_in_a_transition_does_not_count() -> None:
    """Another token of the turn reaches the join first. This one ends behind a router."""
    story = "> execution_start\n> action_completed a 1\n> action_completed j 3"
    assert result_of(ON_THE_WAY, story) == 3
    history = history_of(playbook(ON_THE_WAY), story)
    lines = [line.strip() for line in step_lines(history, "r").splitlines()]
    assert "a finished with action_completed (event 102, turn 2)" in lines


def test_a_token_that_is_spent_while_it_waits_does_not_count() -> None:
    """Both tokens of a router could have reached the join while one waited."""
    body = """
        workflow:
        - {step: start, next: [quick, slow, slower]}
        - {step: quick, type: python, code: x, next: first}
        - {step: slow, type: python, code: x, next: both}
        - {step: slower, type: python, code: x, next: both}
        - {step: both, next: [{when: "{{ slow == 1 }}", step: first}]}
        - {step: first, join: any, type: python, code: x}
        """
    events = "".join(f"\n> action_completed {step} 2" for step in ("slow", "quick", "slower"))
    assert result_of(body, f"> execution_start{events}\n> action_completed first 3") == 3


CROSSED = """
workflow:
- {step: start, next: [x, y]}
- {step: x, type: python, code: x, next: a}
- {step: y, type: python, code: x, next: [{when: "{{ y == 1 }}", step: a}, {else: [b]}]}
- {step: a, join: any, type: python, code: x, next: b}
- {step: b, join: any, type: python, code: x, next: end}
- {step: end}
"""


@pytest.mark.parametrize("order", ["xyab", "yxab", "xyba", "ybxa"])
def test_a_token_that_is_past_the_join_it_was_spent_for_counts(order: str) -> None:
    """It was late at the first join and passed it."""
    events = "".join(f"\n> action_completed {step} {ord(step)}" for step in order)
    assert result_of(CROSSED, f"> execution_start{events}") == ord("b")


CYCLE = """
workflow:
- {step: start, next: [a, b]}
- {step: a, join: any, type: python, code: x, next: [{when: "{{ a == 1 }}", step: b}, {else: [end]}]}
- {step: b, join: any, type: python, code: x, next: [{when: "{{ b == 1 }}", step: a}, {else: [end]}]}
- {step: end%s}
"""


def test_if_all_branches_are_spent_there_is_no_result() -> None:
    """Each lost a race. `end` was reached and may have a result."""
    story = "> execution_start\n> action_completed a 3\n> action_completed b 4"
    assert result_of(CYCLE % "", story) is None
    assert result_of(CYCLE % ", result: '{{ b }}'", story) == 4
    history = history_of(playbook(CYCLE % ""), story)
    lines = [line.strip() for line in execution_lines(history, facts_of(history)).splitlines()]
    assert "it has no result: no branch ended with data (spent tokens do not count)" in lines


def test_spent_data_does_not_count_in_a_retry() -> None:
    """The execution failed after the spent token had ended."""
    body = RACE.format(otherwise="", behind="end")
    source = history_of(
        playbook(body), LOST.replace("action_completed first 3", 'action_failed first {"message": "no"}')
    )
    assert fork_story(source, plan_recovery(source), "> action_completed first 3").splitlines()[-1].strip() == (
        "event execution_complete 3"
    )


@pytest.mark.parametrize("quick, result", [("false", {"quick": False}), ("true", 7)])
def test_the_only_token_of_a_fork_is_not_spent(quick: str, result: object) -> None:
    """Its data count, and the join runs for it."""
    source = history_of(
        playbook("""
            workflow:
            - {step: start, next: [a, x]}
            - {step: a, type: python, code: x, next: j}
            - {step: x, type: python, code: x, next: b}
            - {step: b, type: python, code: x, next: [{when: "{{ b.quick }}", step: j}]}
            - {step: j, join: any, type: python, code: x}
            """),
        """
        > execution_start
        > action_completed a 4
        > action_completed x 5
        > action_completed b {"quick": false}
        > action_completed j 3
        """,
    )
    story = f'> action_completed b {{"quick": {quick}}}\n> action_completed j 7'
    lines = [line.strip() for line in fork_story(source, plan_fork(source, "b"), story).splitlines()]
    assert f"event execution_complete {json.dumps(result)}" in lines

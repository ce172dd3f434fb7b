"""Explains why a `catch` was taken or not."""

from __future__ import annotations

import pytest

from tests.broker.test_catch import CHARGE
from tests.explanations import execution_lines, facts_of, step_lines
from tests.forks import history_of
from tests.stories import playbook

TYPO = '> execution_start {"limit": 5}\n> action_completed charge {"id": "c1", "amonut": 7}'
DECLINED = '> execution_start {"limit": 5}\n> action_failed charge {"message": "no", "type": "declined"}'
NETWORK = '> execution_start {"limit": 5}\n> action_failed charge {"message": "no", "type": "network"}'
FAILING = CHARGE.replace("    on_error: continue\n", "")


def test_a_step_that_a_catch_led_to_names_the_conditions() -> None:
    """Those before it were false."""
    lines = step_lines(history_of(playbook(CHARGE), TYPO), "refund").splitlines()
    assert [line.strip() for line in lines][3:7] == [
        "charge failed on action_completed (event 102, turn 2)",
        "its catch handled the failure: entry 2 was taken",
        "the condition {{ error.type == 'declined' }} was false: error.type was \"template\"",
        "the condition {{ error.type == 'template' }} was true: error.type was \"template\"",
    ]


@pytest.mark.parametrize(
    "story, step, because",
    [
        (TYPO, "notify", "the condition {{ error.type == 'declined' }} was false: error.type was \"template\""),
        (TYPO, "big", "charge failed, and entry 2 of its catch was taken"),
        (DECLINED, "refund", "it was not read: entry 1 of the catch was taken before"),
        (NETWORK, "notify", "the condition {{ error.type == 'declined' }} was false: error.type was \"network\""),
        (NETWORK, "big", "charge failed, so its next was not read"),
        (
            '> execution_start {"limit": 5}\n> action_completed charge {"amount": 7}',
            "refund",
            "a catch is read only when its step failed for good: charge did not",
        ),
    ],
)
def test_a_step_that_no_catch_led_to_says_why(story: str, step: str, because: str) -> None:
    """The condition was false, an earlier entry was taken, or the step did not fail."""
    assert because in step_lines(history_of(playbook(FAILING), story), step)


def test_a_failed_execution_shows_the_catch_that_did_not_handle_it() -> None:
    """With its conditions."""
    history = history_of(playbook(FAILING), NETWORK)
    lines = execution_lines(history, facts_of(history)).splitlines()
    assert [line.strip() for line in lines[2:5]] == [
        "its catch did not handle the failure",
        "the condition {{ error.type == 'declined' }} was false",
        "the condition {{ error.type == 'template' }} was false",
    ]

"""Histories with a `catch`: their paths, forks of them, and edited playbooks."""

from __future__ import annotations

import pytest

from noetl_broker.history.compare import Comparison
from noetl_broker.history.fork_plan import plan_fork
from noetl_broker.history.path import Outcomes
from tests.broker.test_catch import CHARGE
from tests.forks import fork_story, history_of
from tests.paths import arcs_taken, path_of
from tests.stories import playbook

TYPO = """
> execution_start {"limit": 5}
> action_completed charge {"id": "c1", "amonut": 7}
> action_completed refund {"ok": true}
"""
CATCHES = "catches the failure of charge"
MENDED = CHARGE.replace("charge.amount", "charge.amonut")
UNCAUGHT = CHARGE[: CHARGE.index("    catch:")] + CHARGE[CHARGE.index("  - {step: big") :]
OTHER_WAY = CHARGE.replace("'declined'", "'template'", 1)


def test_the_arc_of_the_entry_that_was_taken_counts() -> None:
    """Its condition was true, that of the entry before it was false."""
    assert arcs_taken(CHARGE, TYPO) == {
        "start -> charge": 1,
        "charge -> big": 0,
        "charge -> notify": 0,
        "charge -> refund": 1,
    }
    trace = path_of(playbook(CHARGE), TYPO).trace
    assert trace.outcomes == {("charge", -1): Outcomes(false=1), ("charge", -2): Outcomes(true=1)}
    assert trace.went_on == {"charge"}


def test_a_fork_on_an_edited_playbook_renders_the_catch_again() -> None:
    """Its inputs read the error of the step that failed."""
    source, edited = history_of(playbook(CHARGE), TYPO), CHARGE.replace("{{ charge.id }}", "{{ error.type }}")
    plan = plan_fork(source, "refund", playbook=playbook(edited))
    assert fork_story(source, plan, playbook=playbook(edited)).splitlines()[-1] == '    job   refund {"id": "template"}'


@pytest.mark.parametrize(
    "edited, expected",
    [
        (MENDED, ("another step", f"starts refund, {CATCHES}", "starts big")),
        (UNCAUGHT, ("a missing step", f"starts refund, {CATCHES}", "fails charge, ends FAILED")),
        (OTHER_WAY, ("another step", "starts refund", "starts notify")),
    ],
)
def test_an_edited_playbook_that_catches_otherwise_differs(edited: str, expected: tuple[str, str, str]) -> None:
    """It fails no more, is caught no more, or is caught by another entry."""
    history = history_of(playbook(CHARGE), TYPO)
    comparison = Comparison(history, playbook(edited), ways_only=False)
    found = [one for turn in history.turns if (one := comparison.apply(turn)) is not None]
    assert [(one.what, one.was, one.instead) for one in found[:1]] == [expected]

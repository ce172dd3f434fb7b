"""The simulation catches what it should: faults put in on purpose, and two walls of which one is enough."""

from __future__ import annotations

import pytest

from noetl_broker.broker import joins
from tests.simulation.mutants import HARMLESS, MUTANTS, Mutant, first_found, put_in
from tests.simulation.run import report
from tests.simulation.scenarios import scenario
from tests.simulation.trials import attempt

MOST = 400
pytestmark = pytest.mark.simulation


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_fault_is_found(mutant: Mutant) -> None:
    """One changed line of the core, or one missing wall of the store, within a few hundred seeds."""
    assert first_found(mutant, most=MOST) is not None


@pytest.mark.parametrize("sloppy", HARMLESS, ids=sorted)
def test_one_wall_is_enough(sloppy: frozenset[str]) -> None:
    """Without the lock, with a look before it, or without the turn key: the other one keeps executions whole."""
    for seed in range(30):
        trial = attempt(scenario(seed), sloppy=sloppy)
        assert trial.wrong == (), report(trial, sloppy=sloppy)


def test_a_fault_is_there_only_for_a_while() -> None:
    """After it the function is what it was."""
    mutant = next(mutant for mutant in MUTANTS if mutant.function is joins._is_ready)
    sound = joins._is_ready.__code__
    with put_in(mutant):
        assert joins._is_ready.__code__ is not sound
    assert joins._is_ready.__code__ is sound


def test_a_failing_seed_prints_a_small_story() -> None:
    """Playbook, story, first difference, and how to see it again; with nothing in it that is not needed."""
    mutant = next(mutant for mutant in MUTANTS if mutant.name == "a join runs at its first arrival")
    found = first_found(mutant, most=MOST)
    assert found is not None
    with put_in(mutant):
        printed = report(found)
    assert f"seed {found.scenario.seed} fails: turn 1 on execution_start" in printed
    assert printed.count("- step: ") == 3, printed
    assert "> execution_start" in printed
    assert "    reference: " in printed
    assert "faults=Faults(crashes=0, hangs=0," in printed

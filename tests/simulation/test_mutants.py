"""The simulation finds each mutant, and one of the two protections is enough."""

from __future__ import annotations

import pytest

from noetl_broker.broker import joins
from tests.simulation.mutants import HARMLESS, MUTANTS, Mutant, applied, first_failure
from tests.simulation.run import report
from tests.simulation.scenarios import scenario
from tests.simulation.trials import run_trial
from tests.simulation.undo_mutants import UNDO_MUTANTS

SEEDS = 400
pytestmark = pytest.mark.simulation


@pytest.mark.parametrize("mutant", [*MUTANTS, *UNDO_MUTANTS], ids=lambda mutant: mutant.name)
def test_a_fault_is_found(mutant: Mutant) -> None:
    """A changed line of the core, or a defect of the store, within a few hundred seeds."""
    assert first_failure(mutant, seeds=SEEDS) is not None


@pytest.mark.parametrize("defects", HARMLESS, ids=sorted)
def test_the_lock_or_the_turn_key_is_enough(defects: frozenset[str]) -> None:
    """Without the lock, with a read before it, or without the turn key, executions are right."""
    for seed in range(30):
        trial = run_trial(scenario(seed), defects=defects)
        assert trial.differences == (), report(trial, defects=defects)


def test_a_fault_is_removed_after_the_block() -> None:
    """The function has its original code."""
    mutant = next(mutant for mutant in MUTANTS if mutant.function is joins._is_ready)
    original = joins._is_ready.__code__
    with applied(mutant):
        assert joins._is_ready.__code__ is not original
    assert joins._is_ready.__code__ is original


def test_a_failing_seed_prints_a_small_story() -> None:
    """Playbook, story, first difference and scenario, reduced to what is needed."""
    mutant = next(mutant for mutant in MUTANTS if mutant.name == "a join runs at its first arrival")
    found = first_failure(mutant, seeds=SEEDS)
    assert found is not None
    with applied(mutant):
        printed = report(found)
    assert f"seed {found.scenario.seed} fails: turn 1 on execution_start" in printed
    assert printed.count("- step: ") == 3, printed
    assert "> execution_start" in printed
    assert "    reference: " in printed
    assert "faults=Faults(crashes=0, hangs=0," in printed

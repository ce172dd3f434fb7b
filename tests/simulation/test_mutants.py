"""The simulation finds each mutant of the core."""

from __future__ import annotations

import pytest

from noetl_broker.broker.arrivals import joins
from noetl_broker.compiled_form import installed_form
from tests.simulation.mutants import MUTANTS, Mutant, applied, first_failure
from tests.simulation.run import report
from tests.simulation.undo_mutants import UNDO_MUTANTS

SEEDS = 40
pytestmark = [
    pytest.mark.simulation,
    pytest.mark.skipif(
        installed_form() == "compiled", reason="a compiled function cannot be changed: make test has the plain form"
    ),
]


@pytest.mark.parametrize("mutant", [*MUTANTS, *UNDO_MUTANTS], ids=lambda mutant: mutant.name)
def test_a_fault_is_found(mutant: Mutant) -> None:
    """A changed function of the core, within a few seeds."""
    assert first_failure(mutant, seeds=SEEDS) is not None


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
    assert "faults=Faults(crashes=0, worker_deaths=0," in printed

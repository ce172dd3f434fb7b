"""The reduction of a failing scenario."""

from __future__ import annotations

from tests.simulation.plans import Plan, Step
from tests.simulation.scenarios import Scenario
from tests.simulation.shrink import candidates


def test_no_smaller_scenario_returns_a_step_that_its_child_does_not_have() -> None:
    """A child fails at its start if it lacks that step: another fault than the one that was found."""
    child = Plan(path="child", steps=(Step(name="start"), Step(name="a")))
    call = Step(name="call", kind="playbook", path="child", return_step="a", on_error="continue")
    plan = Plan(path="main", steps=(Step(name="start"), call), children=(child,))
    smaller = {
        (step.return_step, len(candidate.plan.by_path()[step.path].steps))
        for candidate in candidates(Scenario(1, plan))
        for step in candidate.plan.steps
        if step.path
    }
    assert smaller == {("a", 2), (None, 2), (None, 1)}

"""A few hundred seeds of the simulation; `make simulate` tries ten thousand."""

from __future__ import annotations

import pytest

from tests.simulation.run import report, summary
from tests.simulation.scenarios import scenario
from tests.simulation.trials import attempt
from tests.simulation.world import World

AT_ONCE = 40
pytestmark = pytest.mark.simulation


@pytest.mark.parametrize("first", range(0, 400, AT_ONCE))
def test_random_executions_go_as_the_reference_says(first: int) -> None:
    """Through crashes, duplicates, disorder and lost leases, each turn decides what the reference decides."""
    for seed in range(first, first + AT_ONCE):
        trial = attempt(scenario(seed))
        assert trial.wrong == (), report(trial)


def test_a_seed_goes_the_same_way_each_time() -> None:
    """To the last event and microsecond: else a failure could not be looked into."""
    first, second = World(scenario(8)), World(scenario(8))
    first.run()
    second.run()
    assert first.tables.events == second.tables.events
    assert first.seen == second.seen


def test_the_seeds_are_examples_of_everything() -> None:
    """A feature or a trouble that no seed shows is not simulated."""
    seen = sum((attempt(scenario(seed)).seen for seed in range(240, 300)), start=attempt(scenario(210)).seen)
    wanted = (
        "a join of all", "a join of any", "a join of each", "a step visited again", "a router", "a child", "a retry",
        "an iterator", "a failed item", "a calm plan", "an execution that is COMPLETED", "an execution that is FAILED",
        "an execution that is CANCELLED", "an event that is duplicate", "an event that is after_end", "times crashes",
        "times hangs", "times lost_commits", "times deaths", "times repeats", "times late_commits", "times copies",
        "times strangers", "times requeued", "times refused answers", "a failure of a spent token",
    )  # fmt: skip
    assert [name for name in wanted if not seen[name]] == [], summary(seen, seeds=61, seconds=1)

"""480 seeds of the simulation; `make simulate` runs ten thousand, of the same kinds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache

import pytest

from tests.simulation.random_plans import APPROVALS_FROM, SIGNALS_FROM, WAITS_FROM
from tests.simulation.run import report, summary
from tests.simulation.scenarios import CATCHES_FROM, KINDS, PAUSES_FROM, UNDOS_FROM, scenario
from tests.simulation.trials import Trial, run_trial
from tests.simulation.world import World

SEEDS_PER_TEST = 20
pytestmark = pytest.mark.simulation


# Of signals more: the test of their features below reads them.
FIRST = (
    *range(200, 300, SEEDS_PER_TEST),
    *(first for kind in KINDS[1:] for first in range(kind, kind + 40, SEEDS_PER_TEST)),
    SIGNALS_FROM + 40,
)


@cache
def trial_of(seed: int) -> Trial:
    """Run a seed once for all tests."""
    return run_trial(scenario(seed))


def counts_of(seeds: Iterable[int]) -> Counter[str]:
    """What these seeds are examples of."""
    return sum((trial_of(seed).counts for seed in seeds), Counter[str]())


@pytest.mark.parametrize("first", FIRST)
def test_random_executions_equal_the_reference(first: int) -> None:
    """With crashes, duplicates, disorder and lost leases, each turn decides what the reference decides."""
    for seed in range(first, first + SEEDS_PER_TEST):
        trial = trial_of(seed)
        assert trial.differences == (), report(trial)


def test_a_seed_gives_the_same_run_each_time() -> None:
    """To the last event and microsecond, so that a failure can be repeated."""
    first, second = World(scenario(8)), World(scenario(8))
    first.run()
    second.run()
    assert first.sent == second.sent
    assert first.now == second.now


def test_the_seeds_are_examples_of_each_feature_and_fault() -> None:
    """A feature that no seed shows is not tested."""
    seen = counts_of((210, *range(240, 300)))
    wanted = (
        "a join of all", "a join of any", "a join of each", "a step visited again", "a router", "a child", "a retry",
        "an iterator", "a failed item", "a stable plan", "an execution that is COMPLETED",
        "an execution that is FAILED", "an execution that is CANCELLED", "an event that is duplicate",
        "an event that is after_end", "times crashes", "times worker_deaths", "times disorder", "times late_commits",
        "times copies", "times stray_events", "times requeued", "times refused answers", "a failure of a spent token",
    )  # fmt: skip
    assert [name for name in wanted if not seen[name]] == [], summary(seen, seeds=61, seconds=1)


def test_the_seeds_with_waits_are_examples_of_each_feature_of_joins() -> None:
    """Joins that need several arrivals, that get too few, and that cancel their losers; waits."""
    seen = counts_of(range(WAITS_FROM, WAITS_FROM + 20))
    wanted = (
        "a join of several", "a join with too few arrivals", "a cancelled visit", "a join of any", "a join of all",
        "a wait", "a wait that is over",
    )  # fmt: skip
    assert [name for name in wanted if not seen[name]] == [], summary(seen, seeds=20, seconds=1)


def test_the_seeds_with_approvals_are_examples_of_each_way_in_which_they_end() -> None:
    """Decided, decided twice or too late, timed out, cancelled."""
    seen = counts_of(range(APPROVALS_FROM, APPROVALS_FROM + 30))
    wanted = (
        "an approval", "a decided approval", "times decisions", "times late decisions", "a cancelled visit",
        "a wait that is over",
    )  # fmt: skip
    assert [name for name in wanted if not seen[name]] == [], summary(seen, seeds=30, seconds=1)


def test_the_seeds_with_pauses_are_examples_of_each_kind_of_pause() -> None:
    """Executions and paths are paused at random moments, also children, retries and iterators."""
    seen = counts_of(range(PAUSES_FROM, PAUSES_FROM + 40))
    wanted = (
        "times pauses", "times paused paths", "a paused execution", "a queued execution",
        "a paused child", "an execution that is COMPLETED", "a stable plan",
    )  # fmt: skip
    assert [name for name in wanted if not seen[name]] == [], summary(seen, seeds=40, seconds=1)


def test_the_seeds_with_signals_are_examples_of_each_way_in_which_they_end() -> None:
    """Taken, also by another wait or later, refused, doubled, sent by steps; waits that time out or are cancelled."""
    seen = counts_of(range(SIGNALS_FROM, SIGNALS_FROM + 60))
    wanted = (
        "a wait for a signal", "a wait for a signal again", "a signal that is taken", "a signal that is not taken",
        "a signal that another wait takes", "a kept signal that is taken", "a cancelled visit",
        "a step that sends a signal", "a wait that is over", "an event that is duplicate",
    )  # fmt: skip
    assert [name for name in wanted if not seen[name]] == [], summary(seen, seeds=60, seconds=1)


def test_the_seeds_with_catches_are_examples_of_each_way_to_handle_a_failure() -> None:
    """Caught, also spent or with data; not caught; failed by a step; an output."""
    seen = counts_of(range(CATCHES_FROM, CATCHES_FROM + 40))
    wanted = (
        "a caught failure", "a caught failure with data", "a failure that no entry of catch fits", "an output",
        "a step that fails", "a stable plan", "an execution that is COMPLETED", "an execution that is FAILED",
    )  # fmt: skip
    assert [name for name in wanted if not seen[name]] == [], summary(seen, seeds=40, seconds=1)


def test_the_seeds_with_undos_are_examples_of_each_way_in_which_they_end() -> None:
    """Done, failed, abandoned, gone on with after the end; late successes."""
    seen = counts_of(range(UNDOS_FROM, UNDOS_FROM + 40))
    wanted = (
        "an undo", "an undo that failed", "an undo after the end", "times undos",
        "an event that is late",
        "an execution that is COMPLETED", "an execution that is FAILED", "an execution that is CANCELLED",
    )  # fmt: skip
    assert [name for name in wanted if not seen[name]] == [], summary(seen, seeds=40, seconds=1)

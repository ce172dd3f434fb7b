"""`make simulate`: many seeds on all processors; a seed that fails prints its story, made as small as it can be."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable
from multiprocessing import Pool

import yaml

from noetl_broker import logs
from tests.simulation.plans import document
from tests.simulation.scenarios import Scenario, scenario
from tests.simulation.shrink import shrink
from tests.simulation.trials import Trial, attempt, is_valid

MOST_REPORTED = 3


def main(arguments: list[str] | None = None) -> int:
    """Try the seeds; returns 1 if any of them fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000, help="how many (default: %(default)s)")
    parser.add_argument("--start", type=int, default=0, help="the first one (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    _be_quiet()
    began = time.monotonic()
    seen: Counter[str] = Counter()
    failed: list[int] = []
    seeds = range(chosen.start, chosen.start + chosen.seeds)
    with Pool(chosen.processes, initializer=_be_quiet) as pool:
        for trial in pool.imap_unordered(try_seed, seeds, chunksize=20):
            seen.update(trial.seen)
            if trial.wrong:
                failed.append(trial.scenario.seed)
                if len(failed) <= MOST_REPORTED:
                    _print(report(trial))
    seconds = time.monotonic() - began
    _print(summary(seen, seeds=chosen.seeds, seconds=seconds))
    if failed:
        _print(f"{len(failed)} of {chosen.seeds} seeds failed: {', '.join(map(str, sorted(failed)[:20]))}")
        _print(f"one alone: make simulate SEEDS=1 START={min(failed)}")
        return 1
    _print(f"{chosen.seeds} seeds from {chosen.start}: as the reference has it")
    return 0


def try_seed(seed: int) -> Trial:
    """Try one seed."""
    return attempt(scenario(seed))


def report(trial: Trial, *, sloppy: frozenset[str] = frozenset()) -> str:
    """Return what a person needs to understand a failing seed: shrunk, with playbooks, story and first difference."""

    def fails(candidate: Scenario) -> bool:
        return is_valid(candidate.plan) and bool(attempt(candidate, sloppy=sloppy).wrong)

    small = attempt(shrink(trial.scenario, fails), sloppy=sloppy)
    told = small if small.wrong else trial
    playbooks = [yaml.safe_dump(document(plan), sort_keys=False) for plan in told.scenario.plan.family()]
    rest = told.scenario._replace(plan=None)  # type: ignore[arg-type] # printed above, and long
    return "\n".join(
        [
            f"seed {trial.scenario.seed} fails: {trial.wrong[0]}",
            "made as small as it still fails:",
            *(f"---\n{playbook}" for playbook in playbooks),
            *told.stories,
            f"first of {len(told.wrong)} differences: {told.wrong[0]}",
            f"scenario: {rest}",
            "",
        ]
    )


def summary(seen: Counter[str], *, seeds: int, seconds: float) -> str:
    """Return what the seeds were examples of."""
    lines = [f"{seeds} seeds in {seconds:.1f} s, {seeds / seconds:.0f}/s"]
    counts = {name: count for name, count in seen.items() if not name.startswith(("a ", "an "))}
    lines += [f"  {count:>8} {name}" for name, count in sorted(counts.items())]
    lines.append("seeds with")
    lines += [f"  {count:>8} {name}" for name, count in sorted(seen.items()) if name not in counts]
    return "\n".join(lines)


def _be_quiet() -> None:
    """Log nothing that a simulated broker has to say of its simulated troubles."""
    logs.configure(level="error", form="console")


def _print(text: str | Iterable[str]) -> None:
    print(text, flush=True)  # noqa: T201 - a person reads it


if __name__ == "__main__":
    sys.exit(main())

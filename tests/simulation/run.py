"""`make simulate`: runs many seeds on all processors. A failing seed is reduced and its story is printed."""

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
from tests.simulation.scenarios import KINDS, Scenario, scenario
from tests.simulation.shrink import shrink
from tests.simulation.trials import Trial, is_valid, run_trial

MAX_REPORTED = 3


def main(arguments: list[str] | None = None) -> int:
    """Run the seeds; return 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000, help="number of seeds (default: %(default)s)")
    parser.add_argument("--start", type=int, help="the first seed (default: some of each kind)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    _log_errors_only()
    began = time.monotonic()
    seen: Counter[str] = Counter()
    failed: list[int] = []
    seeds = seeds_of(chosen.seeds, chosen.start)
    with Pool(chosen.processes, initializer=_log_errors_only) as pool:
        for trial in pool.imap_unordered(run_seed, seeds, chunksize=20):
            seen.update(trial.counts)
            if trial.differences:
                failed.append(trial.scenario.seed)
                if len(failed) <= MAX_REPORTED:
                    _print(report(trial))
    seconds = time.monotonic() - began
    _print(summary(seen, seeds=len(seeds), seconds=seconds))
    if failed:
        _print(f"{len(failed)} of {len(seeds)} seeds failed: {', '.join(map(str, sorted(failed)[:20]))}")
        _print(f"to run one: make simulate SEEDS=1 START={min(failed)}")
        return 1
    _print(f"{len(seeds)} seeds from {min(seeds)}: no difference from the reference")
    return 0


def seeds_of(count: int, start: int | None) -> list[int]:
    """Return the seeds from `start`; without it, half of them are plain, the others of each other kind."""
    if start is not None:
        return [*range(start, start + count)]
    of_each = count // 2 // (len(KINDS) - 1)
    others = [seed for kind in KINDS[1:] for seed in range(kind, kind + of_each)]
    return [*range(count - len(others)), *others]


def run_seed(seed: int) -> Trial:
    """Run one seed."""
    return run_trial(scenario(seed))


def report(trial: Trial) -> str:
    """Return a report of a failing seed: the reduced scenario with playbooks, story and first difference."""

    def fails(candidate: Scenario) -> bool:
        return is_valid(candidate.plan) and bool(run_trial(candidate).differences)

    small = run_trial(shrink(trial.scenario, fails))
    shown = small if small.differences else trial
    playbooks = [yaml.safe_dump(document(plan), sort_keys=False) for plan in shown.scenario.plan.family()]
    rest = shown.scenario._replace(plan=None)  # type: ignore[arg-type] # its playbooks are printed above
    return "\n".join(
        [
            f"seed {trial.scenario.seed} fails: {trial.differences[0]}",
            "the smallest scenario that was found to fail:",
            *(f"---\n{playbook}" for playbook in playbooks),
            *shown.stories,
            f"first of {len(shown.differences)} differences: {shown.differences[0]}",
            f"scenario: {rest}",
            "",
        ]
    )


def summary(seen: Counter[str], *, seeds: int, seconds: float) -> str:
    """Return how often each feature and fault was simulated."""
    lines = [f"{seeds} seeds in {seconds:.1f} s, {seeds / seconds:.0f}/s"]
    counts = {name: count for name, count in seen.items() if not name.startswith(("a ", "an "))}
    lines += [f"  {count:>8} {name}" for name, count in sorted(counts.items())]
    lines.append("seeds with")
    lines += [f"  {count:>8} {name}" for name, count in sorted(seen.items()) if name not in counts]
    return "\n".join(lines)


def _log_errors_only() -> None:
    """Do not log the warnings that simulated faults cause."""
    logs.configure(level="error", form="console")


def _print(text: str | Iterable[str]) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())

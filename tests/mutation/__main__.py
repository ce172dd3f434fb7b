"""Draws mutants of the program from a seed, runs the tests that decide about each, and reports which are found.

`python -m tests.mutation --seed 1 --count 200 --coverage .coverage --durations junit.xml --out results.json`. The
coverage is that of a whole run with `--cov --cov-context=test`, the durations are of its `--junitxml`. The same sources
and the same seed give the same mutants. `--again results.json` runs those of an earlier run, on other tests or with
more time. The exit code is 1 if a mutant survives.
"""

from __future__ import annotations

import argparse
import json
import queue
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tests.mutation.deciding_tests import DecidingTests
from tests.mutation.mutants import Mutant, draw, find
from tests.mutation.trial import Checkout, Result

ROOT = Path(__file__).parents[2]


def main(arguments: list[str] | None = None) -> int:
    """Run the mutants; return 1 if one survives."""
    chosen = _parser().parse_args(arguments)
    if chosen.again:
        earlier = [Result.read(row) for row in json.loads(chosen.again.read_text(encoding="utf-8"))]
        mutants = [result.mutant for result in earlier if chosen.outcome in {None, result.outcome}]
    else:
        mutants = draw(ROOT, chosen.seed, chosen.count)
    mutants = [mutant for mutant in mutants if re.search(chosen.only, str(mutant))]
    if chosen.list:
        _print(*mutants)
        return 0
    tests = DecidingTests(ROOT, chosen.coverage, chosen.durations)
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        checkouts: queue.Queue[Checkout] = queue.Queue()
        for number in range(chosen.jobs):
            checkouts.put(Checkout(ROOT, Path(folder) / str(number), chosen.limit))

        def run(mutant: Mutant) -> Result:
            text = (ROOT / mutant.file).read_text(encoding="utf-8")
            place = find(mutant, text)
            if place is None:
                return Result(mutant, "lost", by="its place is not in this version of the file")
            ids = tests.of(place, text, chosen.seconds)
            if not ids:
                return Result(mutant, "not covered", line=place.lines(text)[0])
            checkout = checkouts.get()
            try:
                return checkout.run(place, text, ids)
            finally:
                checkouts.put(checkout)

        with ThreadPoolExecutor(chosen.jobs) as pool:
            for done in as_completed([pool.submit(run, mutant) for mutant in mutants]):
                results.append(done.result())
                _print(f"{len(results)}/{len(mutants)} {results[-1]}")
                rows = [result.row() for result in sorted(results, key=lambda result: (result.outcome, result.mutant))]
                chosen.out.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    _print("", *summary(results))
    return int(any(result.outcome == "survived" for result in results))


def summary(results: Iterable[Result]) -> list[str]:
    """Return the survivors, and how many mutants of each language had each outcome."""
    ordered = sorted(results, key=lambda result: str(result.mutant))
    lines = [str(result) for result in ordered if result.outcome in {"survived", "not covered"}]
    for language, ending in (("Python", ".py"), ("SQL", ".sql")):
        outcomes = Counter(result.outcome for result in ordered if result.mutant.file.endswith(ending))
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
        lines.append(f"{language}: {outcomes.total()} mutants: {counts}")
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument(
        "--count", type=int, default=200, help="number of mutants, 7 of 10 in Python (default: %(default)s)"
    )
    parser.add_argument("--again", type=Path, help="run the mutants of this file of results")
    parser.add_argument("--outcome", help="with --again: only those with this outcome")
    parser.add_argument("--only", default="", help="only mutants whose line matches this regular expression")
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    parser.add_argument("--coverage", type=Path, nargs="*", default=[], help="coverage files with contexts")
    parser.add_argument("--durations", type=Path, help="a JUnit report with the duration of each test")
    parser.add_argument("--seconds", type=float, default=60.0, help="of tests for a mutant (default: %(default)s)")
    parser.add_argument("--limit", type=float, default=180.0, help="seconds until a run hangs (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("mutants.json"), help="default: %(default)s")
    return parser


def _print(*lines: object) -> None:
    print(*lines, sep="\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())

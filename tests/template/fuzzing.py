"""A program that evaluates random templates and reports those that break a rule.

Its arguments are the first seed and the number of templates. It prints one JSON line before each template and for each
broken rule, and a summary last. The operating system ends it if a template hangs: the last line has its seed.
"""

from __future__ import annotations

import copy
import json
import resource
import signal
import sys
from collections import Counter
from typing import Any

from noetl_broker.template import Evaluation, TemplateError, compile_text
from tests.template.evaluating import scope_with
from tests.template.measuring import HANGING_SECONDS, MAXRSS_UNIT, is_json
from tests.template.wild import Wild

LIMIT_BYTES = 100 << 20
ENDS = {"refused", "error", "value"}


def outcome_of(source: str, inputs: dict[str, Any]) -> tuple[str, Any]:
    """Return how a template ended, with its value or message and its remaining steps."""
    try:
        template = compile_text(source, "here")
    except TemplateError as fault:
        return "refused", fault.message
    run = Evaluation(scope_with(inputs=inputs, steps={"s": {"rows": [1]}}, workload={"w": {"a": 1}}))
    try:
        value = template.run(run)
    except TemplateError as fault:
        ended = (
            "error" if not isinstance(fault.__cause__, SyntaxError | MemoryError) else type(fault.__cause__).__name__
        )
        return ended, (fault.message, run.fuel)
    return ("value" if is_json(value) else "no JSON"), (copy.deepcopy(value), run.fuel)


def memory() -> tuple[int, int]:
    """Return the bytes in use and their maximum so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT
    try:
        with open("/proc/self/statm") as pages:  # noqa: PTH123 - a thousandth of the time of a Path
            return int(pages.read().split()[1]) * resource.getpagesize(), peak
    except OSError:
        return peak, peak


class Tally:
    """Counts of a run, and the seed that took most memory."""

    def __init__(self) -> None:
        """Start with zeros."""
        self.ended: Counter[str] = Counter()
        self.bytes = 0
        self.largest = 0

    def try_one(self, seed: int) -> list[str]:
        """Evaluate the template of a seed twice and return the rules that it broke."""
        wild = Wild(seed)
        source, inputs = wild.template(), wild.scope()
        before = json.dumps(inputs)
        held, peak = memory()
        signal.setitimer(signal.ITIMER_PROF, HANGING_SECONDS)  # nobody handles the signal: it ends the process
        try:
            ended, detail = outcome_of(source, inputs)
        except BaseException as fault:  # noqa: BLE001 - whatever else comes out of the engine is what we look for
            ended, detail = f"raised {type(fault).__name__}", str(fault)
        signal.setitimer(signal.ITIMER_PROF, 0)
        grown = memory()[1]
        grown = grown - held if grown > peak else 0
        self.ended[ended] += 1
        if grown > self.bytes:
            self.bytes, self.largest = grown, seed
        broken = [] if ended in ENDS else [f"{ended}: {detail!r:.300}"]
        broken += [f"it grew by {grown >> 20} MiB"] * (grown > LIMIT_BYTES)
        broken += ["it changed what it was given"] * (before != json.dumps(inputs))
        if not broken and outcome_of(source, inputs) != (ended, detail):
            broken.append("it came out otherwise the second time")
        return [f"{one}; {source!r}" for one in broken]


def main(first: int, count: int) -> None:
    """Evaluate `count` templates, beginning with the seed `first`."""
    tally = Tally()
    for seed in range(first, first + count):
        print(json.dumps({"seed": seed}), flush=True)
        for broken in tally.try_one(seed):
            print(json.dumps({"seed": seed, "broken": broken}), flush=True)
    print(json.dumps({"count": count, **vars(tally)}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

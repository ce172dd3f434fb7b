"""A program that evaluates random templates and reports those that break a rule.

Its arguments are the first seed and the number of templates. It prints one JSON line for each broken rule, progress
now and then, and a summary last.
"""

from __future__ import annotations

import copy
import json
import resource
import signal
import sys
import time
from collections import Counter
from typing import Any

from noetl_broker.template import Evaluation, TemplateError, compile_text
from tests.processor_time import least_seconds
from tests.template.evaluating import scope_with
from tests.template.measuring import MAXRSS_UNIT, is_json
from tests.template.wild import Wild

LIMIT_SECONDS = 0.25
LIMIT_BYTES = 100 << 20
HANGING_SECONDS = 60.0
ENDS = {"refused", "error", "value"}
REPORTED_EVERY = 1_000


class Hang(BaseException):
    """The template runs too long."""


def hang(*_: object) -> None:
    """Interrupt the running template."""
    raise Hang


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
    """Counts and maxima of a run."""

    def __init__(self) -> None:
        """Start with zeros."""
        self.ended: Counter[str] = Counter()
        self.seconds = 0.0
        self.slowest = 0
        self.bytes = 0
        self.largest = 0

    def try_one(self, seed: int) -> list[str]:
        """Evaluate the template of a seed twice and return the rules that it broke."""
        wild = Wild(seed)
        source, inputs = wild.template(), wild.scope()
        before = json.dumps(inputs)
        held, peak = memory()
        started = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, HANGING_SECONDS)
        try:
            ended, detail = outcome_of(source, inputs)
        except BaseException as fault:  # noqa: BLE001 - whatever else comes out of the engine is what we look for
            ended, detail = f"raised {type(fault).__name__}", str(fault)
        signal.setitimer(signal.ITIMER_PROF, 0)
        seconds = time.process_time() - started
        if seconds > LIMIT_SECONDS and ended in ENDS:
            seconds = least_seconds(LIMIT_SECONDS, lambda: outcome_of(source, inputs))
        grown = memory()[1]
        grown = grown - held if grown > peak else 0
        self.ended[ended] += 1
        if seconds > self.seconds:
            self.seconds, self.slowest = seconds, seed
        if grown > self.bytes:
            self.bytes, self.largest = grown, seed
        broken = [] if ended in ENDS else [f"{ended}: {detail!r:.300}"]
        broken += [f"it took {seconds:.3f} s"] * (seconds > LIMIT_SECONDS)
        broken += [f"it grew by {grown >> 20} MiB"] * (grown > LIMIT_BYTES)
        broken += ["it changed what it was given"] * (before != json.dumps(inputs))
        if not broken and outcome_of(source, inputs) != (ended, detail):
            broken.append("it came out otherwise the second time")
        return [f"{one}; {source!r}" for one in broken]


def main(first: int, count: int) -> None:
    """Evaluate `count` templates, beginning with the seed `first`."""
    signal.signal(signal.SIGPROF, hang)
    tally = Tally()
    for seed in range(first, first + count):
        if (seed - first) % REPORTED_EVERY == 0:
            print(json.dumps({"reached": seed}), flush=True)  # noqa: T201 - this is a program
        for broken in tally.try_one(seed):
            print(json.dumps({"seed": seed, "broken": broken}), flush=True)  # noqa: T201
    print(json.dumps({"count": count, **vars(tally)}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

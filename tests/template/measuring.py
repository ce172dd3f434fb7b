"""A program that evaluates templates in processes of their own and reports result, time and memory.

It reads a JSON list of templates from its standard input. It prints one JSON line for each: outcome, message or
value, seconds of processor time, and bytes of growth. A crash or hang ends only the process of these templates.
"""

from __future__ import annotations

import copy
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from itertools import zip_longest
from math import isfinite
from typing import Any

from noetl_broker.template import Evaluation, TemplateError, compile_text
from tests.processor_time import ATTEMPTS, slowness
from tests.template.escapes import INPUTS
from tests.template.evaluating import scope_with

LIMIT_SECONDS = 60  # of a template that hangs
TOGETHER = 25  # in one process
MUCH_SECONDS = 0.25  # more is too much on a machine of usual speed
MUCH_BYTES = 100 << 20
LIMIT_BYTES = 2 << 30
MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
SHOWN = 200
GIVEN: dict[str, Any] = {
    "inputs": INPUTS,
    "workload": {"w": {"a": 1}},
    "steps": {"s": {"rows": [1, 2], "status": "fine"}},
}
KEPT = copy.deepcopy(GIVEN)


def is_json(value: object, depth: int = 0) -> bool:
    """Return whether a value has only the types of JSON and can be stored."""
    if type(value) is dict:
        return depth < 101 and all(type(key) is str and is_json(key) for key in value) and _are(value.values(), depth)
    if type(value) is list:
        return depth < 101 and _are(value, depth)
    if type(value) is str:
        return "\x00" not in value and (value.isascii() or _encodes(value))
    return value is None or type(value) in {bool, int} or (type(value) is float and isfinite(value))


def _are(values: Any, depth: int) -> bool:
    return all(is_json(value, depth + 1) for value in values)


def _encodes(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def outcome_of(source: str) -> tuple[str, str, int]:
    """Return how a template ended, its message or value, and its steps."""
    try:
        template = compile_text(source, "here")
    except TemplateError as fault:
        return "refused", fault.message, 0
    run = Evaluation(scope_with(**GIVEN))
    try:
        value = template.run(run)
    except TemplateError as fault:
        ended, detail = "error", fault.message
    else:
        ended, detail = ("value" if is_json(value) else "no JSON"), repr(value)[:SHOWN]
    return ended, detail, run.granted - run.fuel


def measure_all(sources: list[str]) -> Iterator[dict[str, Any]]:
    """Evaluate templates in few processes; again in its own process what ended or changed one, or took too much.

    A process counts the memory of all its templates, so no template seems to need less than it does.
    """
    for start in range(0, len(sources), TOGETHER):
        batch = sources[start : start + TOGETHER]
        reports, _, changed = _in_child(batch)
        for source, report in zip_longest(batch, reports):
            fine = report and report["seconds"] <= MUCH_SECONDS and report["bytes"] <= MUCH_BYTES and not changed
            yield report if fine else measured(source)


def measured(source: str) -> dict[str, Any]:
    """Evaluate in a child process under limits of the operating system; again if it takes much processor time.

    Other processes of the machine may slow it down.
    """
    reports = []
    for _ in range(ATTEMPTS):
        reports.append(_measured_once(source))
        if reports[-1]["seconds"] <= MUCH_SECONDS:
            break
    return min(reports, key=lambda report: float(report["seconds"]))


def _measured_once(source: str) -> dict[str, Any]:
    reports, status, changed = _in_child([source])
    if not reports:
        return {"ended": f"died ({status})", "detail": "", "seconds": 0.0, "bytes": 0, "steps": 0}
    return reports[0] | ({"ended": "changed what it was given"} if changed else {})


def _in_child(sources: list[str]) -> tuple[list[dict[str, Any]], int, bool]:
    """Evaluate in one process: the reports until its end, its status, and whether it changed what it was given."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_SECONDS, LIMIT_SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with os.fdopen(writing, "w") as answer:
            for source in sources:
                print(json.dumps(_report(source, memory)), file=answer, flush=True)
            print(json.dumps(GIVEN != KEPT), file=answer, flush=True)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answers:
        reports = [json.loads(line) for line in answers]
    _, status = os.waitpid(child, 0)
    changed = reports.pop() if len(reports) > len(sources) else False
    return reports, status, changed


def _report(source: str, memory: int) -> dict[str, Any]:
    """Evaluate; `memory` is what the process had at its start."""
    started = time.process_time()
    try:
        ended, detail, steps = outcome_of(source)
    except BaseException as fault:  # noqa: BLE001 - whatever else comes out of the engine is what we look for
        ended, detail, steps = f"raised {type(fault).__name__}", str(fault)[:SHOWN], 0
    seconds = time.process_time() - started
    if seconds > MUCH_SECONDS:
        seconds /= slowness()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) * MAXRSS_UNIT
    return {"ended": ended, "detail": detail, "seconds": seconds, "bytes": grown, "steps": steps}


if __name__ == "__main__":
    for one in measure_all(json.load(sys.stdin)):
        print(json.dumps(one), flush=True)  # noqa: T201 - this is a program

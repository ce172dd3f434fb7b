"""A program that evaluates templates, each in a process of its own, and reports result and memory.

It reads a JSON list of templates from its standard input. It prints one JSON line for each: outcome, message or value,
and bytes of growth. The operating system ends the process of a template that crashes, hangs or takes gigabytes: that
one has died.
"""

from __future__ import annotations

import copy
import json
import os
import resource
import sys
from math import isfinite
from typing import Any

from noetl_broker.template import Evaluation, TemplateError, compile_text
from tests.template.escapes import INPUTS
from tests.template.evaluating import scope_with

HANGING_SECONDS = 5  # of the processor; the worst of the corpus takes a quarter of a second
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


def outcome_of(source: str) -> tuple[str, str]:
    """Return how a template ended, and its message or value."""
    try:
        template = compile_text(source, "here")
    except TemplateError as fault:
        return "refused", fault.message
    try:
        value = template.run(Evaluation(scope_with(**GIVEN)))
    except TemplateError as fault:
        return "error", fault.message
    if GIVEN != KEPT:
        return "changed what it was given", repr(value)[:SHOWN]
    return ("value" if is_json(value) else "no JSON"), repr(value)[:SHOWN]


def measured(source: str) -> dict[str, Any]:
    """Evaluate in a child process under limits of the operating system."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (HANGING_SECONDS, HANGING_SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
        with os.fdopen(writing, "w") as answer:
            answer.write(json.dumps(_report(source)))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answers:
        report = answers.read()
    _, status = os.waitpid(child, 0)
    return dict(json.loads(report)) if report else {"ended": f"died ({status})", "detail": "", "bytes": 0}


def _report(source: str) -> dict[str, Any]:
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        ended, detail = outcome_of(source)
    except BaseException as fault:  # noqa: BLE001 - whatever else comes out of the engine is what we look for
        ended, detail = f"raised {type(fault).__name__}", str(fault)[:SHOWN]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) * MAXRSS_UNIT
    return {"ended": ended, "detail": detail, "bytes": grown}


if __name__ == "__main__":
    for one in json.load(sys.stdin):
        print(json.dumps(measured(one)), flush=True)

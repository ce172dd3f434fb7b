"""Deferred strings: templates that a worker renders, because they name what only a worker knows.

A string in a field or an input of a worker's step is deferred for two reasons. It names a worker-side word, such as
`env` or `secret`; or it reads a deferred key of the workload. A field is also deferred if it reads a deferred input of
its step. The readers decide this (`Reading.tree`, `read_fields`). Any other template that reads a deferred string is an
error.
"""

from __future__ import annotations

from collections.abc import Iterable

from noetl_broker.playbook.diagnostics import Location
from noetl_broker.playbook.model import Playbook
from noetl_broker.playbook.reader import COST_OF_COPY, NO_NAMES, Reading, Use, shortened, templates_of
from noetl_broker.playbook.scopes import Scopes, Seen
from noetl_broker.playbook.template_reads import ARGS, input_read, workload_key_read
from noetl_broker.template import WORKER_WORDS, read_by_text

CODE = "deferred-read"
REMEDY = "write it in a field or an input of the step whose worker needs it; or let an action return the value"


def refuse_reads_of_inputs(reading: Reading, inputs: Iterable[Use], names: frozenset[str]) -> None:
    """Report each deferred input that reads one of these inputs of its own level: a worker has their values.

    An input may read a word of the worker that has its name. It may also read the value that its step is given under
    its name. In the job of one item, the input has replaced that value.
    """
    for use in inputs:
        part, own = use.part, use.location[-1]
        others = names - {own} if own in part.worker or part.names <= part.worker else names
        for location, text in templates_of(use):
            found = input_read(text, others, part.names) if reading.is_deferred(text, part) else None
            if found is not None:
                message = f"`{shortened(text)}` reads `{found}`, and an input does not see those of its own level"
                reading.report.error(CODE, location, message, "join the two in a field of the step")


def refuse_reads(reading: Reading, playbook: Playbook) -> None:
    """Report each template that the broker evaluates and that reads what only a worker can render."""
    scopes, known = Scopes(reading, playbook.steps), playbook.steps.keys() | playbook.workload.keys()
    for use in reading.uses:
        part, by_worker = use.part, bool(use.part.worker)
        if by_worker and part.role in {"fields", "inputs"}:
            continue
        seen = Seen() if part.step is None else scopes.of_use(use)
        words = NO_NAMES if by_worker else use.names & WORKER_WORDS - part.names - seen.names - known
        keys = NO_NAMES if by_worker and part.role == "compensate" else reading.deferred_keys
        if not (words or keys or seen.deferred):
            continue
        reading.work.spend(COST_OF_COPY + len(seen.names) // COST_OF_COPY)
        hidden = part.names | seen.names
        for location, text in templates_of(use):
            for word in sorted(words & read_by_text(text)[0]):
                message = f"the broker evaluates this template, and only a worker knows `{word}`"
                reading.report.error("worker-word", location, message, REMEDY)
            if (key := workload_key_read(text, keys, hidden)) is not None:
                _refuse(reading, use, location, text, f"`workload.{key}`")
            all_inputs = {ARGS} & seen.names  # an input of this name hides them
            if (name := input_read(text, seen.deferred, part.names | all_inputs)) is not None:
                _refuse(reading, use, location, text, f"the input `{name}` of the step `{part.step}`")


def _refuse(reading: Reading, use: Use, location: Location, text: str, what: str) -> None:
    written = use.value if location == use.location else text  # a condition has no braces
    message = f"`{shortened(written)}` reads {what}, which only a worker can render"
    reading.report.error(CODE, location, message, REMEDY)

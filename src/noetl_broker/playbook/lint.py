"""Checks a playbook: every error and every warning at once, in document order."""

from __future__ import annotations

from noetl_broker.playbook.compile import read_document
from noetl_broker.playbook.findings import Finding, Place, Rules
from noetl_broker.playbook.model import Playbook
from noetl_broker.playbook.names import warn_shadowing, warn_unknown_names
from noetl_broker.playbook.paths import warn_joins, warn_loops, warn_overlaps, warn_unreachable
from noetl_broker.playbook.reading import Reading
from noetl_broker.playbook.results import warn_missing_results
from noetl_broker.playbook.retries import refuse_keys_of_words
from noetl_broker.playbook.work import TooMuchWork, Work


def check(source: str | bytes, *, file: str, rules: Rules) -> tuple[Finding, ...]:
    """Give all findings of a document; bad input is a finding, never an exception."""
    reading, playbook = read_document(source, file=file, rules=rules)
    if playbook is not None:
        reading.work = Work(rules.most_work, rules.most_seconds)
        try:
            _examine(reading, playbook)
        except TooMuchWork as too_much:
            message = (
                f"to look for all that may be meant otherwise takes more than {too_much}: some warnings are missing"
            )
            hint = "split it into playbooks that call each other"
            reading.report.warning("too-much-work", (), message, hint)
    return reading.report.sorted()


def _examine(reading: Reading, playbook: Playbook) -> None:
    """Report what registration looks for, and what runs all the same once it is in the catalog."""
    refuse_keys_of_words(reading)
    places = _places(playbook)
    warn_shadowing(reading, playbook, places)
    if reading.broken:  # the graph has holes that are not the author's meaning: what follows from them is noise
        return
    playbook.graph.close()
    warn_unknown_names(reading, playbook)
    warn_missing_results(reading, playbook)
    warn_unreachable(reading, playbook, places)
    warn_loops(reading, playbook, places)
    warn_overlaps(reading, playbook, places)
    warn_joins(reading, playbook, places)


def _places(playbook: Playbook) -> dict[str, Place]:
    """Give where each step's name stands."""
    word = "workflow" if playbook.document.get("workflow") is not None else "steps"
    workflow = playbook.document[word]
    indices: dict[int, int] = {id(raw): index for index, raw in reversed([*enumerate(workflow)])}
    return {
        name: (word, indices[id(step.raw)], "step" if "step" in step.raw else "name")
        for name, step in playbook.steps.items()
    }

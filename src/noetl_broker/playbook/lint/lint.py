"""Checks a playbook: gives all errors and warnings in document order."""

from __future__ import annotations

from noetl_broker.playbook.blocks import MARK
from noetl_broker.playbook.compile import Compilation, compile_playbook, read_document
from noetl_broker.playbook.diagnostics import Finding, Location, PlaybookError, PlaybookRules
from noetl_broker.playbook.lint.blocks import refuse_unknown_answer
from noetl_broker.playbook.lint.choices import warn_dead_catches, warn_next_of_fails, warn_open_choices
from noetl_broker.playbook.lint.http_steps import warn_unsent_inputs
from noetl_broker.playbook.lint.missing_results import warn_missing_results
from noetl_broker.playbook.lint.python_steps import check_python_steps
from noetl_broker.playbook.lint.reachability import warn_joins, warn_loops, warn_overlaps, warn_unreachable
from noetl_broker.playbook.lint.unknown_fields import warn_unknown_fields
from noetl_broker.playbook.lint.unknown_names import warn_shadowing, warn_unknown_names, workload_keys
from noetl_broker.playbook.model import Playbook
from noetl_broker.playbook.retries import refuse_keys_of_retry_words
from noetl_broker.playbook.schedules import read_schedules
from noetl_broker.playbook.scopes import Scopes, Seen
from noetl_broker.playbook.work_budget import TooMuchWork, Work


def check(source: str | bytes, *, file: str, rules: PlaybookRules) -> tuple[Finding, ...]:
    """Give all findings of a document; raises nothing for bad input."""
    draft = read_document(source, file=file, rules=rules, registering=True)
    report = draft.reading.report
    work = Work(rules.most_work, rules.most_seconds)
    try:
        _examine(draft, source, work)
    except TooMuchWork as too_much:
        message = f"looking for warnings takes more than {too_much}: some are missing"
        report.warning("too-much-work", (), message, "split it into playbooks that call each other")
    return report.sorted()


def compile_new(source: str | bytes, *, file: str, rules: PlaybookRules) -> Playbook:
    """Compile a playbook that is not registered. Raises PlaybookError with every error that registration finds."""
    errors = [found for found in check(source, file=file, rules=rules) if found.severity == "error"]
    if errors:
        error = PlaybookError(errors)
        error.add_note("\n".join(map(str, errors)))
        raise error
    return compile_playbook(source, file=file, rules=rules)


def _examine(draft: Compilation, source: str | bytes, work: Work) -> None:
    """Report what registration refuses or warns of, though it compiles."""
    reading, playbook = draft.reading, draft.playbook
    if playbook is None:
        return
    reading.work = work
    if MARK in playbook.path:
        message = f"the path {playbook.path} has a {MARK}, which is the mark of a block"
        location: Location = ("metadata", "path") if "path" in playbook.document.get("metadata", {}) else ("path",)
        reading.report.error("bad-path", location, message, "use letters, digits, / and _")
    read_schedules(reading, playbook.document)
    text = source if isinstance(source, str) else source.decode("utf-8-sig")
    _examine_steps(draft, text, workload_keys(playbook))


def _examine_steps(draft: Compilation, text: str, given: frozenset[str] | None) -> None:
    """Examine a playbook or a block, and the blocks in it; `given` are the workload keys (None: any may be given)."""
    reading, playbook = draft.reading, draft.playbook
    if playbook is None:
        return
    refuse_keys_of_retry_words(reading)
    check_python_steps(reading, playbook, text)
    warn_shadowing(reading, playbook, draft.locations, given or frozenset())
    if not reading.broken:  # else arcs are missing from the graph, so these warnings would be wrong
        playbook.graph.close()
        if given is not None:
            warn_unknown_names(reading, playbook, given)
        warn_unknown_fields(reading, playbook, given)
        warn_missing_results(reading, playbook)
        warn_unsent_inputs(reading, playbook, draft.locations)
        warn_unreachable(reading, playbook, draft.locations)
        warn_loops(reading, playbook, draft.locations)
        warn_overlaps(reading, playbook, draft.locations)
        warn_dead_catches(reading, playbook, draft.locations)
        warn_next_of_fails(reading, playbook, draft.locations)
        warn_open_choices(reading, playbook, draft.locations)
        warn_joins(reading, playbook, draft.locations)
    scopes = Scopes(reading, playbook.steps) if draft.blocks else None
    for name, block in draft.blocks.items():
        block.reading.work = reading.work
        seen = scopes.of_fields(playbook.steps[name]) if scopes is not None else Seen()
        refuse_unknown_answer(block, playbook.steps[name])
        _examine_steps(block, text, seen.possible if seen.complete else None)

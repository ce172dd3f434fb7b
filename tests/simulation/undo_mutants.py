"""Mutants of the rules of undoing. The simulation must find each of them."""

from __future__ import annotations

from noetl_broker.broker import compensation, context, core, dispatcher, draining, iterators, open_visits, retries, undo
from noetl_broker.store import child_rows
from noetl_broker.store.undo_rows import UndoColumns
from tests.simulation.mutants import Mutant
from tests.simulation.scenarios import UNDOS_FROM

UNDO_MUTANTS = (
    # what is to be undone
    Mutant("a success is not noted", UNDOS_FROM, undo.report_success, "undos.append", "undos.count"),
    Mutant("a child that succeeded is not noted", UNDOS_FROM, child_rows._answer, "if ended.undo:", "if False:"),
    Mutant(
        "inside is undone in place of the whole",
        UNDOS_FROM,
        undo.report_success,
        "None if step.compensate",
        "None if not step.compensate",
    ),
    Mutant(
        "items are undone beside the whole",
        UNDOS_FROM + 13,
        UndoColumns._supersede,
        "self.superseded[owner, step, visit] = None",
        "pass",
    ),
    Mutant("a row of an item is counted twice", UNDOS_FROM + 13, undo.report_success, "1 - token.undos", "1"),
    Mutant(
        "an execution ends with something to undo",
        UNDOS_FROM,
        draining.begin_compensation,
        "not own and not draft.undo",
        "not own",
    ),
    # draining
    Mutant(
        "a leased job is not awaited",
        UNDOS_FROM,
        open_visits._may_worker_report,
        "and not token.answered",
        "and token.answered",
    ),
    Mutant(
        "a late success is not undone",
        UNDOS_FROM + 10,
        draining.drain,
        "token = report_success(draft, step, token)",
        "pass",
    ),
    Mutant(
        "a late success of an item is not undone",
        UNDOS_FROM + 17,
        draining._drain_item,
        "report_item(draft, step, token, index)",
        "token",
    ),
    Mutant(
        "open children are not awaited",
        UNDOS_FROM + 50,
        draining.begin_compensation,
        "has_open_child(step, token)",
        "False",
    ),
    Mutant(
        "an iterator that failed awaits nothing",
        UNDOS_FROM + 69,
        draining.drain_items,
        "has_open_items(token)",
        "False",
    ),
    Mutant(
        "the undo begins before all is awaited", UNDOS_FROM, compensation.go_on_compensating, "and not draft.tokens", ""
    ),
    Mutant(
        "an event of a visit that is over completes it",
        UNDOS_FROM,
        dispatcher._is_late,
        "return token.draining",
        "return False",
    ),
    Mutant(
        "an unwanted child is forgotten",
        UNDOS_FROM + 1572,
        core._refused,
        "unwanted_child(playbook, state.status, event)",
        "None",
    ),
    Mutant(
        "an item whose catch fails stays open",
        UNDOS_FROM,
        iterators._end_item,
        "_write_end(draft, step, token, error)",
        "pass",
    ),
    # what may have happened
    Mutant("a lost lease is certain", UNDOS_FROM + 55, undo.note_failure, "if lost or", "if"),
    Mutant("a timeout is certain", UNDOS_FROM + 20, undo._is_lost, 'error.get("type") in LOST', "False"),
    Mutant(
        "what may have happened is not listed", UNDOS_FROM + 21, retries.retry_or_fail, "if token.unsure:", "if False:"
    ),
    Mutant(
        "an item that timed out is certain",
        UNDOS_FROM + 130,
        undo.report_unknown_item,
        "if stands.unsure or",
        "if False and",
    ),
    # one undo after the other
    Mutant("the first success is undone first", UNDOS_FROM, context.Known._undo_row, "return max(", "return min("),
    Mutant(
        "an undo is done twice",
        UNDOS_FROM,
        compensation.complete_undo,
        'UndoChange(*current[:3], "done")',
        'UndoChange(*current[:3], "open")',
    ),
    Mutant(
        "an undo has one attempt more", UNDOS_FROM + 21, compensation.fail_undo, "failures < retry", "failures <= retry"
    ),
    Mutant(
        "an undo that failed is passed over",
        UNDOS_FROM + 21,
        compensation._fail_for_good,
        "_end_failed(draft, compensation, {",
        "_ = (draft, compensation, {",
    ),
    # the end
    Mutant(
        "a cancel that undid all fails",
        UNDOS_FROM,
        compensation._end,
        "END_EVENTS[compensation.status], compensation.status",
        "END_EVENTS[FAILED], FAILED",
    ),
    Mutant(
        "an abandoned undo leaves its row",
        UNDOS_FROM + 20,
        compensation.abandon_execution,
        "draft.unknown += 1\n    for",
        "pass\n    for",
    ),
)

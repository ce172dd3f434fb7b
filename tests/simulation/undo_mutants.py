"""Mutants of the rules of undoing. The simulation must find each of them."""

from __future__ import annotations

from noetl_broker.broker import compensation, core, dispatcher
from noetl_broker.broker.draft import known, memory
from noetl_broker.broker.undo import begin, draining, later, open_visits
from noetl_broker.broker.undo import rows as undo
from noetl_broker.broker.work import item_ends, retries
from noetl_broker.store.turn import child_rows
from tests.simulation.mutants import Mutant
from tests.simulation.scenarios import UNDOS_FROM

UNDO_MUTANTS = (
    Mutant("a success is not noted", UNDOS_FROM, undo.report_success, r"draft\.add\(", "repr("),
    Mutant("a child that succeeded is not noted", UNDOS_FROM + 1, child_rows._answer, "if ended.undo:", "if False:"),
    Mutant(
        "inside is undone in place of the whole",
        UNDOS_FROM,
        undo.report_success,
        "None if step.compensate",
        "None if not step.compensate",
    ),
    Mutant("a row of an item is counted twice", UNDOS_FROM + 225, undo.report_success, "1 - token.undos", "1"),
    Mutant(
        "an execution ends with something to undo",
        UNDOS_FROM,
        begin.begin_compensation,
        "not own and not draft.state.undo",
        "not own",
    ),
    Mutant(
        "a leased job is not draining",
        UNDOS_FROM,
        open_visits._may_worker_report,
        "and not token.answered",
        "and token.answered",
    ),
    Mutant("a late success is not undone", UNDOS_FROM, draining.drain, r"token = report_success\(.*\)", "pass"),
    Mutant(
        "a late success of an item is not undone",
        UNDOS_FROM,
        draining._drain_item,
        r"report_item\(.*index\)",
        "token",
    ),
    Mutant(
        "open children are not draining",
        UNDOS_FROM + 50,
        begin.begin_compensation,
        r"has_open_child\(step, token\)",
        "False",
    ),
    Mutant(
        "an iterator that failed awaits nothing",
        UNDOS_FROM + 110,
        draining.drain_items,
        r"has_open_items\(token\)",
        "False",
    ),
    Mutant(
        "the undo begins before all is draining",
        UNDOS_FROM,
        compensation.go_on_compensating,
        "and not draft.state.tokens",
        "",
    ),
    Mutant(
        "an event of a visit that is over completes it",
        UNDOS_FROM,
        dispatcher._is_late,
        "return token.draining",
        "return False",
    ),
    Mutant("a late child is forgotten", UNDOS_FROM + 587, core._refused, r"late_child_to_undo\(.*\n", "None\n"),
    Mutant("an item whose catch fails stays open", UNDOS_FROM, item_ends._write_outcome, r"draft.add.*event.*", "pass"),
    Mutant("a lost lease is certain", UNDOS_FROM + 39, undo.note_failure, "if lost or", "if"),
    Mutant("a timeout is certain", UNDOS_FROM + 21, undo._is_lost, r'error.get\("type"\) in LOST', "False"),
    Mutant(
        "what may have happened is not listed", UNDOS_FROM + 21, retries.retry_or_fail, "if token.unsure:", "if False:"
    ),
    Mutant(
        "an item that timed out is certain",
        UNDOS_FROM + 228,
        undo.report_unknown_item,
        "if stands.unsure or",
        "if False and",
    ),
    Mutant("the first success is undone first", UNDOS_FROM + 1, known.Known._undo_row, r"return max\(", "return min("),
    Mutant(
        "an undo is done twice", UNDOS_FROM, compensation.complete_undo, r'current\[:3\], "done"', 'current[:3], "open"'
    ),
    Mutant("an undo has one attempt more", UNDOS_FROM, compensation.fail_undo, "failures < retry", "failures <= retry"),
    Mutant(
        "an undo that failed is passed over",
        UNDOS_FROM,
        compensation._fail_for_good,
        r"_end\(draft, compensation, \{",
        "_ = (draft, compensation, {",
    ),
    Mutant(
        "a cancel that undid all fails",
        UNDOS_FROM,
        compensation._end,
        r"END_EVENTS\[compensation.status\], compensation.status",
        "END_EVENTS[FAILED], FAILED",
    ),
    Mutant(
        "a child that left something is not noted",
        UNDOS_FROM + 122,
        undo.report_left,
        r"return report.*",
        "return token",
    ),
    Mutant("a later undo leaves what failed", UNDOS_FROM, memory._remember_undos, r"decision.of\(UndoBegun\)", "()"),
    Mutant("a later undo skips what failed", UNDOS_FROM, compensation._next_row, "if not begun", "if True"),
    Mutant("a later undo forgets what is unknown", UNDOS_FROM, later.begin_undo, "if unknown:", "if False:"),
    Mutant("a later undo queues a second job", UNDOS_FROM, compensation._is_again, r"return bool\(.*", "return False"),
    Mutant("an undo forgets its pool", UNDOS_FROM + 23, compensation._start_action, "undo.pool is None and", ""),
    Mutant(
        "an undo forgets the pool of what it undoes",
        UNDOS_FROM,
        compensation._start_action,
        "undo.pool is None and",
        "False and",
    ),
    Mutant(
        "an undo forgets the pool of an item",
        UNDOS_FROM + 17,
        compensation._read,
        r'known.get\("pool"\)',
        'None if row.item_index else known.get("pool")',
    ),
    Mutant(
        "a later undo counts its attempts anew",
        UNDOS_FROM,
        compensation._start_undo,
        "else draft.turn.number",
        "else 1",
    ),
    Mutant(
        "a parent that joins an undo is not answered",
        UNDOS_FROM + 193,
        later.begin_undo,
        r"_replace\(answer=answer\)",
        "_replace()",
    ),
    Mutant("a parent is not answered if nothing is left", UNDOS_FROM + 95, core._refused, "reason == NOTHING", "False"),
    Mutant(
        "a late success of an undo is lost", UNDOS_FROM + 277, later.is_late_undo, "and state.unknown > 0", "and False"
    ),
    Mutant("what is settled is left", UNDOS_FROM + 79, later.settle_undo, "draft.state.undo -= 1", "pass"),
    Mutant("what is left is undone", UNDOS_FROM, undo.set_undo_status, '"left" if left', '"undone" if left'),
    Mutant(
        "a child goes on with an abandoned undo",
        UNDOS_FROM + 65,
        compensation.abandon_execution,
        r"draft.add\(ChildUndoAbandoned.*",
        "pass",
    ),
    Mutant(
        "an abandoned undo leaves its row",
        UNDOS_FROM + 65,
        compensation.abandon_execution,
        r"draft.state.unknown \+= 1\n",
        "pass\n",
    ),
    Mutant(
        "an abandoned undo does not list the items that workers have",
        UNDOS_FROM + 1050,
        undo.report_draining,
        "task.compensate is not None",
        "task.compensate is None",
    ),
)

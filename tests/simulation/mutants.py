"""Mutants: faults added to the core and the store. The simulation must find each of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from textwrap import dedent
from typing import Any, NamedTuple

from noetl_broker.broker import (
    approval,
    children,
    closing,
    context,
    core,
    dispatcher,
    draft,
    failures,
    finalize,
    items,
    iterators,
    joins,
    open_visits,
    pauses,
    retries,
    signals,
    state,
    steps,
    transitions,
)
from noetl_broker.store import claimed_rows, turn_rows
from tests.simulation.random_plans import APPROVALS_FROM, NEEDS_FROM, SIGNALS_FROM, WAITS_FROM
from tests.simulation.scenarios import CATCHES_FROM, ITEMS_FROM, PAUSES_FROM, scenario
from tests.simulation.trials import Trial, run_trial


class Mutant(NamedTuple):
    """One fault: a changed line of a function, or a defect of the store (see `Server`).

    `seed`: the first that is tried. It shows the fault, or one soon after it does.
    """

    name: str
    seed: int
    function: Callable[..., Any] | None = None
    line: str = ""
    changed: str = ""
    defects: frozenset[str] = frozenset()


MUTANTS = (
    # decisions as rows
    Mutant("a plain decision changes jobs", 0, turn_rows.Columns.add, "if decision.has_rare", "if decision.begun"),
    # joins
    Mutant("a join runs at its first arrival", 0, joins._is_ready, "return next", "return True or next"),
    Mutant(
        "end runs before other tokens have ended",
        0,
        joins.waits_for,
        "(visit for visit, token in tokens.items() if not token.draining)",
        "iter(())",
    ),
    Mutant("a join does not see waiting joins", 15, joins.waits_for, "if other not in group", "if False"),
    Mutant("joins are released last first", 12, joins.release_join, "step.index)", "-step.index)"),
    Mutant("a join merges in the order of arrival", 104, joins.merge_arrivals, "arrival: arrival.arc", "arrival: 0"),
    Mutant(
        "any does not spend running tokens", 4, joins._mark_other_tokens_spent, "token.spent | {name}", "token.spent"
    ),
    Mutant(
        "any does not spend waiting tokens", 15, joins._mark_other_tokens_spent, "_mark_spent(arrival, name)", "arrival"
    ),
    Mutant(
        "any does not spend moving tokens", 4, joins._mark_spent_if_it_reaches, "_mark_spent(arrival, join)", "arrival"
    ),
    Mutant("a join needs one arrival more", NEEDS_FROM, joins._count_arrival, "< step.need", "<= step.need"),
    Mutant(
        "a join with too few arrivals runs", NEEDS_FROM + 2, joins.release_join, 'if step.join == "any":', "if False:"
    ),
    Mutant("a join with too few arrivals fails first", NEEDS_FROM, joins.release_join, '(step.join == "any", ', "("),
    Mutant("a spent token may make up the number", NEEDS_FROM + 4053, joins._may_arrive, "join not in spent and ", ""),
    Mutant(
        "losers are closed only if they are running",
        NEEDS_FROM + 2,
        joins._close_losers,
        "arrival.step == name or loses",
        "False and loses",
    ),
    Mutant(
        "losers that run are not closed",
        NEEDS_FROM + 2,
        joins._close_losers,
        "and loses(token.step",
        "and False and loses(token.step",
    ),
    Mutant(
        "losers that wait are not closed",
        NEEDS_FROM + 24,
        joins._close_losers,
        "if loses(step,",
        "if False and loses(step,",
    ),
    Mutant(
        "end cancels only what can reach it", NEEDS_FROM + 23, joins._close_losers, "join is draft.playbook.end or ", ""
    ),
    Mutant(
        "a closed visit's job stays",
        NEEDS_FROM + 22,
        closing.close_visit,
        "draft.writes.rare.closed.append(visit)",
        "pass",
    ),
    Mutant(
        "a wait for nothing stays open",
        WAITS_FROM + 103,
        joins._mark_other_tokens_spent,
        "if are_all",
        "if False and are_all",
    ),
    Mutant(
        "a spent wait begins for nothing", WAITS_FROM + 78, steps._enter_action, "if arrival.spent and", "if False and"
    ),
    Mutant(
        "a wait before a merging join is closed",
        WAITS_FROM + 78,
        steps.are_all_ways_spent,
        "if target.join ==",
        "if False and target.join ==",
    ),
    Mutant(
        "a wait with a way out is closed", WAITS_FROM + 551, steps.are_all_ways_spent, "if not targets:", "if False:"
    ),
    Mutant("a spent waiting token counts", 543, joins._mark_spent, ", sources=()", ""),
    Mutant("a spent token enters", 4, joins.deliver, "step.name in arrival.spent", "False"),
    # transitions
    Mutant("exclusive reads later conditions", 30, transitions._choose, "step.exclusive and matched", "False"),
    Mutant("otherwise fires always", 2, transitions._choose, "seen_condition and not matched", "seen_condition"),
    Mutant("a branch end is forgotten", 7, transitions._leave, "elif not arrivals", "elif False"),
    Mutant(
        "the result of a spent token counts", 4, transitions._leave_visit, "() if _is_spent(draft, token) else ", ""
    ),
    Mutant("routers forget what they passed", 12, steps._pass_router, "arrival.passed | {step.name}", "frozenset()"),
    Mutant("one visit too many", 83, steps._over_limit, "draft.total >= limit", "draft.total > limit"),
    Mutant("a child's result is unwrapped twice", 260, finalize._answer, "return wrap(result)", "return result"),
    Mutant("one branch end gives a mapping", 0, finalize.execution_result, "len(data) == 1", "False"),
    Mutant("end forgets its inputs", 447, state.decode, ', document.get("end_inputs", {})', ""),
    # failures
    Mutant("one attempt too many", 0, retries.retry_or_fail, "failures < retry.max", "failures <= retry.max"),
    Mutant("retryable is ignored", 82, retries.retry_or_fail, "draft.event.retryable", "True"),
    Mutant("on_error: continue fails", 4, retries.retry_or_fail, 'step.on_error == "continue"', "False"),
    Mutant("a spent token's failure fails all", 4, failures.spent_joins, "not spent or", "True or not spent or"),
    Mutant(
        "failures behind a race do not count", 137, failures.spent_joins, "draft.playbook", "True or draft.playbook"
    ),
    Mutant("stop_when is ignored", 105, retries.wants_retry, "retry.stop_when is not None and", "False and"),
    Mutant("a delay too long", 2, retries.retry_delay, "(failures - 1)", "failures"),
    # duplicate and late events
    Mutant("a failure counts twice", 105, dispatcher._row, "0 < event.attempt <= failed", "False"),
    Mutant("a failure of a lost lease counts", 1422, dispatcher._row, "elif event.stale:", "elif False:"),
    Mutant("a child is started twice", 1394, open_visits._column_of_child, " > token.failed_attempt", ""),
    Mutant(
        "an item's failure of a lost lease counts",
        31877,
        dispatcher._row,
        "(event.stale and kind != CHILD_DUE)",
        "False",
    ),
    Mutant(
        "a failed child's answer counts in the delay",
        597,
        dispatcher._by_visit,
        "token.failures if",
        "token.failed_attempt if",
    ),
    Mutant("an item counts twice", 80, iterators._ended_item, 'stands.status != "RUNNING"', "False"),
    # iterators
    Mutant("one item too many at a time", 8, iterators._start_items, "min(iteration.conc", "min(1 + iteration.conc"),
    Mutant("an iterator of failed items completes", 53, iterators._all_failed, "0 < counts", "0 > counts"),
    Mutant("failed items are forgotten", 143, draft.Draft._failed_items, "known.ask(want_failed(*visit)) or ()", "()"),
    Mutant("the rest of a wide iterator is forgotten", 210, iterators._start_items, "room > started > 0", "False"),
    # pauses
    Mutant("a paused execution enters steps", PAUSES_FROM, core._move_tokens, "draft.status == RUNNING", "True"),
    Mutant(
        "a paused execution starts items", PAUSES_FROM + 359, iterators._start_items, "draft.status != RUNNING", "False"
    ),
    Mutant(
        "a paused execution starts children again",
        PAUSES_FROM + 554,
        children.start_child_again,
        "!= RUNNING",
        "is None",
    ),
    Mutant("a resume forgets what was kept", PAUSES_FROM, pauses._run_on, "extend(hold.kept)", "extend(())"),
    Mutant(
        "a resume delivers the last first",
        PAUSES_FROM + 156,
        pauses._run_on,
        "extend(hold.kept)",
        "extend(hold.kept[::-1])",
    ),
    Mutant("a resume forgets what is due", PAUSES_FROM + 359, pauses._run_on, "waiting.due and", "False and"),
    Mutant("a late pause counts", PAUSES_FROM + 4, pauses.row_of_pause, "number is not None and", "False and"),
    Mutant("a pause leaves no number", PAUSES_FROM + 4, pauses._counted, "if number is None", "if True"),
    Mutant(
        "a resume of the parent ends all pauses",
        PAUSES_FROM + 6,
        pauses.resume_execution,
        "cause == PARENT and",
        "False and",
    ),
    Mutant("a queued execution is resumed", PAUSES_FROM + 13, pauses.resume_execution, "if hold.admitted", "if True"),
    Mutant(
        "jobs of a paused execution are retried",
        PAUSES_FROM + 202,
        turn_rows.Columns._add_status,
        'change[2] = "held"',
        "pass",
    ),
    # approvals
    Mutant("a rejection approves", APPROVALS_FROM + 2, approval._result_of, 'context["approved"]', "True"),
    Mutant("a decision loses the form", APPROVALS_FROM + 2, approval._result_of, "isinstance(form, dict)", "False"),
    Mutant("a decision leaves its wait open", APPROVALS_FROM + 2, approval.decide_approval, ', "done"', ', "open"'),
    Mutant(
        "an approval that timed out is decided",
        APPROVALS_FROM + 2,
        dispatcher._pass_moment,
        "== TIMEOUT",
        '== "no such purpose"',
    ),
    Mutant("a closed approval stays open", APPROVALS_FROM + 6, closing.close_visit, "closed.append(visit)", "closed"),
    # signals
    Mutant("a signal is taken twice", SIGNALS_FROM + 48, claimed_rows.event_of, 'if row["is_doubled"]', "if False"),
    Mutant("a kept signal is forgotten", SIGNALS_FROM + 48, signals._keep, "draft.signals.append(arrived)", "pass"),
    Mutant(
        "a kept signal is taken again",
        SIGNALS_FROM + 78,
        signals.begin_signal_wait,
        "draft.signals.remove(kept)",
        "pass",
    ),
    Mutant(
        "the youngest wait takes a signal",
        SIGNALS_FROM + 17,
        signals.oldest_first,
        "entry[:3])",
        "entry[:3], reverse=True)",
    ),
    Mutant(
        "a wait that refused a signal stays signalled",
        SIGNALS_FROM,
        signals.receive_signal,
        "draft.writes.rare.reopened.append(visit)",
        "pass",
    ),
    Mutant("a failed `when` fits", SIGNALS_FROM, signals._holds, "return False", "return True"),
    Mutant("a signal that is too old fits", SIGNALS_FROM + 141, signals.fits, "kept.before <= awaited.since", "True"),
    Mutant("a wait does not look again", SIGNALS_FROM + 12, defects=frozenset({"no_look_when_reopened"})),
    Mutant("looks at held waits are dropped", SIGNALS_FROM, defects=frozenset({"no_look_at_held_waits"})),
    # catch, output, and items that fail
    Mutant("a catch that is false is taken", CATCHES_FROM, transitions._read_catch, "if not true:", "if False:"),
    Mutant(
        "on_error is read before catch",
        CATCHES_FROM + 71,
        transitions.fail_visit,
        "if step.catch:",
        "if step.catch and not continues:",
    ),
    Mutant(
        "a caught step loses its data",
        CATCHES_FROM + 4,
        transitions._take_catch,
        "result=wrap(data)",
        "result=wrap(None)",
    ),
    Mutant(
        "an output does not replace the result",
        CATCHES_FROM,
        transitions._leave_visit,
        "draft.end_visit((step.name, token.visit), StepResult(as_stored(data)))",
        "None",
    ),
    Mutant(
        "a step whose next fails loses its output",
        CATCHES_FROM + 25,
        transitions._fail_leaving,
        'origin != "output" and',
        "True and",
    ),
    Mutant("a caught error has no type", CATCHES_FROM + 45, failures.complete_error, '"type": kind', '"type": ""'),
    Mutant("the catch of an item is not read", ITEMS_FROM, items.catch_item, "if not iteration.catch", "if True"),
    Mutant("an item takes a catch that is false", ITEMS_FROM, items.catch_item, "entry.when is None or", "True or"),
    Mutant(
        "a caught item counts as failed",
        ITEMS_FROM,
        iterators._end_item,
        "(error if caught is None else None)",
        "error",
    ),
    Mutant(
        "an item has one attempt more",
        ITEMS_FROM + 109,
        items.is_retried,
        "failures >= retry.max",
        "failures > retry.max",
    ),
    Mutant(
        "an iterator tolerates one item more",
        ITEMS_FROM + 109,
        iterators._is_too_much,
        "counts.failed, counts.total",
        "counts.failed - 1, counts.total",
    ),
    # batches, the store
    Mutant(
        "the latest result is the last to arrive",
        113,
        draft.Draft.step_result,
        "own[1] != self.visits(step)",
        "False",
    ),
    Mutant("a batch forgets what the store knows", 330, context._is_latest, "visit == row.visits", "True"),
    Mutant("retries survive the end", 2394, turn_rows.Columns._withdraw, "change[2] in NOT_HELD", "False"),
    Mutant("neither lock nor turn key", 8, defects=frozenset({"no_lock", "no_turn_key"})),
    Mutant("read before the lock, and no turn key", 112, defects=frozenset({"read_before_lock", "no_turn_key"})),
    Mutant("mail is deleted before the commit", 3, defects=frozenset({"ack_before_commit"})),
)

# Lock and turn key protect twice: each is enough.
HARMLESS = (frozenset({"no_lock"}), frozenset({"read_before_lock"}), frozenset({"no_turn_key"}))


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """Apply the fault until the block ends, also for modules that have imported the function."""
    function = mutant.function
    if function is None:
        yield
        return
    source = dedent(inspect.getsource(function))
    if source.count(mutant.line) != 1:
        raise ValueError(f"{mutant.name}: {mutant.line!r} must be once in {function.__name__}")
    module = inspect.getmodule(function)
    names: dict[str, Any] = dict(vars(module))
    changed = "from __future__ import annotations\n" + source.replace(mutant.line, mutant.changed)
    exec(compile(changed, function.__code__.co_filename, "exec"), names)  # noqa: S102 - our own source, one line changed
    original = function.__code__
    function.__code__ = names[function.__name__].__code__
    try:
        yield
    finally:
        function.__code__ = original


def first_failure(mutant: Mutant, *, seeds: int) -> Trial | None:
    """Return the first trial that shows the fault; None if no seed does."""
    with applied(mutant):
        for seed in range(mutant.seed, mutant.seed + seeds):
            trial = run_trial(scenario(seed), defects=mutant.defects)
            if trial.differences:
                return trial
    return None

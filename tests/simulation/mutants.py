"""Mutants: faults added to the core. The simulation must find each of them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from textwrap import dedent
from typing import Any, NamedTuple

from noetl_broker.broker import core, dispatcher, finalize
from noetl_broker.broker.arrivals import joins, steps
from noetl_broker.broker.draft import memory, templates
from noetl_broker.broker.flow import cancel, failures, tags, transitions
from noetl_broker.broker.holds import pauses
from noetl_broker.broker.state import state
from noetl_broker.broker.undo import open_visits
from noetl_broker.broker.waits import approval, signals
from noetl_broker.broker.work import children, item_ends, items, iterators, retries
from noetl_broker.broker.writing import errors, queue
from noetl_broker.store.turn import claimed_rows
from tests.simulation.random_plans import APPROVALS_FROM, NEEDS_FROM, SIGNALS_FROM, WAITS_FROM
from tests.simulation.scenarios import CATCHES_FROM, ITEMS_FROM, PAUSES_FROM, scenario
from tests.simulation.trials import Trial, run_trial


class Mutant(NamedTuple):
    """One fault: in the source of a function, what the pattern matches is changed. It must match once.

    `seed`: the first that is tried. It shows the fault, or one soon after it does.
    """

    name: str
    seed: int
    function: Callable[..., Any]
    pattern: str
    changed: str


MUTANTS = (
    Mutant("a join runs at its first arrival", 0, joins._is_ready, "return next", "return True or next"),
    Mutant(
        "end runs before other tokens have ended",
        1,
        joins.waits_for,
        r"\(visit for visit, token .*draining\)",
        "iter(())",
    ),
    Mutant("a join does not see waiting joins", 16, joins.waits_for, "if other not in group", "if False"),
    Mutant("joins are released last first", 12, joins.release_join, r"step.index\)", "-step.index)"),
    Mutant("a join merges in the order of arrival", 48, joins.merge_arrivals, "arrival: arrival.arc", "arrival: 0"),
    Mutant(
        "any does not spend running tokens",
        4,
        joins._mark_other_tokens_spent,
        r"token.spent \| \{name\}",
        "token.spent",
    ),
    Mutant(
        "any does not spend waiting tokens",
        16,
        joins._mark_other_tokens_spent,
        r"_mark_spent\(arrival, name\)",
        "arrival",
    ),
    Mutant(
        "any does not spend moving tokens",
        3,
        joins._mark_spent_if_it_reaches,
        r"_mark_spent\(arrival, join\)",
        "arrival",
    ),
    Mutant("a join needs one arrival more", NEEDS_FROM + 1, joins._count_arrival, "< step.need", "<= step.need"),
    Mutant(
        "a join with too few arrivals runs", NEEDS_FROM + 2, joins.release_join, 'if step.join == "any":', "if False:"
    ),
    Mutant(
        "a join with too few arrivals fails first", NEEDS_FROM + 1, joins.release_join, r'\(step.join == "any", ', "("
    ),
    Mutant("a spent token may make up the number", NEEDS_FROM + 3551, joins._may_arrive, "join not in spent and ", ""),
    Mutant(
        "losers are cancelled only if they are running",
        NEEDS_FROM + 2,
        joins._cancel_losers,
        "arrival.step == name or loses",
        "False and loses",
    ),
    Mutant(
        "losers that run are not cancelled",
        NEEDS_FROM + 2,
        joins._cancel_losers,
        r"and loses\(token.step",
        "and False and loses(token.step",
    ),
    Mutant(
        "losers that wait are not cancelled",
        NEEDS_FROM + 24,
        joins._cancel_losers,
        r"if loses\(step,",
        "if False and loses(step,",
    ),
    Mutant(
        "end cancels only what can reach it",
        NEEDS_FROM + 23,
        joins._cancel_losers,
        "join is draft.playbook.end or ",
        "",
    ),
    Mutant("a cancelled visit's job stays", NEEDS_FROM + 22, cancel.cancel_visit, r"draft\.add\(.*\)", "pass"),
    Mutant(
        "a wait for nothing stays open",
        WAITS_FROM + 103,
        joins._mark_other_tokens_spent,
        "if are_all",
        "if False and are_all",
    ),
    Mutant(
        "a spent wait begins for nothing", WAITS_FROM + 1, steps._enter_action, "if arrival.spent and", "if False and"
    ),
    Mutant(
        "a wait before a merging join is cancelled",
        WAITS_FROM + 56,
        steps.are_all_ways_spent,
        "if target.join ==",
        "if False and target.join ==",
    ),
    Mutant(
        "a wait with a way out is cancelled", WAITS_FROM + 332, steps.are_all_ways_spent, "if not targets:", "if False:"
    ),
    Mutant("a spent waiting token counts", 543, joins._mark_spent, r", sources=\(\)", ""),
    Mutant("a spent token enters", 3, joins.deliver, "step.name in arrival.spent", "False"),
    Mutant("exclusive reads later conditions", 32, transitions._choose, "step.exclusive and matched", "False"),
    Mutant("otherwise fires always", 2, transitions._choose, "seen_condition and not matched", "seen_condition"),
    Mutant("a branch end is forgotten", 3, transitions._leave, "elif not arrivals", "elif False"),
    Mutant("the result of a spent token counts", 4, transitions._leave_visit, r"\(\) if _is_spent\(.*\) else ", ""),
    Mutant(
        "routers forget what they passed", 12, steps._pass_router, r"arrival.passed \| \{step.name\}", "frozenset()"
    ),
    Mutant("one visit too many", 84, steps._over_limit, "draft.state.total >= limit", "draft.state.total > limit"),
    Mutant("a child's result is unwrapped twice", 270, finalize._answer, r"return wrap\(result\)", "return result"),
    Mutant("one branch end gives a mapping", 0, finalize.execution_result, r"len\(data\) == 1", "False"),
    Mutant("end forgets its inputs", 440, state.decode, r', document.get\("end_inputs", \{\}\)', ""),
    Mutant("one attempt too many", 1, retries.retry_or_fail, "failures < retry.max", "failures <= retry.max"),
    Mutant("retryable is ignored", 48, retries.retry_or_fail, "draft.event.retryable", "True"),
    Mutant("on_error: continue fails", 1, retries.retry_or_fail, 'step.on_error == "continue"', "False"),
    Mutant("a spent token's failure fails all", 4, failures.spent_joins, "not spent:", "True:"),
    Mutant(
        "failures behind a race do not count", 137, failures.spent_joins, "draft.playbook", "True or draft.playbook"
    ),
    Mutant("stop_when is ignored", 67, retries.wants_retry, "retry.stop_when is not None and", "False and"),
    Mutant("a delay too long", 2, retries.retry_delay, r"\(failures - 1\)", "failures"),
    Mutant("a failure counts twice", 314, dispatcher._row, "0 < event.attempt <= failed", "False"),
    Mutant("a failure of a lost lease counts", 1454, dispatcher._row, "elif event.stale:", "elif False:"),
    Mutant("a child is started twice", 84, open_visits._column_of_child, " > token.failed_attempt", ""),
    Mutant(
        "an item's failure of a lost lease counts",
        ITEMS_FROM + 132,
        dispatcher._row,
        r"\(event.stale and kind != CHILD_DUE\)",
        "False",
    ),
    Mutant(
        "a failed child's answer counts in the delay",
        96,
        dispatcher._by_visit,
        "token.failures if",
        "token.failed_attempt if",
    ),
    Mutant("an item counts twice", ITEMS_FROM + 109, item_ends._open_item, 'item.status != "RUNNING"', "False"),
    Mutant("one item too many at a time", 8, iterators._start_items, r"min\(iteration.conc", "min(1 + iteration.conc"),
    Mutant("an iterator of failed items completes", 83, item_ends._all_failed, "0 < counts", "0 > counts"),
    Mutant(
        "failed items are forgotten",
        ITEMS_FROM + 47,
        templates.Templates._failed_items,
        r"known\.ask\(want_failed.*\) or \(\)",
        "()",
    ),
    Mutant("the rest of a wide iterator is forgotten", 210, iterators._start_items, "room > started > 0", "False"),
    Mutant(
        "a paused execution enters steps", PAUSES_FROM + 2, core._move_tokens, "draft.state.status == RUNNING", "True"
    ),
    Mutant(
        "a paused execution starts items",
        PAUSES_FROM + 125,
        iterators._start_items,
        "draft.state.status != RUNNING",
        "False",
    ),
    Mutant(
        "a paused execution starts children again",
        PAUSES_FROM + 608,
        children.start_child_again,
        "!= RUNNING",
        "is None",
    ),
    Mutant("a resume forgets what was kept", PAUSES_FROM + 2, pauses._run_on, r"extend\(hold.kept\)", "extend(())"),
    Mutant(
        "a resume delivers the last first",
        PAUSES_FROM + 156,
        pauses._run_on,
        r"extend\(hold.kept\)",
        "extend(hold.kept[::-1])",
    ),
    Mutant("a resume forgets what is due", PAUSES_FROM + 383, pauses._run_on, "waiting.due and", "False and"),
    Mutant("a late pause counts", PAUSES_FROM + 6, pauses.row_of_pause, "number is not None and", "False and"),
    Mutant("a pause leaves no number", PAUSES_FROM + 6, pauses._counted, "if number is None", "if True"),
    Mutant(
        "a resume of the parent ends all pauses",
        PAUSES_FROM + 100,
        pauses.resume_execution,
        "cause == PARENT and",
        "False and",
    ),
    Mutant("a queued execution is resumed", PAUSES_FROM + 6, pauses.resume_execution, "if hold.admitted", "if True"),
    Mutant("a rejection approves", APPROVALS_FROM + 7, approval._result_of, r'context\["approved"\]', "True"),
    Mutant("a decision loses the form", APPROVALS_FROM + 7, approval._result_of, r"isinstance\(form, dict\)", "False"),
    Mutant("a decision leaves its wait open", APPROVALS_FROM + 7, approval.decide_approval, ', "done"', ', "open"'),
    Mutant(
        "an approval that timed out is decided",
        APPROVALS_FROM + 2,
        dispatcher._pass_moment,
        "== TIMEOUT",
        '== "no such purpose"',
    ),
    Mutant("a cancelled approval stays open", APPROVALS_FROM + 6, cancel.cancel_visit, r"draft\.add\(.*\)", "pass"),
    Mutant("a signal is taken twice", SIGNALS_FROM + 36, claimed_rows.event_of, r'if row\["is_doubled"\]', "if False"),
    Mutant("a kept signal is forgotten", SIGNALS_FROM + 8, signals._keep, r"\S+\.append\(arrived\)", "pass"),
    Mutant(
        "a kept signal is taken again", SIGNALS_FROM + 78, signals.begin_signal_wait, r"\S+\.remove\(kept\)", "pass"
    ),
    Mutant(
        "the youngest wait takes a signal",
        SIGNALS_FROM + 17,
        signals.oldest_first,
        r"entry\[:3\]\)",
        "entry[:3], reverse=True)",
    ),
    Mutant(
        "a wait that refused a signal stays signalled",
        SIGNALS_FROM + 1,
        signals.receive_signal,
        r"draft\.add\(WaitReopened.*\)",
        "pass",
    ),
    Mutant("a failed `when` fits", SIGNALS_FROM + 1, signals._holds, "return False", "return True"),
    Mutant("a signal that is too old fits", SIGNALS_FROM + 738, signals.fits, "kept.before <= awaited.since", "True"),
    Mutant("a catch that is false is taken", CATCHES_FROM, transitions._read_catch, "if not true:", "if False:"),
    Mutant(
        "on_error is read before catch",
        CATCHES_FROM + 33,
        transitions.fail_visit,
        "if step.catch:",
        "if step.catch and not continues:",
    ),
    Mutant(
        "a caught step loses its data",
        CATCHES_FROM + 4,
        transitions._take_catch,
        r"result=wrap\(data\)",
        "result=wrap(None)",
    ),
    Mutant(
        "an output does not replace the result",
        CATCHES_FROM + 1,
        transitions._leave_visit,
        r"draft\.templates\.end_visit\(.*as_stored.*\)",
        "None",
    ),
    Mutant(
        "a step whose next fails loses its output",
        CATCHES_FROM + 25,
        transitions._fail_leaving,
        'origin != "output" and',
        "True and",
    ),
    Mutant("a caught error has no type", CATCHES_FROM + 45, errors.complete_error, '"type": kind', '"type": ""'),
    Mutant("the catch of an item is not read", ITEMS_FROM + 1, items.catch_item, "if not iteration.catch", "if True"),
    Mutant("an item takes a catch that is false", ITEMS_FROM + 1, items.catch_item, "entry.when is None or", "True or"),
    Mutant("a caught item counts as failed", ITEMS_FROM + 1, item_ends._count_end, "outcome.failure", "outcome.error"),
    Mutant(
        "an item has one attempt more",
        ITEMS_FROM + 160,
        items.is_retried,
        "failures >= retry.max",
        "failures > retry.max",
    ),
    Mutant(
        "an iterator tolerates one item more",
        ITEMS_FROM + 165,
        item_ends._is_too_much,
        "counts.failed, counts.total",
        "counts.failed - 1, counts.total",
    ),
    Mutant(
        "the latest result is the last to arrive",
        11,
        templates.Templates.step_result,
        r"own\[1\] != self._state.visits\(step\)",
        "False",
    ),
    Mutant("the pool of a step is ignored", 0, queue._put_pool, "if step.pool is None else step.pool", ""),
    Mutant("the pool of a playbook is ignored", 0, queue._put_pool, "draft.playbook.pool if", "None if"),
    Mutant("a pool that is no name fails nothing", 50, queue._put_pool, "raise wrong_value.*", "return None"),
    Mutant(
        "the priority of a start wins",
        0,
        queue.priority_of,
        r"\(step.priority, .*\)",
        "(draft.state.priority, draft.playbook.priority, step.priority)",
    ),
    Mutant("the priority of a step is ignored", 0, queue.priority_of, r"step\.priority, ", ""),
    Mutant("the priority of a playbook is ignored", 0, queue.priority_of, r"draft\.playbook\.priority, ", ""),
    Mutant("the priority of a start is forgotten", 0, state.decode, r'document.get\("priority"\)', "None"),
    Mutant("the tags of a child lose", 20, tags.tags_of, "not is_inherited", "True"),
    Mutant("the tags of a start lose", 0, tags.tags_of, "not is_inherited", "False"),
    Mutant("the tags of a parent are dropped", 0, tags.tags_of, r"own \| \{.*own\}", "own"),
    Mutant("a tag that fails fails the others", 32, tags.tags_of, r"left_out.append\(f.*message.*\)", "break"),
    Mutant("a batch forgets what the store knows", 396, memory._is_latest, "visit == row.visits", "True"),
)


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """Apply the fault until the block ends, also for modules that have imported the function."""
    function = mutant.function
    changed, count = re.subn(mutant.pattern, lambda _: mutant.changed, dedent(inspect.getsource(function)))
    if count != 1:
        raise ValueError(f"{mutant.name}: {mutant.pattern!r} is {count} times in {function.__name__}")
    names: dict[str, Any] = dict(vars(inspect.getmodule(function)))
    source = "from __future__ import annotations\n" + changed
    exec(compile(source, function.__code__.co_filename, "exec"), names)  # noqa: S102 - our own source, changed
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
            trial = run_trial(scenario(seed))
            if trial.differences:
                return trial
    return None

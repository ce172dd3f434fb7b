"""Faults put into the core and the store on purpose: a simulation that finds none of them proves nothing."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from textwrap import dedent
from typing import Any, NamedTuple

from noetl_broker.broker import (
    dispatcher,
    draft,
    entering,
    failure,
    finalize,
    iterators,
    joins,
    memory,
    queue,
    retries,
    state,
    transitions,
)
from noetl_broker.store import columns
from tests.simulation.scenarios import scenario
from tests.simulation.trials import Trial, attempt


class Mutant(NamedTuple):
    """One fault: a line of a function changed, or something that the store leaves out (see `Server`).

    `seed`: one soon after which it was seen; many must be tried for a rare one.
    """

    name: str
    seed: int
    function: Callable[..., Any] | None = None
    line: str = ""
    changed: str = ""
    sloppy: frozenset[str] = frozenset()


MUTANTS = (
    # joins
    Mutant("a join runs at its first arrival", 0, joins._is_ready, "return next", "return True or next"),
    Mutant("end runs before the rest is done", 0, joins.holding, "return iter(tokens)", "return iter(())"),
    Mutant("a join does not see waiting joins", 15, joins.holding, "if other not in group", "if False"),
    Mutant("joins are released last first", 10, joins.release_join, "step.index)", "-step.index)"),
    Mutant("a join merges in the order of arrival", 45, joins.merge_arrivals, "arrival: arrival.arc", "arrival: 0"),
    Mutant("any does not spend running tokens", 0, joins._spend_others, "token.spent | {name}", "token.spent"),
    Mutant("any does not spend what waits", 0, joins._spend_others, "_spent_for(arrival, name)", "arrival"),
    Mutant("any does not spend what is on its way", 0, joins._spend, "_spent_for(arrival, join)", "arrival"),
    Mutant("what waits counts though it was spent", 520, joins._spent_for, ", sources=()", ""),
    Mutant("a spent token enters all the same", 0, joins.deliver, "step.name in arrival.spent", "False"),
    # transitions
    Mutant("exclusive reads on", 30, transitions._choose, "step.exclusive and matched", "False"),
    Mutant("otherwise fires always", 0, transitions._choose, "seen_condition and not matched", "seen_condition"),
    Mutant("a branch end is forgotten", 0, transitions.pass_on, "elif not arrivals", "elif False"),
    Mutant("what a spent token gives counts", 0, transitions.pass_on, "() if _is_spent(draft, token) else ", ""),
    Mutant("routers forget what they passed", 10, entering._pass_router, "arrival.passed | {step.name}", "frozenset()"),
    Mutant("a visit too many", 80, entering._over_limit, "draft.total >= limit", "draft.total > limit"),
    Mutant("what a child gave is unwrapped twice", 250, finalize._answer, "return wrap(result)", "return result"),
    Mutant("one branch end gives a mapping", 0, finalize.execution_result, "len(data) == 1", "False"),
    Mutant("end forgets its inputs", 440, state.decode, ', *decode_inputs(document, "end_"))', ")"),
    # failures
    Mutant("one attempt too many", 0, retries.process_failed_action, "failures < retry.max", "failures <= retry.max"),
    Mutant("retryable is ignored", 65, retries.process_failed_action, "draft.event.retryable", "True"),
    Mutant("on_error: continue fails", 0, retries.process_failed_action, 'step.on_error == "continue"', "False"),
    Mutant("a spent token's failure fails all", 0, failure.lost_races, "not spent or", "True or not spent or"),
    Mutant("behind a race failures count no more", 130, failure.lost_races, "draft.playbook", "True or draft.playbook"),
    Mutant("stop_when is ignored", 105, retries._wanted, "retry.stop_when is not None and", "False and"),
    Mutant("a pause too long", 0, queue.retry_delay, "(failures - 1)", "failures"),
    # duplicates and latecomers
    Mutant(
        "a failure counts twice", 0, dispatcher._action_refusal, "0 < event.attempt <= token.failed_attempt", "False"
    ),
    Mutant("a failure of a lost lease counts", 1420, dispatcher._action_refusal, "if event.stale", "if False"),
    Mutant("a child is started twice", 1390, dispatcher._child_refusal, "if rests and event", "if event"),
    Mutant("an item counts twice", 0, iterators.check_iterator_completions, '!= "RUNNING"', "is None"),
    # iterators
    Mutant("an item too many at a time", 5, iterators._start_items, "min(iteration.conc", "min(1 + iteration.conc"),
    Mutant("an iterator of failed items completes", 50, iterators._all_failed, "0 < counts", "0 > counts"),
    Mutant("failed items are forgotten", 140, draft.Draft._failed_items, "known.ask(want_failed(*visit)) or ()", "()"),
    Mutant("the rest of a wide iterator is forgotten", 210, iterators._start_items, "room > started > 0", "False"),
    # batches, the store
    Mutant(
        "the latest result is the last to come", 10, draft.Draft.step_result, "own[1] != self.visits(step)", "False"
    ),
    Mutant("a batch forgets what the store knows", 185, memory._is_latest, "visit == row.visits", "True"),
    Mutant("retries survive the end", 1805, columns.Columns._withdraw, "change[2] in NOT_HELD", "False"),
    Mutant("neither lock nor turn key", 5, sloppy=frozenset({"no_lock", "no_turn_key"})),
    Mutant("looked before locked, and no turn key", 60, sloppy=frozenset({"look_before_lock", "no_turn_key"})),
    Mutant("mail is gone before the commit", 0, sloppy=frozenset({"ack_before_commit"})),
)

# The lock and the turn key are two walls: each alone is enough.
HARMLESS = (frozenset({"no_lock"}), frozenset({"look_before_lock"}), frozenset({"no_turn_key"}))


@contextmanager
def put_in(mutant: Mutant) -> Iterator[None]:
    """Let the fault be there for a while, for all who have imported the function already."""
    function = mutant.function
    if function is None:
        yield
        return
    source = dedent(inspect.getsource(function))
    if source.count(mutant.line) != 1:
        raise ValueError(f"{mutant.name}: {mutant.line!r} must stand once in {function.__name__}")
    module = inspect.getmodule(function)
    names: dict[str, Any] = dict(vars(module))
    changed = "from __future__ import annotations\n" + source.replace(mutant.line, mutant.changed)
    exec(compile(changed, function.__code__.co_filename, "exec"), names)  # noqa: S102 - our own source, one line changed
    sound = function.__code__
    function.__code__ = names[function.__name__].__code__
    try:
        yield
    finally:
        function.__code__ = sound


def first_found(mutant: Mutant, *, most: int) -> Trial | None:
    """Return the first trial that shows the fault, of so many."""
    with put_in(mutant):
        for seed in range(mutant.seed, mutant.seed + most):
            trial = attempt(scenario(seed), sloppy=mutant.sloppy)
            if trial.wrong:
                return trial
    return None

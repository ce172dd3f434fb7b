"""Explanations for viewers: names, numbers, times and statuses, and no value of a payload, a result or an error.

Conditions and templates are left out too: they are text of the playbook, which viewers do not see. Unknown kinds of
reasons and unknown facts are left out: a new one needs a row here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from noetl_broker.explain.reason import Reason

if TYPE_CHECKING:
    from noetl_broker.explain.facts import Facts

HIDDEN = "shown to operators"

# Reasons whose sentences hold names, numbers, times and statuses, if `facts_without_values` took the values out.
PLAIN: Final = frozenset({
    "arrived", "approvers", "draining", "erased", "before", "recovered", "by_worker", "cancelled",
    "catch_failed", "caught",
    "child", "clock", "completed", "counts", "cut_off", "deadline", "done", "due", "entered", "forked",
    "held", "item", "items", "job", "join", "late", "lease", "lease_lost", "leased", "led_to", "live", "lost",
    "lost_mail", "mail", "more", "never_ran", "no_broker", "no_end", "no_job", "no_wait", "not_caught",
    "not_failed", "not_taken", "not_yet", "nothing", "on_failure", "one_job", "otherwise", "pace", "passed",
    "slot", "remedy", "reported", "result", "retry", "row", "running_child", "set_aside", "spent", "start_timeout",
    "started", "throttle", "timeout", "timer", "too_old", "undo", "unreachable", "unread", "unserved", "way", "went_on",
    "workers",
})  # fmt: skip
# Reasons whose sentences end in a value, after a colon.
CUT: Final = frozenset({"approval", "attempt", "failed", "paused", "queued", "undo_failed"})
# Reasons that are about values, or about text of the playbook.
LEFT_OUT: Final = frozenset({
    "failed_item", "failed_list", "input", "inputs", "other_key", "read", "template", "tried", "undefined", "workload",
})  # fmt: skip
NAMES_OF_VALUES: Final = frozenset({"expression", "item"})  # facts of a part of a condition, and of an item's value
OUTCOMES: Final = {True: "was true", False: "was false", None: "could not be evaluated"}
FACTS: Final = frozenset({
    "arc", "arrived", "at", "attempt", "available_at", "brokers", "causes", "child_execution_id", "closed",
    "count", "created_at", "due_at", "ended", "ended_at", "entry", "event_at", "event_id", "event_type", "execution_id",
    "failed", "failures", "forked_from", "from", "index", "job", "joins", "last_seen", "leased", "max_attempts",
    "need", "outcome", "parent_execution_id", "path", "schedule", "seconds_before_start",
    "seconds_left", "since", "started", "started_at", "status", "step", "steps", "to", "tokens", "total",
    "pool", "turn", "type", "unserved", "version", "visit", "visits", "waiting",
})  # fmt: skip


def facts_without_values(facts: Facts) -> Facts:
    """The facts of the tables without results, errors, reasons, keys, titles, and the ids of workers."""
    error = facts.error if isinstance(facts.error, dict) else {}
    return replace(
        facts,
        result=None,
        error={"step": error["step"]} if isinstance(error.get("step"), str) else None,
        signal=None,
        causes={turn: cause._replace(worker=None) for turn, cause in facts.causes.items()},
        jobs={
            node: job._replace(worker=None, throttle=job.throttle and job.throttle._replace(key=""))
            for node, job in facts.jobs.items()
        },
        waits={
            node: wait._replace(names=(), key=None, title="", approvers=(), to_execution=0)
            for node, wait in facts.waits.items()
        },
        slots=tuple(slot._replace(key="", label="") if slot.path else slot for slot in facts.slots),
        undo=facts.undo and {**facts.undo, "left": [{**row, "error": None} for row in facts.undo["left"]]},
        dead_letters=tuple(letter._replace(reason=f"the reason is {HIDDEN}") for letter in facts.dead_letters),
    )


def without_values(reason: Reason) -> Reason:
    """The explanation as a viewer sees it; it was made from `facts_without_values`."""
    because = tuple(without_values(one) for one in reason.because if not _is_left_out(one))
    facts = {name: value for name, value in reason.facts.items() if name in FACTS}
    return Reason(reason.kind, _sentence(reason), facts, because)


def _is_left_out(reason: Reason) -> bool:
    return reason.kind in LEFT_OUT or not NAMES_OF_VALUES.isdisjoint(reason.facts)


def _sentence(reason: Reason) -> str:
    if "condition" in reason.facts:  # of a transition: its sentence names the condition
        return reason.says.replace(f" (when {reason.facts['condition']})", "")
    if reason.kind in CUT:
        return reason.says.partition(": ")[0]
    make = SENTENCES.get(reason.kind)
    if make is not None:
        return make(reason)
    return reason.says if reason.kind in PLAIN else HIDDEN


def _execution(reason: Reason) -> str:
    return reason.says.replace(", with the result null", "")


def _kept(reason: Reason) -> str:
    return reason.says if "tokens" in reason.facts else "signals are kept for a later wait"


def _part(reason: Reason) -> str:
    item, child = reason.facts.get("index"), reason.facts.get("child_execution_id")
    parts = [f"item {item}"] if item is not None else []
    parts += [f"execution {child}: noetl-broker explain {child}"] if child is not None else []
    return f"that was {', '.join(parts)}"


def _step(reason: Reason) -> str:
    return reason.says if "execution_id" in reason.facts else f"{reason.facts['step']} cannot be explained"


def _unfit(reason: Reason) -> str:
    count = reason.facts["count"]
    return "a signal came that does not fit" if count == 1 else f"{count} signals came that do not fit"


# The sentences of reasons whose own sentences may hold values.
SENTENCES: Final[Mapping[str, Callable[[Reason], str]]] = {
    "condition": lambda reason: f"a condition {OUTCOMES[reason.facts['outcome']]}",
    "disagrees": lambda _: "this version decides a turn differently (noetl-broker replay shows how)",
    "ended": lambda reason: f"it ended with event {reason.facts['event_id']}",
    "example": lambda reason: f"item {reason.facts['index']} is an example",
    "execution": _execution,
    "failed_items": lambda _: f"items failed: their errors are {HIDDEN}",
    "gave": lambda _: "it has a result",
    "kept": _kept,
    "no_playbook": lambda _: f"it cannot continue: what is wrong with its playbook is {HIDDEN}",
    "not_read": lambda _: "its condition was not evaluated, or it is taken only if no condition is true",
    "part": _part,
    "signal": lambda reason: f"{reason.facts['step']} has been waiting for a signal since {reason.facts['since']}",
    "step": _step,
    "unfit": _unfit,
}

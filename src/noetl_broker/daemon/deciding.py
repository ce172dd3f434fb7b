"""All the mail of one execution, decided in memory: the loop between the lock and the write, with no I/O in it."""

from __future__ import annotations

import time

from noetl_broker.broker.context import Known
from noetl_broker.broker.core import take_turn_or_reject
from noetl_broker.broker.memory import remember
from noetl_broker.broker.model import Turn
from noetl_broker.store.rows import MICROSECOND, Case, Outcome, Taken


def decide(case: Case, *, until: float) -> Outcome:
    """Take the turns of an execution one after the other; raises NotLoaded, after which it can be called again.

    After `until` (the thread's own seconds) no further turn is begun: one is taken in any case, the other mail stays.
    """
    known = Known(case.rules, case.loaded)
    state, last_at, number = case.state, case.execution.last_at, case.execution.turn
    taken: list[Taken] = []
    for mail in case.mail:
        number += 1
        # Later than the cause and than all before it, whatever the clocks say: the seed reads the log by created_at.
        at = max(mail.taken_at, last_at + MICROSECOND, mail.created_at + MICROSECOND)
        turn = Turn(case.execution.execution_id, number, at)
        state, decision = take_turn_or_reject(case.playbook, state, mail.event, turn, known)
        taken.append(Taken(mail, turn, decision))
        last_at = at + max(len(decision.events) - 1, 0) * MICROSECOND
        if mail is case.mail[-1] or time.thread_time() > until:
            break
        remember(known, mail.event, turn, decision)
    return Outcome(taken, state)

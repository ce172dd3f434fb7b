"""Brings signals to the waits that they fit, and starts the playbooks that wait for them.

Whoever sends a signal, and each wait that opens, leaves a request in its own transaction. The matcher works on it in a
later transaction, so it sees both sides. It sleeps behind a gate of its own, as the main loop does behind that of the
mail: senders notify only while a broker sleeps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import structlog

from noetl_broker.daemon.background import attempt
from noetl_broker.daemon.metrics.registry import (
    SIGNAL_ERRORS,
    SIGNAL_STARTS,
    SIGNALS_DELIVERED,
    SIGNALS_SWEPT,
    SWEPT_MATCH_REQUESTS,
)
from noetl_broker.daemon.metrics.values import MetricValues
from noetl_broker.growing_pauses import Backoff
from noetl_broker.playbook.keywords import SIGNAL
from noetl_broker.store.connect.connection import ANSWER_SECONDS, Pool, borrowed, transaction
from noetl_broker.store.queries import sql
from noetl_broker.tasks import wait_for
from noetl_broker.template import Template, TemplateError, compile_condition
from noetl_broker.template.durations import moment_text
from noetl_broker.template.scope import Moment, Scope

if TYPE_CHECKING:
    from collections.abc import Mapping

    from noetl_broker.store.connect.listener import Listener

log = structlog.get_logger(__name__)

MAX_WAITS: Final = 1000  # that get a signal in one transaction
MAX_STARTS: Final = 100  # playbooks that one transaction starts
MAX_HOPS: Final = 32  # past it a signal starts nothing
MAX_SWEPT: Final = 1000
SWEEP_SECONDS: Final = 10.0  # between two deletions of old signals
LATE_SECONDS: Final = 0.25  # a request that waited longer was found by no notification
POLL_SECONDS: Final = (0.002, 0.1)
FAULT_SECONDS: Final = (0.2, 2.0)


class Matcher:
    """Matches until there are no requests, sleeps, and sweeps old signals now and then."""

    def __init__(
        self,
        pool: Pool,
        metrics: MetricValues,
        *,
        on_mail: Callable[[], None],
        on_copies: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_mail` is called when there is new mail, `on_copies` when signals are to be copied."""
        self._pool = pool
        self._metrics = metrics
        self._on_mail = on_mail
        self._on_copies = on_copies
        self._poll = Backoff(*POLL_SECONDS)  # between two attempts at waits that another transaction holds
        self._idle = Backoff(*POLL_SECONDS)  # between two calls without the gate
        self._late = 0.0  # seconds that the oldest request of the last call had waited
        self._swept_at = 0.0  # monotonic seconds
        self._sweep_from = 0  # the signal id where the next sweep goes on

    async def match_all(self, on_busy: Callable[[], Any] | None = None) -> int:
        """Match until no request is left; returns the number of signals that are on their way.

        Requests of waits that another transaction holds are tried again after a pause. `on_busy` is called if one
        transaction was not enough.
        """
        total, late = 0, 0.0
        while True:
            delivered, again, worked_on = await self._match()
            total, late = total + delivered, max(late, self._late)
            if not worked_on:
                if not await self._start():
                    break
            elif again and not delivered:
                await asyncio.sleep(self._poll.next())
            else:
                self._poll.reset()
            if worked_on >= MAX_WAITS and on_busy is not None:
                await on_busy()
        self._late = late
        return total

    async def _match(self) -> tuple[int, int, int]:
        async with borrowed(self._pool, ANSWER_SECONDS) as connection:
            [row] = await connection.fetch(sql("match_signals"), MAX_WAITS)
        self._late = row["late"]
        if row["has_copies"]:
            self._on_copies()
        if row["delivered"]:
            self._metrics.add(SIGNALS_DELIVERED, row["delivered"])
            self._on_mail()
        return row["delivered"], row["again"], row["worked_on"]

    async def _start(self) -> int:
        """Start playbooks that wait for signals, in one bounded transaction; returns how many requests it read."""
        async with borrowed(self._pool, ANSWER_SECONDS) as connection:
            if not await connection.fetchval(sql("has_starts")):
                return 0
            async with transaction(connection):
                requests = await connection.fetch(sql("lock_starts"), MAX_STARTS)
                wanted = [row for row in requests if self._starts(dict(row))]
                started = await connection.fetch(
                    sql("start_by_signals"), [row["path"] for row in wanted], [row["signal_id"] for row in wanted]
                )
                await connection.execute(sql("delete_match_requests"), [row["request_id"] for row in requests])
        for (is_new,) in started:
            self._metrics.add(SIGNAL_STARTS, 1, "started" if is_new else "existing")
        if started:
            self._on_mail()
        return len(requests)

    def _starts(self, row: Mapping[str, Any]) -> bool:
        """Whether a signal starts a playbook: it is declared still, and its condition holds."""
        if not row["is_declared"]:
            return False
        fields = {"path": row["path"], "signal": row["name"], "signal_id": row["signal_id"]}
        if row["hops"] > MAX_HOPS:
            self._metrics.add(SIGNAL_STARTS, 1, "hops")
            log.warning("a signal starts nothing: too many executions led to it", hops=row["hops"], **fields)
            return False
        try:
            fits = condition_holds(row["condition"], row)
        except TemplateError as fault:
            self._metrics.add(SIGNAL_ERRORS)
            log.warning("the condition of on_signal failed, so the signal does not fit", error=str(fault), **fields)
            fits = False
        if not fits:
            self._metrics.add(SIGNAL_STARTS, 1, "unfit")
        return fits

    async def sweep(self) -> None:
        """Delete signals that nobody can take any more, a bounded number."""
        async with borrowed(self._pool, ANSWER_SECONDS) as connection:
            [row] = await connection.fetch(sql("sweep_signals"), MAX_SWEPT, self._sweep_from)
        self._sweep_from = row["next_id"]
        self._metrics.add(SIGNALS_SWEPT, row["swept"])
        self._swept_at = time.monotonic() if row["swept"] < MAX_SWEPT and not self._sweep_from else 0.0

    async def keep_matching(self, listener: Listener, *, notify: bool, sweep_seconds: float) -> None:
        """Match and sleep, for ever. A fault is logged, and never ends the loop."""
        faults, swept = Backoff(*FAULT_SECONDS), False
        while True:
            listener.match_requested.clear()
            if not await attempt(self.match_all(listener.release_match_gate), on_fault="signals could not be matched"):
                await asyncio.sleep(faults.next())
                continue
            faults.reset()
            if swept and self._late > LATE_SECONDS:
                self._metrics.add(SWEPT_MATCH_REQUESTS)
            if time.monotonic() - self._swept_at > SWEEP_SECONDS:
                await attempt(self.sweep(), on_fault="old signals could not be swept, will try again")
            swept = await self._sleep(listener, sweep_seconds if notify else 0.0)

    async def _sleep(self, listener: Listener, seconds: float) -> bool:
        """Sleep until there may be a request; returns whether the time passed without a notification."""
        if seconds:
            await attempt(listener.take_match_gate(), on_fault="the gate of signals could not be taken")
        if not seconds or not listener.match_gate_held:
            await wait_for(listener.match_requested, self._idle.next())
            return False
        self._idle.reset()
        # From here on every sender notifies, and what was written before can be seen.
        if await self._has_requests():
            return False
        await wait_for(listener.match_requested, seconds)
        return not listener.match_requested.is_set()

    async def _has_requests(self) -> bool:
        """Whether there is a request; also if that cannot be found out."""
        try:
            async with borrowed(self._pool, ANSWER_SECONDS) as connection:
                return bool(await connection.fetchval(sql("has_match_requests")))
        except Exception:  # noqa: BLE001 - the next match meets the same fault, and logs it
            return True


def condition_holds(condition: str | None, signal: Mapping[str, Any]) -> bool:
    """Whether the condition of an `on_signal` holds for a row of a signal. Raises TemplateError."""
    if condition is None:
        return True
    sent_at: datetime = signal["sent_at"]
    word = {"name": signal["name"], "key": signal["key"], "payload": signal["payload"], "at": moment_text(sent_at)}
    scope = Scope(
        inputs={},
        steps=lambda _name: None,
        words={SIGNAL: word},
        workload=dict,
        is_step=(),
        moment=Moment(execution_id=0, turn=0, at=sent_at.astimezone(UTC)),
    )
    return _compiled(condition).holds(scope)


@lru_cache(maxsize=256)
def _compiled(condition: str) -> Template:
    return compile_condition(condition, "metadata.on_signal.when", worker_words=frozenset(), max_source_chars=None)

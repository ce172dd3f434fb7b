"""Sends signals from outside, and matches them; helps executions that wait for ever."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from random import Random
from typing import Any

from tests.simulation import signals
from tests.simulation.random_plans import SIGNALS
from tests.simulation.sql_functions import cancel_execution
from tests.simulation.tables import INFINITY, LIVE, Row, Tables

SENDERS = 3
KEYS = ("k", "k", "3", "quick")
MOST_DOUBLED = 20  # looks
MOST_HELP = 8  # signals to one execution that nobody else sends
Later = Callable[[float, Callable[[], object]], None]


class Senders:
    """Senders outside: each sends its next signal after the commit of the one before."""

    def __init__(self, tables: Tables, number: int, random: Random) -> None:
        self._tables = tables
        self._left = number
        self._random = random
        self._later: Later | None = None
        self._doubled = MOST_DOUBLED
        self._helped: Counter[int] = Counter()
        self.counts: Counter[str] = Counter()

    def begin(self, later: Later) -> None:
        """Let the senders begin; `later` is called with seconds and an action."""
        self._later = later
        for sender in range(min(self._left, SENDERS)):
            self._plan(f"sender {sender}")

    def _plan(self, sender: str) -> None:
        if self._later is not None and self._left:
            self._left -= 1
            self._later(self._random.choice((0.0, 0.0, 0.1, 1.0, 4.0)), partial(self._send, sender))

    def _send(self, sender: str) -> None:
        """Send a signal; some are committed long after they got their id, some are sent twice."""
        random, tables = self._random, self._tables
        live = [row["execution_id"] for row in tables.executions.values() if row["status"] in LIVE]
        own = random.choice(live) if live and random.random() < 0.6 else None
        more: Row = {"sender": sender, "idempotency_key": str(tables.next_id())}
        if own is not None:
            more["expires_at"] = INFINITY
        elif random.random() < 0.1:
            more["expires_at"] = tables.now + timedelta(seconds=3)
        payload: Any = random.choice(
            (None, {"n": random.randint(0, 9)}, {"n": random.randint(0, 9)}, {"n": "many", "flag": "no"},
             {"data": {"x": 3}}, {"x": 5, "items": [1, 2]}, 7)
        )  # fmt: skip
        insert = partial(
            self._insert, str(own or random.choice(KEYS)), random.choice(SIGNALS), payload, tables.next_id(), more
        )
        if self._later is not None and random.random() < 0.2:
            self._later(random.choice((0.5, 3.0)), insert)
        else:
            insert()

    def _insert(self, key: str, name: str, payload: Any, signal_id: int, more: Row) -> None:
        signals.insert_signal(self._tables, name, key, payload, signal_id=signal_id, **more)
        if self._random.random() < 0.1:
            signals.insert_signal(self._tables, name, key, payload, **more)
        self._plan(more["sender"])

    def match(self) -> int:
        """Work on some looks, in any order; some of them come again. Return how many signals are on their way."""
        looks = [*self._tables.looks]
        chosen = self._random.sample(looks, self._random.randint(1, len(looks)))
        again = self._doubled > 0 and self._random.random() < 0.1
        self._doubled -= again
        return signals.match_signals(self._tables, chosen, self._random, again=again)

    def lost(self) -> list[str]:
        """Return what is wrong with signals and waits while nothing is left to do."""
        return [] if self._tables.looks else [*signals.lost_signals(self._tables)]

    def help(self) -> bool:
        """Send a signal that fits a wait which waits for ever, or cancel its execution; False if there is none."""
        for (owner, _), wait in self._tables.waits.items():
            is_over = wait["status"] in {"done", "cancelled", "timed_out"}
            if wait["kind"] == "signal" and not is_over and self._tables.executions[owner]["status"] in LIVE:
                self._helped[owner] += 1
                if self._helped[owner] <= MOST_HELP:
                    name, number = self._random.choice(wait["names"]), self._random.randint(0, 9)
                    signals.insert_signal(self._tables, name, wait["key"], {"n": number, "flag": True})
                elif self._helped[owner] == MOST_HELP + 1:
                    cancel_execution(self._tables, owner, "nobody sends its signal")
                else:
                    return False
                return True
        return False

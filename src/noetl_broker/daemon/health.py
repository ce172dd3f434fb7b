"""The three answers about a running broker: whether it gets on, whether it takes turns, and its figures."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from noetl_broker.daemon.exposition import CONTENT_TYPE, expose
from noetl_broker.daemon.figures import Ledger, enter
from noetl_broker.daemon.observer import Observer
from noetl_broker.daemon.port import Answer, Route
from noetl_broker.daemon.report import OK, Account

SILENCE_SECONDS = 30.0  # beside what the main loop sleeps: the same as the watchdog of the systemd unit


class Census(NamedTuple):
    """The accounts of all processes by name (None: it does not run), and what those counted that have ended."""

    accounts: Mapping[str, Account | None]
    ended: Ledger


class Health:
    """Answers for all processes of one broker."""

    def __init__(
        self, ask: Callable[[], Awaitable[Census]], observers: Mapping[str, Observer], *, sweep_seconds: float
    ) -> None:
        """`ask` gives the accounts of now, `observers` are by the names of their databases.

        `sweep_seconds` is how long a main loop may sleep.
        """
        self._ask = ask
        self._observers = observers
        self._most_silent = SILENCE_SECONDS + sweep_seconds

    @property
    def routes(self) -> dict[str, Route]:
        """The paths of a port."""
        return {"/live": self.live, "/ready": self.ready, "/metrics": self.metrics}

    async def live(self) -> Answer:
        """200 while every main loop gets on; one that waits for its database gets on too."""
        census = await self._ask()
        silent = {
            f"{process}: {database}": round(report.silent_seconds, 1)
            for process, account in census.accounts.items()
            for database, report in (account.reports if account is not None else {}).items()
        }
        stuck = sorted(name for name, seconds in silent.items() if seconds > self._most_silent)
        return _answer(good=not stuck, document={"live": not stuck, "stuck": stuck, "silent_seconds": silent})

    async def ready(self) -> Answer:
        """200 when turns are taken in every database; else what is not as it should be, by name."""
        census, _ = await asyncio.gather(self._ask(), self._look())
        databases = {name: observer.trouble or OK for name, observer in self._observers.items()}
        lacking = [f"{name}: {said}" for name, said in databases.items() if said != OK]
        processes: dict[str, Any] = {}
        for process, account in census.accounts.items():
            if account is None:
                lacking.append(f"{process}: it does not run")
                continue
            processes[process] = {name: dict(report.checks) for name, report in account.reports.items()}
            lacking += [
                f"{process}: {name}: {check}: {said}"
                for name, checks in processes[process].items()
                for check, said in checks.items()
                if said != OK
            ]
        document = {"ready": not lacking, "not_ready": lacking, "databases": databases, "processes": processes}
        return _answer(good=not lacking, document=document)

    async def metrics(self) -> Answer:
        """Everything that is counted, and what the databases say now."""
        census, seen = await asyncio.gather(self._ask(), self._look())
        ledger: Ledger = {}
        enter(ledger, census.ended, ended=True)
        for account in census.accounts.values():
            if account is not None:
                enter(ledger, account.ledger)
        enter(ledger, seen)
        return Answer(HTTPStatus.OK, expose(ledger), CONTENT_TYPE)

    async def _look(self) -> Ledger:
        """All databases at once: one that does not answer keeps nobody waiting for another."""
        seen = await asyncio.gather(*(observer.look() for observer in self._observers.values()))
        return dict(zip(self._observers, seen, strict=True))


def _answer(*, good: bool, document: dict[str, Any]) -> Answer:
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return Answer(status, json.dumps(document).encode() + b"\n")

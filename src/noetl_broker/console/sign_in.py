"""Finds the caller of a request by its token, and slows down callers that guess tokens."""

from __future__ import annotations

import time
from collections import OrderedDict
from http import HTTPStatus
from typing import NamedTuple, TypeVar

from noetl_broker.console.connections import Connections
from noetl_broker.console.problem import Refusal
from noetl_broker.store.admin.api_tokens import TokenCheck, check_token

MOST_CHECKED = 1_000  # answers that are kept
MOST_FAILURES = 10  # wrong tokens of one address in FAILURE_SECONDS; then each further one gets 429
FAILURE_SECONDS = 60.0
MOST_ADDRESSES = 10_000
LONGEST_TOKEN = 200  # characters
Key = TypeVar("Key")
Value = TypeVar("Value")
CHALLENGE = {"WWW-Authenticate": "Bearer"}


class SignInFailures(NamedTuple):
    """Wrong tokens of one address since a moment of this process's clock."""

    number: int
    since: float


class SignIn:
    """Checks tokens; a check counts for `checked_seconds`, so a revoked token may be accepted for that time.

    `demanded`: a token is needed, whatever the database says. Without it, a token is needed once there was one.
    """

    def __init__(self, connections: Connections, *, demanded: bool, checked_seconds: float) -> None:
        self._connections = connections
        self._demanded = demanded
        self._checked_seconds = checked_seconds
        self._checked: OrderedDict[str | None, tuple[TokenCheck, float]] = OrderedDict()
        self._failures: OrderedDict[str, SignInFailures] = OrderedDict()

    async def check(self, token: str | None, address: str) -> TokenCheck | None:
        """The name and role of a token; None if no token is needed and none is given.

        Raises Refusal: 401 without a valid token, 429 for a wrong one of an address that sent many. Raises
        DatabaseFault. A valid token always passes: others may use the same address, as behind a proxy.
        """
        found = self._recall(token)
        if found is None:
            found = await self._ask(token)
        if found.name is not None:
            return found
        if token is None and not self._demanded and not found.any_token:
            return None
        if token is None:
            raise Refusal(
                HTTPStatus.UNAUTHORIZED,
                "a token is needed: send the header Authorization: Bearer TOKEN; noetl-broker token create makes one",
                CHALLENGE,
            )
        self._refuse_guesser(address)
        self._count_failure(address)
        raise Refusal(HTTPStatus.UNAUTHORIZED, "the token is not valid: it is unknown, expired or revoked", CHALLENGE)

    def _recall(self, token: str | None) -> TokenCheck | None:
        checked, until = self._checked.get(token, (None, 0.0))
        return checked if time.monotonic() < until else None

    async def _ask(self, token: str | None) -> TokenCheck:
        if token is not None and len(token) > LONGEST_TOKEN:
            token = ""  # no token is so long
        async with self._connections.borrow() as connection:
            found = await check_token(connection, token)
        if token is None or found.name is not None:  # who guesses fills no memory
            _keep(self._checked, token, (found, time.monotonic() + self._checked_seconds), MOST_CHECKED)
        return found

    def _refuse_guesser(self, address: str) -> None:
        failures = self._failures.get(address)
        if failures is None or failures.number < MOST_FAILURES:
            return
        left = failures.since + FAILURE_SECONDS - time.monotonic()
        if left <= 0:
            del self._failures[address]
            return
        raise Refusal(
            HTTPStatus.TOO_MANY_REQUESTS,
            f"the token is not valid, as {MOST_FAILURES} before it from this address; try again in {left:.0f} s",
            {"Retry-After": str(int(left) + 1)},
        )

    def _count_failure(self, address: str) -> None:
        now = time.monotonic()
        failures = self._failures.get(address)
        if failures is None or now - failures.since > FAILURE_SECONDS:
            failures = SignInFailures(0, now)
        _keep(self._failures, address, failures._replace(number=failures.number + 1), MOST_ADDRESSES)


def _keep(kept: OrderedDict[Key, Value], key: Key, value: Value, most: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > most:
        kept.popitem(last=False)

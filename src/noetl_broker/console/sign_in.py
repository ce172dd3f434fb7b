"""Finds the caller of a request by its token, and slows down callers that guess tokens."""

from __future__ import annotations

import time
from collections import deque
from http import HTTPStatus
from typing import Any

from noetl_broker.console.connections import Connections
from noetl_broker.console.problem import Refusal
from noetl_broker.store.admin.api_tokens import TokenCheck, check_token
from noetl_broker.store.connect.places import in_first

MOST_CHECKED = 1_000  # answers that are kept
MOST_FAILURES = 10  # wrong tokens of one address in FAILURE_SECONDS; then each further one gets 429
FAILURE_SECONDS = 60.0
MOST_ADDRESSES = 10_000
LONGEST_TOKEN = 200  # characters
CHALLENGE = {"WWW-Authenticate": "Bearer"}


class SignIn:
    """Checks tokens; a check counts for `checked_seconds`, so a revoked token may be accepted for that time.

    `demanded`: a token is needed, whatever the database says. Without it, a token is needed once there was one.
    """

    def __init__(self, connections: Connections, *, demanded: bool, checked_seconds: float) -> None:
        self._connections = connections
        self._demanded = demanded
        self._checked_seconds = checked_seconds
        self._checked: dict[str | None, tuple[TokenCheck, float]] = {}
        self._failures: dict[str, deque[float]] = {}  # the moments of the last wrong tokens, by address

    async def check(self, token: str | None, address: str) -> TokenCheck | None:
        """The name and role of a token; None if no token is needed and none is given.

        Raises Refusal: 401 without a valid token, 429 for a wrong one of an address that sent many. Raises
        DatabaseFault. A valid token always passes: others may use the same address, as behind a proxy.
        """
        found, until = self._checked.get(token, (None, 0.0))
        if found is None or time.monotonic() >= until:
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
        self._count_failure(address)
        raise Refusal(HTTPStatus.UNAUTHORIZED, "the token is not valid: it is unknown, expired or revoked", CHALLENGE)

    async def _ask(self, token: str | None) -> TokenCheck:
        if token is not None and len(token) > LONGEST_TOKEN:
            token = ""  # no token is so long
        async with self._connections.borrow() as connection:
            found = await in_first(connection, lambda one: check_token(one, token))
        if token is None or found.name is not None:  # who guesses fills no memory
            _keep(self._checked, token, (found, time.monotonic() + self._checked_seconds), MOST_CHECKED)
        return found

    def _count_failure(self, address: str) -> None:
        """Count a wrong token. Raises Refusal (429) for an address that sent many."""
        failures, now = self._failures.get(address) or deque(maxlen=MOST_FAILURES), time.monotonic()
        left = failures[0] + FAILURE_SECONDS - now if len(failures) == MOST_FAILURES else 0.0
        if left > 0:
            raise Refusal(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"the token is not valid, as {MOST_FAILURES} before it from this address; try again in {left:.0f} s",
                {"Retry-After": str(int(left) + 1)},
            )
        failures.append(now)
        _keep(self._failures, address, failures, MOST_ADDRESSES)


def _keep(kept: dict[Any, Any], key: Any, value: Any, most: int) -> None:
    kept.pop(key, None)
    kept[key] = value
    if len(kept) > most:
        del kept[next(iter(kept))]

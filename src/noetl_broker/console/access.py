"""Who may do what: the caller of a request, and the dependencies by which each route names the role that it needs."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from http import HTTPStatus
from ipaddress import ip_address
from typing import Annotated, Any, Final

from fastapi import Depends, Request, Security
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer

from noetl_broker.console.problem import FieldError, Refusal
from noetl_broker.console.services import services_of
from noetl_broker.service.action import EVERY_ROLE, Caller
from noetl_broker.service.models.base import Role
from noetl_broker.service.models.values import shows_payloads

COOKIE = "noetl_session"
FORWARDED = ("forwarded", "x-forwarded-for")  # what a proxy adds; it may send the name of this machine as Host
LOCAL = Caller(name="local")  # a person at the machine itself, while there is no token

_bearer = HTTPBearer(auto_error=False, scheme_name="token", description="`Authorization: Bearer TOKEN`")
_cookie = APIKeyCookie(name=COOKIE, auto_error=False, scheme_name="session", description="the cookie of the console")


async def signed_in(
    request: Request,
    _in_header: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
    _in_cookie: Annotated[str | None, Security(_cookie)],
) -> Caller:
    """The caller of a route, who has any role. Raises Refusal: 401, 403 for a foreign page, 429."""
    caller = await caller_of(request)
    shows_payloads.set(caller.sees_values)
    return caller


async def caller_of(request: Request) -> Caller:
    """The caller of a request, also before its route is known. Raises Refusal, as `signed_in` does."""
    refuse_foreign_page(request)
    bearer = await _bearer(request)
    request.state.token = bearer.credentials if bearer is not None else await _cookie(request)
    options = services_of(request).options
    caller = replace(
        await check_again(request), rules=options.playbook_rules, database=options.database, keep_keys=options.keep_keys
    )
    request.state.caller = caller  # for errors
    return caller


async def check_again(request: Request) -> Caller:
    """Who asks, by the header of a trusted proxy, else by the token now. Raises Refusal, as `signed_in` does."""
    services = services_of(request)
    trusted = services.options.trusted_header
    person = trusted.person_in(request) if trusted is not None else None
    if person is not None:
        return person
    found = await services.sign_in.check(request.state.token, address_of(request))
    if found is None:
        _refuse_foreign_host(request)
        return LOCAL
    return Caller(role=Role(str(found.role)), name=str(found.name), is_authenticated=True)


def address_of(request: Request) -> str:
    """The address that a request came from."""
    return request.client.host if request.client is not None else ""


_ROLES: Final[dict[Any, frozenset[Role]]] = {signed_in: EVERY_ROLE}  # who may, by the dependency of a route


@cache
def caller_with(roles: frozenset[Role]) -> Callable[[Caller], Awaitable[Caller]]:
    """The dependency of a route that these roles may use, and operators. It raises ForbiddenFault for others."""

    async def require(caller: Annotated[Caller, Depends(signed_in)]) -> Caller:
        caller.require(roles)
        return caller

    _ROLES[require] = roles
    return require


SignedIn = Annotated[Caller, Depends(signed_in)]
Viewer = Annotated[Caller, Depends(caller_with(frozenset({Role.VIEWER})))]


async def anybody() -> None:
    """The dependency of a route that needs no token; its answer has no data."""


Anybody = Depends(anybody)  # for `dependencies=[Anybody]` of a route


def roles_of(dependant: Dependant) -> frozenset[Role] | None:
    """The roles that may use a route, from its dependencies; None: `anybody`. Raises ValueError if it says neither."""
    calls = {each.call for each in _flat(dependant)}
    found = [_ROLES[call] for call in calls if call in _ROLES]
    if found:
        return frozenset(role for role in Role if all(role.may(roles) for roles in found))
    if anybody in calls:
        return None
    raise ValueError(f"the route {dependant.path} does not say who may use it: give it SignedIn, Viewer or Anybody")


def _flat(dependant: Dependant) -> Iterator[Dependant]:
    for each in dependant.dependencies:
        yield each
        yield from _flat(each)


async def refuse_unknown_parameters(request: Request) -> None:
    """Raise Refusal (400) for a query parameter that the route does not have: a filter with a typo filters nothing."""
    route = request.scope.get("route")
    if not isinstance(route, APIRoute):
        return
    known = {field.alias for each in (route.dependant, *_flat(route.dependant)) for field in each.query_params}
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        near = get_close_matches(unknown[0], known, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"it takes {', '.join(sorted(known)) or 'none'}"
        raise Refusal(
            HTTPStatus.BAD_REQUEST,
            f"{request.url.path} has no query parameter {unknown[0]!r:.80}; {remedy}",
            errors=[FieldError(at=f"query.{name:.80}", message="there is no such parameter") for name in unknown],
        )


def refuse_foreign_page(request: Request) -> None:
    """Raise Refusal (403) for a request that a page of another site sends.

    The browser would send it with the cookie of its user, and from inside the network of its user. A link of another
    site is allowed: that site does not learn how it was answered.
    """
    headers = request.headers
    is_link = request.method == "GET" and headers.get("sec-fetch-dest") == "document"
    if headers.get("sec-fetch-site", "none") not in {"none", "same-origin"} and not is_link:
        raise Refusal(HTTPStatus.FORBIDDEN, "a page of another address may not use this API")
    origin = headers.get("origin")
    if origin is None:
        return
    if not is_own_page(request):
        raise Refusal(HTTPStatus.FORBIDDEN, f"the page {origin!r:.80} may not use this API: it is from another address")


def is_own_page(request: Request) -> bool:
    """Whether a page of this console made the request, as its browser says."""
    scheme, _, host = request.headers.get("origin", "").lower().partition("://")
    return scheme in {"http", "https"} and host == request.headers.get("host", "").lower()


def _refuse_foreign_host(request: Request) -> None:
    """Raise Refusal (403) for a name that is not of this machine: a page may have pointed its own name here."""
    host = request.headers.get("host", "")
    name = re.sub(r":[0-9]*$", "", host).lower()
    if not _is_local(name):
        raise Refusal(
            HTTPStatus.FORBIDDEN,
            f"the host {host!r:.80} is not of this machine; say localhost, or create a token",
        )
    if any(name in request.headers for name in FORWARDED):
        raise Refusal(HTTPStatus.FORBIDDEN, "the request came through a proxy, so from anywhere; create a token")


def _is_local(name: str) -> bool:
    """Whether a host names this machine: `localhost`, or a loopback address."""
    with suppress(ValueError):
        return ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    return name == "localhost"

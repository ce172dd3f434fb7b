"""People whom a proxy has signed in: it writes their names into a header of each request."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Self

from fastapi import Request

from noetl_broker.console.problem import Refusal
from noetl_broker.errors import OperatorFault
from noetl_broker.service.action import Caller
from noetl_broker.service.models.base import Role

LONGEST_NAME: Final = 200  # characters
SAFE_METHODS: Final = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedHeader:
    """The header `name` says who asks, in requests from `proxies`. `roles`: who has which; others are viewers."""

    name: str
    proxies: tuple[IPv4Network | IPv6Network, ...]
    roles: Mapping[str, Role]

    @classmethod
    def of(
        cls,
        name: str | None,
        proxies: Collection[str],
        operators: Collection[str],
        others: Mapping[Role, Collection[str]] | None = None,
    ) -> Self | None:
        """The header of these settings; None without one. Raises OperatorFault for a part of them.

        `others`: who has another role. Of a person in two lists, the first one counts.
        """
        lists = {Role.OPERATOR: operators, **(others or {})}
        if name is None and not proxies and not any(lists.values()):
            return None
        if name is None or not proxies:
            missing = "console_trusted_header" if name is None else "console_trusted_proxies"
            raise OperatorFault(
                f"{missing} is not set: give console_trusted_header, the header with a person's name, and"
                " console_trusted_proxies, the addresses that may send it"
            )
        roles = {person: role for role, people in reversed(lists.items()) for person in people}
        return cls(name=name, proxies=tuple(map(ip_network, proxies)), roles=roles)

    def person_in(self, request: Request) -> Caller | None:
        """The person whom the header of a request names; None where it names nobody.

        Raises Refusal where others sent the header, or where it names several. A change must come from a page of ours.
        """
        key = self.name.lower().encode()
        given = [value for name, value in request.headers.raw if name == key]
        if not given:
            return None
        address = request.client.host if request.client is not None else ""
        if not self._is_trusted(address):
            raise Refusal(
                HTTPStatus.FORBIDDEN,
                f"the header {self.name} came from {address}, which is not in console_trusted_proxies",
            )
        if len(given) > 1:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"the header {self.name} came twice: the proxy must replace it")
        person = self._read(given[0])
        if not person:
            return None
        # No cookie of ours protects this session, so the page must be known. Browsers send it with each change.
        if request.method not in SAFE_METHODS and "origin" not in request.headers:
            raise Refusal(HTTPStatus.FORBIDDEN, "a change needs the header Origin, or a token without the proxy")
        role = self.roles.get(person, Role.VIEWER)
        return Caller(role=role, name=person, is_authenticated=True, signed_in_by="login")

    def _is_trusted(self, address: str) -> bool:
        try:
            found = ip_address(address)
        except ValueError:
            return False
        if isinstance(found, IPv6Address):
            found = found.ipv4_mapped or found  # of a socket that takes both
        return any(found in network for network in self.proxies)

    def _read(self, value: bytes) -> str:
        person = value.decode(errors="backslashreplace").strip()
        if "," in person or not person.isprintable() or len(person) > LONGEST_NAME:  # some proxies join two headers
            raise Refusal(HTTPStatus.BAD_REQUEST, f"the header {self.name} is no name of one person: {value!r:.80}")
        return person

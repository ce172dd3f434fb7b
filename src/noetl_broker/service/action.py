"""An action of the service: a function that all faces call, with the role that it needs and the model of its answer.

The function takes a connection, the caller and a request, and gives a document that its model describes. A face that
gets a function without a role refuses it at import.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, get_type_hints

from pydantic import BaseModel

from noetl_broker.errors import ForbiddenFault
from noetl_broker.playbook import PlaybookRules
from noetl_broker.service.models.base import Given, Role
from noetl_broker.service.where import Where, by_id, everywhere
from noetl_broker.store.connect.bucket_connections import BucketConnections, Place
from noetl_broker.store.connect.buckets import refuse_bucket

if TYPE_CHECKING:
    from noetl_broker.store.connect.connection import Connection
    from noetl_broker.store.connect.dsn import Database

__all__ = ["EVERY_ROLE", "Asked", "Caller", "Cost", "Role", "ServiceAction", "action"]

EVERY_ROLE: Final = frozenset(Role)
Asked = TypeVar("Asked", bound=Given)
Answer = TypeVar("Answer")


class Cost(Enum):
    """How much an action computes: it asks the database, re-runs one execution, or re-runs many or all turns."""

    ASKS = "asks"
    SHORT = "short"
    LONG = "long"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks: a token or a person of this `name`, or (`is_authenticated` false) somebody at the machine, or a login.

    The grants of the login decide what it may. `signed_in_by`: the proxy that names a person gives a login.

    `rules` are the limits under which playbooks are read, `database` is the one that is asked. `keep_keys` is the
    setting of that name.
    """

    role: Role = Role.OPERATOR
    name: str = ""
    is_authenticated: bool = False
    signed_in_by: Literal["login", "token"] = "token"
    rules: PlaybookRules = field(default_factory=PlaybookRules)
    database: Database | None = None
    keep_keys: str = "365d"

    @property
    def sees_values(self) -> bool:
        """Whether the caller sees payloads, results and messages of errors.

        Producers and approvers see those of the few actions that they may do.
        """
        return self.role not in {Role.VIEWER, Role.AUTHOR}

    @property
    def by(self) -> str | None:
        """Who acts, as rows and events have it: `login:ann`, `token:ann`; None: the login of the session."""
        return f"{self.signed_in_by}:{self.name}" if self.is_authenticated else None

    @property
    def role_of_name(self) -> str | None:
        """The role that goes with `by`; None: the login's roles count."""
        return self.role if self.is_authenticated else None

    @property
    def asks_as(self) -> str | None:
        """Whose executions the caller may see; None: those of the login, or all if that is an operator."""
        return None if self.role is Role.OPERATOR else self.by

    def require(self, roles: Collection[Role]) -> None:
        """Raise ForbiddenFault if the caller has none of these roles."""
        if not self.role.may(roles):
            needed = [role for role in Role if role.may(roles)]
            names = " or ".join(f"{'an' if role[0] in 'aeiou' else 'a'} {role}" for role in needed)
            raise ForbiddenFault(f"{self.name or 'the caller'} has the role {self.role}; this needs {names}")

    def refuse_hidden(self, hidden: str, *given: object) -> None:
        """Raise ForbiddenFault where a viewer filters by what viewers do not see; `hidden` names it: `approvers`."""
        if not self.sees_values and any(value is not None for value in given):
            raise ForbiddenFault(f"the role {self.role} sees no {hidden}, so cannot filter by them")


@dataclass(frozen=True, slots=True)
class ServiceAction(Generic[Asked, Answer]):
    """A function of the service. `roles` None: it needs no token. `answer` is the model of what it gives.

    `where` says in which buckets of an installation it runs.
    """

    function: Callable[[Connection, Caller, Asked], Awaitable[Answer]]
    roles: frozenset[Role] | None
    answer: Any
    cost: Cost
    where: Where

    @property
    def request(self) -> type[Asked]:
        """The model of the request."""
        _connection, _caller, given, *_ = get_type_hints(self.function).values()
        return given  # type: ignore[no-any-return] # the hint of the third parameter

    async def __call__(self, connection: Place, caller: Caller, given: Asked) -> Answer:
        """Do it for a caller who may. Raises ForbiddenFault."""
        if self.roles is not None:
            caller.require(self.roles)
        if not isinstance(connection, BucketConnections):
            if self.where is everywhere:
                await refuse_bucket(connection)
            return await self.function(connection, caller, given)

        async def do(of_bucket: Connection, asked: Asked) -> Answer:
            return await self.function(of_bucket, caller, asked)

        return await self.where(connection, do, given)  # type: ignore[no-any-return] # as its places merge it


def action(
    roles: Role | Collection[Role] | None,
    answer: type[BaseModel] | Any,
    *,
    cost: Cost = Cost.ASKS,
    where: Where = by_id,
) -> Callable[[Callable[[Connection, Caller, Asked], Awaitable[Answer]]], ServiceAction[Asked, Answer]]:
    """Make an action of a function; `roles`: who may do it, beside operators.

    `where` it runs in an installation with buckets: without it, where the id says.
    """

    def decorate(function: Callable[[Connection, Caller, Asked], Awaitable[Answer]]) -> ServiceAction[Asked, Answer]:
        who = None if roles is None else frozenset({roles} if isinstance(roles, Role) else roles)
        return ServiceAction(function, who, answer, cost, where)

    return decorate

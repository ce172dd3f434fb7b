"""The parts of all requests: unknown fields are errors, names have bounds, lists come in pages."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from types import NoneType, UnionType
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator
from pydantic.fields import FieldInfo

from noetl_broker.playbook import tags
from noetl_broker.playbook.keys import LARGEST_VERSION, NAME_CHARS
from noetl_broker.service.models.values import ExecutionId

LONGEST_TEXT = 1_000  # characters of a reason, a filter or a key
MOST_FIELDS = 1_000  # of a body; more are not looked at one by one
MOST_ROWS = 1_000
DEFAULT_ROWS = 50

Row = TypeVar("Row")
Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
SomeText = Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT)]
SomeName = Annotated[str, Field(min_length=1, max_length=NAME_CHARS)]
Version = Annotated[int, Field(ge=1, le=LARGEST_VERSION)]
OnVersion = Annotated[
    Version | Literal["latest"] | None, Field(description="another version of the playbook, on which it goes on")
]
OrFromStart = Annotated[
    StrictBool, Field(description="with `version`: start anew where the way so far would have been another on it")
]
IdempotencyKey = Annotated[SomeText | None, Field(description="one key does it once, however often it is sent")]
Status = Literal["QUEUED", "RUNNING", "PAUSED", "COMPENSATING", "COMPLETED", "FAILED", "CANCELLED"]


Tag = Annotated[str, Field(pattern=tags.PATTERN, examples=["customer=7"], description="NAME=VALUE")]
Tags = Annotated[
    list[Tag] | None,
    Field(
        min_length=1,
        max_length=16,
        description="with this tag, NAME=VALUE; of several, with all",
    ),
]
GivenTags = Annotated[
    dict[
        Annotated[str, Field(pattern=f"^{tags.NAME}$")],
        Annotated[str, Field(max_length=256)] | StrictBool | int | float,
    ]
    | None,
    Field(max_length=16, description="what lists find it by: text, numbers, booleans"),
]
WithKey = Annotated[Text | None, Field(description="with this idempotency key; * stands for any characters")]


UNANSWERED: Any = Field([], description="buckets of the installation that did not answer, and why")


class Role(StrEnum):
    """What a caller may do.

    A viewer sees names, numbers, times and statuses. A producer starts executions, sends signals, and sees what came of
    its starts. An approver sees and decides approvals. An author is a viewer who registers playbooks. An operator sees
    everything, and may act.
    """

    VIEWER = "viewer"
    PRODUCER = "producer"
    APPROVER = "approver"
    AUTHOR = "author"
    OPERATOR = "operator"

    def may(self, roles: Collection[Role]) -> bool:
        """Whether a caller with this role may do what these roles may."""
        return self is Role.OPERATOR or self in roles or (self is Role.AUTHOR and Role.VIEWER in roles)


class Given(BaseModel):
    """A request; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_many_fields(cls, given: Any) -> Any:
        """Many unknown fields are one error: to make one of each takes seconds."""
        if isinstance(given, dict) and len(given) > MOST_FIELDS:
            raise ValueError(f"it has {len(given):,} fields; these are known: {', '.join(cls.model_fields)}")
        return given


class Paged(Given):
    """A page of a list: at most `limit` rows after the row of the cursor."""

    cursor: str | None = Field(None, max_length=1000, description="`next` of the page before")
    limit: int = Field(DEFAULT_ROWS, ge=1, le=MOST_ROWS, description="rows of the page")


class PageOfPaths(Paged):
    """A page of what playbooks have."""

    path: Text | None = Field(None, description="* stands for any characters")


class OneExecution(Given):
    """An execution."""

    execution_id: ExecutionId


class PageOfOne(OneExecution, Paged):
    """A page of what one execution has."""


class Listed(BaseModel, Generic[Row]):
    """One page of a list; `next` is the cursor of the next page, null on the last one."""

    items: list[Row]
    next: str | None = Field(description="the `cursor` of the next page; null: this is the last one")
    unanswered: list[str] = UNANSWERED


def is_given(*names: str) -> dict[str, Any]:
    """What a document says of an object that has one of these fields, and not as null."""
    return {"anyOf": [{"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in names]}


def words_of(field: FieldInfo) -> tuple[str, ...]:
    """The words of a choice; none for other fields."""
    kind = type_of(field)
    return get_args(kind) if get_origin(kind) is Literal else ()


def type_of(field: FieldInfo) -> Any:
    """The type of a field, without None where it may be left out."""
    kinds = [each for each in get_args(field.annotation) if each is not NoneType]
    is_optional = get_origin(field.annotation) in {Union, UnionType} and len(kinds) == 1
    return kinds[0] if is_optional else field.annotation

"""What is asked about signals and approvals, and what the answers have."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, StrictBool, WithJsonSchema

from noetl_broker.broker.model.limits import MAX_NODE_CHARS
from noetl_broker.playbook.keys import NAME_CHARS
from noetl_broker.service.models.base import LONGEST_TEXT, Given, IdempotencyKey, Paged, SomeName, SomeText, Text
from noetl_broker.service.models.values import GivenId, Hidden, Id, Moment, Payload

MOST_KEEP_SECONDS = 3660 * 86_400
KEEP_SECONDS = 7 * 86_400.0


def _key_text(value: Any) -> Any:
    return json.dumps(value, allow_nan=False) if isinstance(value, bool | int | float) else value


# As the `key` of a wait; docs/reference/signals.md.
Key = Annotated[
    str,
    BeforeValidator(_key_text),
    Field(max_length=LONGEST_TEXT),
    WithJsonSchema({"anyOf": [{"type": "string", "maxLength": LONGEST_TEXT}, {"type": "number"}, {"type": "boolean"}]}),
]


class ListSignals(Paged):
    """Which signals a list has."""

    name: str | None = Field(None, max_length=NAME_CHARS)
    key: Text | None = None
    execution_id: GivenId | None = Field(None, description="only those that were sent to this execution")


class ListApprovals(Paged):
    """Which approvals a list has."""

    path: Text | None = Field(None, description="* stands for any characters")
    approver: Text | None = Field(None, description="only those that name this one: login:ann, or a role")


class Signal(BaseModel):
    """A signal that is kept."""

    signal_id: Id
    name: Hidden
    key: Hidden
    payload: Payload
    sent_at: Moment
    expires_at: Moment | None = Field(description="null: it is kept until its execution ends")
    execution_id: Id | None
    hops: int


class SendRequest(Given):
    """What to send."""

    name: SomeName
    key: Key = Field(description="what it is about; a number or a boolean counts as its JSON text")
    payload: Any = None
    keep_seconds: float = Field(
        KEEP_SECONDS, ge=0.001, le=MOST_KEEP_SECONDS, description="for a wait that begins later"
    )
    idempotency_key: IdempotencyKey = None


class SentSignal(BaseModel):
    """The signal that was sent."""

    signal_id: Id


class ApprovalView(BaseModel):
    """A visit that waits for a person."""

    execution_id: Id
    node_id: str
    step: str
    path: str | None
    title: Payload
    details: Payload
    form: Payload = Field(description="JSON Schema by field")
    approvers: Hidden = Field(description="who alone may decide: login:NAME, token:NAME, roles; empty: each approver")
    since: Moment
    times_out_at: Moment | None


class OneApproval(Given):
    """A visit that waits for a person."""

    execution_id: GivenId
    step: SomeText = Field(description="a step, or approve#2 for its second visit")


class DecisionRequest(OneApproval):
    """What a person decides."""

    approved: StrictBool
    decided_by: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_NODE_CHARS,
        description="a name beside `by` in the event, such as the person who uses a program that has a token",
    )
    form: dict[str, Any] = Field(default_factory=dict, description="the fields of the form, and `comment`")


class DecisionView(BaseModel):
    """The visit that was decided."""

    execution_id: Id
    node_id: str
    by: str = Field(description="who decided: login:NAME or token:NAME")
    decided: Literal[True] = True

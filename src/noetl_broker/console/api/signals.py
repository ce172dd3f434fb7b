"""Signals: those that are kept, and sending one."""

from __future__ import annotations

from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from noetl_broker.client import json_text
from noetl_broker.console.access import Operator, Viewer, refuse_hidden_filter
from noetl_broker.console.api.execution_actions import LONGEST_TEXT, Given, IdempotencyKey
from noetl_broker.console.paging import Listed, Paging
from noetl_broker.console.services import Pooled
from noetl_broker.console.values import GivenId, Hidden, Id, Moment, Payload
from noetl_broker.playbook.plain_values import NAME_CHARS
from noetl_broker.store.admin import list_pages, signals

router = APIRouter(prefix="/signals", tags=["signals"])

MOST_KEEP_SECONDS = 3660 * 86_400


def _key_text(value: Any) -> Any:
    return json_text(value) if isinstance(value, bool | int | float) else value


# As the `key` of a wait; docs/signals.md.
Key = Annotated[
    str,
    BeforeValidator(_key_text),
    Field(max_length=LONGEST_TEXT),
    WithJsonSchema({"anyOf": [{"type": "string", "maxLength": LONGEST_TEXT}, {"type": "number"}, {"type": "boolean"}]}),
]


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


class Send(Given):
    """What to send."""

    name: str = Field(min_length=1, max_length=NAME_CHARS)
    key: Key = Field(description="what it is about; a number or a boolean counts as its JSON text")
    payload: Any = None
    keep_seconds: float = Field(
        signals.KEEP.total_seconds(), ge=0.001, le=MOST_KEEP_SECONDS, description="for a wait that begins later"
    )


class SentSignal(BaseModel):
    """The signal that was sent."""

    signal_id: Id


@router.get("", response_model=Listed[Signal])
async def list_signals(
    caller: Viewer,
    connections: Pooled,
    page: Paging,
    *,
    name: Annotated[str | None, Query(max_length=NAME_CHARS)] = None,
    key: Annotated[str | None, Query(max_length=LONGEST_TEXT)] = None,
    execution_id: Annotated[GivenId | None, Query(description="only those that were sent to this execution")] = None,
) -> Any:
    """List the signals that are kept, newest first. Only an operator sees names and keys and may filter by them."""
    refuse_hidden_filter(caller, "names and keys of signals", name, key)
    async with connections.borrow() as connection:
        found = await list_pages.page_signals(
            connection, name=name, key=key, execution_id=execution_id, **page.arguments(int)
        )
    return page.document(found)


@router.post("", status_code=HTTPStatus.CREATED, response_model=SentSignal)
async def send_signal(
    _caller: Operator, connections: Pooled, given: Send, idempotency_key: IdempotencyKey = None
) -> Any:
    """Send a signal to whoever waits for its name and key, now or until `keep_seconds` are over."""
    text = None if given.payload is None else json_text(given.payload)
    async with connections.borrow() as connection:
        sent = await signals.send_signal(
            connection,
            given.name,
            given.key,
            text,
            idempotency_key=idempotency_key,
            keep=timedelta(seconds=given.keep_seconds),
        )
    return {"signal_id": sent}

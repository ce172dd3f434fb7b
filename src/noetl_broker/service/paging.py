"""Pages of lists by key: a cursor has the key of the last row, so any page costs the same."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from noetl_broker.errors import NotFoundFault
from noetl_broker.service.models.base import Paged
from noetl_broker.store.admin.list_pages import Page

Key = int | str


def after(given: Paged, *kinds: type[Key]) -> tuple[Any, ...] | None:
    """The key of the last row before a page, with a part of each kind; None on the first page.

    Raises NotFoundFault if the cursor is none of this list.
    """
    if given.cursor is None:
        return None
    try:
        found = json.loads(base64.b64decode(given.cursor.encode(), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        found = None
    if not isinstance(found, list) or [*map(type, found)] != [*kinds]:
        raise NotFoundFault(f"the cursor {given.cursor!r:.80} is not one of this list; take `next` of the page before")
    return tuple(found)


def place(given: Paged, *kinds: type[Key]) -> dict[str, Any]:
    """The arguments of a list of `store.admin.list_pages`, whose key has a part of each kind."""
    return {"limit": given.limit, "after": after(given, *kinds)}


def listed(found: Page) -> dict[str, Any]:
    """The answer with a page of the store."""
    return {"items": found.items, "next": None if found.next is None else cursor(found.next)}


def cut(
    given: Paged, rows: Sequence[Mapping[str, Any]], key: Callable[[Mapping[str, Any]], Sequence[Key]]
) -> dict[str, Any]:
    """The answer with rows, of which one more than `limit` was read; `key` gives the parts of a row's key."""
    shown = rows[: given.limit]
    return {"items": shown, "next": cursor(key(shown[-1])) if len(rows) > given.limit else None}


def key_of(cursor: str) -> list[Any]:
    """The key of a cursor that a list of ours made."""
    return list(json.loads(base64.urlsafe_b64decode(cursor)))


def cursor(key: Sequence[Key]) -> str:
    """The cursor of a page that begins after this key."""
    return base64.urlsafe_b64encode(json.dumps([*key], separators=(",", ":")).encode()).decode()

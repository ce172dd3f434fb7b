"""Pages of lists by key: a cursor has the key of the last row, so any page costs the same."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel, Field

from noetl_broker.errors import NotFoundFault
from noetl_broker.store.admin import list_pages

MOST_ROWS = 1_000
DEFAULT_ROWS = 50

Row = TypeVar("Row")
Key = int | str


class Listed(BaseModel, Generic[Row]):
    """One page of a list; `next` is the cursor of the next page, null on the last one."""

    items: list[Row]
    next: str | None = Field(description="the `cursor` of the next page; null: this is the last one")


@dataclass(frozen=True, slots=True)
class PageQuery:
    """A request for a page of a list: at most `limit` rows after the row of the cursor."""

    cursor: str | None
    limit: int

    @property
    def fetched(self) -> int:
        """How many rows to read: one more than is shown says whether there is a next page."""
        return self.limit + 1

    def after(self, *kinds: type[Key]) -> tuple[Any, ...]:
        """The key of the last row before this page, with a part of each kind; None for each on the first page.

        Raises NotFoundFault if the cursor is none of this list.
        """
        if self.cursor is None:
            return (None,) * len(kinds)
        try:
            found = json.loads(base64.b64decode(self.cursor.encode(), altchars=b"-_", validate=True))
        except (ValueError, binascii.Error, RecursionError):
            found = None
        if not isinstance(found, list) or [*map(type, found)] != [*kinds]:
            raise NotFoundFault(
                f"the cursor {self.cursor!r:.80} is not one of this list; take `next` of the page before"
            )
        return tuple(found)

    def listed(self, rows: Sequence[Mapping[str, Any]], key: Callable[[Mapping[str, Any]], Sequence[Key]]) -> Any:
        """The page of `fetched` rows; `key` gives the parts of a row's key."""
        shown = rows[: self.limit]
        following = _cursor(key(shown[-1])) if len(rows) > self.limit else None
        return {"items": shown, "next": following}

    def arguments(self, *kinds: type[Key]) -> dict[str, Any]:
        """The arguments of a list of `store.pages`, whose key has a part of each kind."""
        after = self.after(*kinds)
        return {"limit": self.limit, "after": None if self.cursor is None else after}

    def document(self, found: list_pages.Page) -> dict[str, Any]:
        """The answer with a page of `store.pages`."""
        return {"items": found.items, "next": None if found.next is None else _cursor(found.next)}


def _cursor(key: Sequence[Key]) -> str:
    return base64.urlsafe_b64encode(json.dumps([*key], separators=(",", ":")).encode()).decode()


async def _page(
    cursor: Annotated[str | None, Query(max_length=1000, description="`next` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_ROWS, description="rows of the page")] = DEFAULT_ROWS,
) -> PageQuery:
    return PageQuery(cursor, limit)


Paging = Annotated[PageQuery, Depends(_page)]

"""A part of the console: a row of the navigation."""

from __future__ import annotations

from typing import NamedTuple

from fastapi import APIRouter


class Section(NamedTuple):
    """A part of the console; without an icon it is not in the navigation."""

    title: str
    url: str
    icon: str | None
    router: APIRouter

    def is_at(self, path: str) -> bool:
        """Whether a page with this path belongs to the section."""
        return path == self.url if self.url == "/" else path == self.url or path.startswith(f"{self.url}/")

"""Diagrams as SVG or Mermaid; for a viewer, without values."""

from __future__ import annotations

from typing import Final, NamedTuple

from noetl_broker.diagram.mermaid import render_mermaid
from noetl_broker.diagram.model import Picture
from noetl_broker.diagram.svg import render_svg
from noetl_broker.diagram.without_values import without_values

SVG: Final = "image/svg+xml"
MERMAID: Final = "text/plain; charset=utf-8"


class Image(NamedTuple):
    """A diagram: its media type and its text."""

    media_type: str
    text: str


def image_of(picture: Picture, form: str, *, with_values: bool) -> Image:
    """The image of a diagram. Raises MissingLibrary where an SVG cannot be drawn."""
    shown = picture if with_values else without_values(picture)
    return Image(MERMAID, render_mermaid(shown)) if form == "mermaid" else Image(SVG, render_svg(shown))

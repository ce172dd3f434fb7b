"""Diagrams as SVG or Mermaid; for a viewer, without values."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

from noetl_broker.diagram.mermaid import render_mermaid
from noetl_broker.diagram.model import DiagramNode, Picture
from noetl_broker.diagram.svg import render_svg

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


def without_values(picture: Picture) -> Picture:
    """The diagram without values and workers: names, numbers, times and statuses are left."""
    execution = picture.execution
    if execution is not None:
        step = execution.failed_step
        execution = replace(execution, error=None if step is None else {"step": step})
    return replace(
        picture,
        nodes=tuple(map(_without_values, picture.nodes)),
        edges=tuple(replace(edge, condition=None) for edge in picture.edges),
        execution=execution,
    )


def _without_values(node: DiagramNode) -> DiagramNode:
    progress = node.progress
    return replace(
        node, description=None, progress=None if progress is None else replace(progress, message=None, worker=None)
    )

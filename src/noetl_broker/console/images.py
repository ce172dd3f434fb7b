"""Diagrams as answers: SVG or Mermaid."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

from fastapi import Query, Response

from noetl_broker.console.problem import PROBLEM_CONTENT, Refusal
from noetl_broker.diagram.layout import MissingLibrary
from noetl_broker.diagram.mermaid import render_mermaid
from noetl_broker.diagram.model import Picture
from noetl_broker.diagram.svg import render_svg

SVG: Final = "image/svg+xml"
TIMELINE: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {SVG: {}}}}
IMAGES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {SVG: {}, "text/plain": {}}},
    501: {"description": "the library to draw an SVG is not installed", "content": PROBLEM_CONTENT},
}
Form = Annotated[Literal["svg", "mermaid"], Query(alias="format")]


def drawn(picture: Picture, form: str) -> Response:
    """The answer with a diagram. A browser that opens the SVG itself runs no script and loads nothing."""
    if form == "mermaid":
        return Response(render_mermaid(picture), media_type="text/plain; charset=utf-8")
    try:
        return svg_answer(render_svg(picture))
    except MissingLibrary:
        raise Refusal(
            HTTPStatus.NOT_IMPLEMENTED,
            "the console lacks a library to draw an SVG: pip install 'noetl-broker[console]' where it runs, or ask with"
            " ?format=mermaid",
        ) from None


def svg_answer(svg: str) -> Response:
    """The answer with an SVG of ours."""
    headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}
    return Response(svg, media_type=SVG, headers=headers)

"""The templates' environment: everything is escaped and made visible; filters for times, values and addresses."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from noetl_broker.console.pages import assets
from noetl_broker.console.pages.statuses import style_of
from noetl_broker.explain.slots import rank_text
from noetl_broker.node_ids import name_of_node, visit_name
from noetl_broker.text import moment, numbers_text, short_json, span
from noetl_broker.visible import visible_json, visible_lines

FOLDER: Final = Path(__file__).parents[1] / "templates"
FOLDED_FROM: Final = 4_096  # characters of a value; the rest is behind a link
JUST_NOW: Final = 1.0  # seconds


@cache
def environment() -> Environment:
    """The environment of all templates."""
    made = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "ago": ago,
        "exact": exact,
        "moment": moment,
        "number": "{:,}".format,
        "numbers": numbers_text,
        "pretty": pretty,
        "rfc3339": rfc3339,
        "sentence": sentence,
        "span": span,
    }
    made.globals |= {"asset": assets.address, "link": link, "style_of": style_of, "timedelta": timedelta}
    made.globals |= {"visit_name": visit_name, "step_of": name_of_node, "rank_text": rank_text, "short": short_json}
    return made


def _finalize(value: Any) -> Any:
    """Make invisible characters visible in what a template prints; markup is ours."""
    return visible_lines(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def exact(value: Any) -> Markup:
    """Give a text unchanged, for a form's field that must send back what it got."""
    return escape("" if value is None else value)


def link(path: str, /, **parameters: Any) -> str:
    """Give an address with these query parameters; None and empty ones are left out, and a list gives one for each."""
    given = {name: value for name, value in parameters.items() if value not in (None, "", [])}
    return f"{path}?{urlencode(given, doseq=True, errors='surrogatepass')}" if given else path


def ago(at: datetime, now: datetime) -> str:
    """Give how long ago a moment is, or how far ahead: `12 s ago`, `3 min ago`, `in 2 h`, `just now`."""
    seconds = (now - at).total_seconds()
    if abs(seconds) < JUST_NOW:
        return "just now"
    text = rough_span(abs(seconds))
    return f"{text} ago" if seconds > 0 else f"in {text}"


def rough_span(seconds: float) -> str:
    """Give a time span by its largest unit: 12 s, 3 min, 2 h, 5 d, 8 mo, 2 y."""
    units = ((365 * 86_400, "y"), (30 * 86_400, "mo"), (86_400, "d"), (3_600, "h"), (60, "min"))
    whole = round(seconds)
    for unit, name in units:
        if whole >= unit:
            return f"{whole // unit} {name}"
    return f"{whole} s"


def rfc3339(at: datetime) -> str:
    """Give a moment for programs."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def sentence(text: str) -> str:
    """Give a message as a sentence: it begins with a capital letter and ends with a full stop."""
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?', ':')) else '.'}"


def pretty(value: Any, longest: int | None = FOLDED_FROM) -> tuple[str, int]:
    """Give a value as indented JSON, at most `longest` characters of it (None: all), and how long all of it is.

    To indent 16 MiB takes seconds, in which no other request is served: what is cut is not indented.
    """
    encoder = json.JSONEncoder(ensure_ascii=False, indent=2, default=str)
    pieces: list[str] = []
    length = 0
    for piece in encoder.iterencode(value):
        pieces.append(piece)
        length += len(piece)
        if longest is not None and length > longest:
            text = visible_json("".join(pieces)[:longest])[:longest]
            return text, max(len(json.dumps(value, ensure_ascii=False, default=str)), longest + 1)
    text = visible_json("".join(pieces))
    return text if longest is None else text[:longest], len(text)

"""The named SQL statements of `sql/*/*.sql`; a line `-- name: x` begins each.

`hot` is what a turn runs, `worker` what workers run, `daemon` what runs beside the turns, `admin` the commands. Hot
statements also call functions of the migrations, such as `noetl.take_mail` of 0007_claim.sql.
`parts.sql` has conditions that several statements share, and what `write_first_turns` adds to `write_turns`.

`{filter.path}` is the parameter for the path of a filter. The parameters of a filter come after the statement's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from noetl_broker.store.row_layout import with_positions

_FOLDER = Path(__file__).with_name("sql")
_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)
_PART = re.compile(r"\{part[.](\w+)(?: (\w+))?\}")
_OF_FILTER = re.compile(r"\{filter[.](\w+)\}")
_NUMBERED = re.compile(r"\$([0-9]+)")


@cache
def load() -> dict[str, str]:
    """All statements by name, without the final semicolon."""
    return {name: text for name, (text, _) in _load().items()}


@cache
def _load() -> dict[str, tuple[str, list[str]]]:
    """All statements by name, with the parameters of a filter that each has, in their order."""
    texts: dict[str, str] = {}
    parts: dict[str, str] = {}
    for name, text in _named(_FOLDER / "parts.sql"):
        parts[name] = _with_parts(text, parts)  # a part may have those above it
    for file in sorted(_FOLDER.glob("*/*.sql")):
        for name, text in _named(file):
            if name in texts:
                message = f"two statements are named {name}; the second is in {file.name}"
                raise ValueError(message)
            texts[name] = text.strip().rstrip(";")
    # Most batches begin no execution, and do not pay for these rows.
    without_begin = parts | {"begin": "", "tags_at_end": ""}
    statements = {name: _finished(text, without_begin) for name, text in texts.items()}
    statements["write_first_turns"] = _finished(texts["write_turns"], parts)
    return statements


def _finished(text: str, parts: Mapping[str, str]) -> tuple[str, list[str]]:
    """The SQL text with its parts and numbered parameters, and the names of its parameters of a filter."""
    return _with_filter(with_positions(_with_parts(text, parts)))


def _named(file: Path) -> Iterator[tuple[str, str]]:
    """Each name in a file, with the text below it."""
    _, *found = _NAME.split(file.read_text(encoding="utf-8"))
    yield from zip(found[::2], found[1::2], strict=True)


def _with_parts(text: str, parts: Mapping[str, str]) -> str:
    """SQL text with each part in place of its name; raises KeyError for an unknown part."""
    return _PART.sub(lambda found: parts[found[1]].strip().replace("{id}", found[2] or ""), text)


def _with_filter(text: str) -> tuple[str, list[str]]:
    """SQL text whose parameters of a filter are numbered, and the names of these parameters in that order."""
    names = [*dict.fromkeys(_OF_FILTER.findall(text))]
    first = 1 + max((int(number) for number in _NUMBERED.findall(text)), default=0)
    return _OF_FILTER.sub(lambda found: f"${first + names.index(found[1])}", text), names


def filter_parameters(name: str) -> list[str]:
    """The parameters of a filter that this statement has after its own, in their order."""
    return _load()[name][1]


def sql(name: str) -> str:
    """The statement of this name; the connection renders it for its schema."""
    return load()[name]

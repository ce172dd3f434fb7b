"""The named SQL statements of `sql/*/*.sql`; a line `-- name: x` begins each.

`hot` is what a turn runs, `worker` what workers run, `daemon` what runs beside the turns, `admin` the commands. Hot
statements also call functions of the migrations, such as `noetl.take_mail` of 0007_claim.sql.
`parts.sql` has conditions that several statements share, and what `write_first_turns` adds to `write_turns`.
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


@cache
def load() -> dict[str, str]:
    """All statements by name, without the final semicolon."""
    statements: dict[str, str] = {}
    parts: dict[str, str] = {}
    for name, text in _named(_FOLDER / "parts.sql"):
        parts[name] = _with_parts(text, parts)  # a part may have those above it
    for file in sorted(_FOLDER.glob("*/*.sql")):
        for name, text in _named(file):
            if name in statements:
                message = f"two statements are named {name}; the second is in {file.name}"
                raise ValueError(message)
            statements[name] = with_positions(_with_parts(text.strip().rstrip(";"), parts))
    # Most batches begin no execution, and do not pay for these rows.
    turns = statements["write_turns"]
    statements["write_first_turns"] = turns.replace("-- the rows of a begin", parts["begin"].strip())
    return statements


def _named(file: Path) -> Iterator[tuple[str, str]]:
    """Each name in a file, with the text below it."""
    _, *found = _NAME.split(file.read_text(encoding="utf-8"))
    yield from zip(found[::2], found[1::2], strict=True)


def _with_parts(text: str, parts: Mapping[str, str]) -> str:
    """SQL text with each part in place of its name; raises KeyError for an unknown part."""
    return _PART.sub(lambda found: parts[found[1]].strip().replace("{id}", found[2] or ""), text)


def sql(name: str) -> str:
    """The statement of this name; the connection renders it for its schema."""
    return load()[name]

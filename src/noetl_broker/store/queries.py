"""The named SQL statements of `sql/*/*.sql`; a line `-- name: x` begins each.

`hot` is what a turn runs, `worker` what workers run, `daemon` what runs beside the turns, `admin` the commands.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from noetl_broker.store.row_layout import with_positions

_FOLDER = Path(__file__).with_name("sql")
_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


@cache
def load() -> dict[str, str]:
    """All statements by name, without the final semicolon."""
    statements: dict[str, str] = {}
    for file in sorted(_FOLDER.glob("*/*.sql")):
        _, *parts = _NAME.split(file.read_text(encoding="utf-8"))
        for name, text in zip(parts[::2], parts[1::2], strict=True):
            if name in statements:
                message = f"two statements are named {name}; the second is in {file.name}"
                raise ValueError(message)
            statements[name] = with_positions(text.strip().rstrip(";"))
    return statements


def sql(name: str) -> str:
    """The statement of this name; the connection renders it for its schema."""
    return load()[name]

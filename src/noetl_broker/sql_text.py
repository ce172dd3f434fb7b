"""Splits SQL text into statements, and finds named parameters.

It reads strings, quoted names, dollar quotes, comments, brackets and `begin atomic … end`: they decide where a
statement ends. The server reads the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_TOKEN = re.compile(
    r"""
      (?P<space>\s+|--[^\n]*)
    | (?P<comment>/\*)
    | (?P<escaped>[eE]'(?:[^'\\]|\\.|'')*(?:'|$))
    | (?P<text>'(?:[^']|'')*(?:'|$)|"(?:[^"]|"")*(?:"|$))
    | (?P<parameter>\$\d+)
    | (?P<dollar>\$(?:[^\W\d]\w*)?\$)
    | (?P<word>[^\W\d][\w$]*)
    | (?P<number>\d[\w.]*)
    | (?P<cast>::)
    | (?P<named>(?<![\w\]]):[^\W\d]\w*)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")
# Statements that run only outside a transaction block, or that begin or end one.
_ALONE = re.compile(
    r"(?:begin|start\s+transaction|commit|end|rollback|abort|savepoint|release|prepare\s+transaction|call|vacuum"
    r"|alter\s+system|(?:create|drop|alter)\s+(?:database|tablespace|subscription)"
    r"|reindex\s+(?:\([^()]*\)\s+)?(?:schema|database|system)|discard|cluster"
    r"|(?:create|drop|alter|reindex)\b.*\bconcurrently)\b"
)
# A temporary replication slot, an origin of replication, a backup that has begun.
_UNTIL_DISCONNECT = ("replication_slot", "replication_origin_session", "pg_backup_start")
_ON_DATABASE = re.compile(r"(?:create|drop|alter)\s+database\b")


@dataclass(frozen=True, slots=True)
class SqlToken:
    """One piece of SQL text: its kind (a group of the pattern) and its position."""

    kind: str
    start: int
    end: int


def tokens(sql: str) -> Iterator[SqlToken]:
    """Split a text into tokens, without gaps. An open string or comment extends to the end of the text."""
    position = 0
    while position < len(sql):
        match = _TOKEN.match(sql, position)
        if match is None:  # pragma: no cover - `other` takes any character
            break
        kind, end = str(match.lastgroup), match.end()
        if kind == "comment":
            end = _comment_end(sql, end)
        elif kind == "dollar":
            close = sql.find(match.group(), end)
            end = len(sql) if close < 0 else close + len(match.group())
        yield SqlToken(kind, position, end)
        position = end


def _comment_end(sql: str, position: int) -> int:
    """The end of a block comment, which may be nested."""
    depth = 1
    for edge in _COMMENT_EDGE.finditer(sql, position):
        depth += 1 if edge.group() == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(sql)


def split_statements(sql: str) -> list[str]:
    """Split a text at the semicolons that end statements. Pieces that are only comments are left out."""
    statements: list[str] = []
    start, bodies, brackets = 0, 0, 0
    words: list[str] = []
    filled = False
    for token in tokens(sql):
        text = sql[token.start : token.end]
        if token.kind == "other" and text == ";" and bodies == 0 and brackets == 0:
            if filled:
                statements.append(sql[start : token.start].strip())
            start, words, filled = token.end, [], False
            continue
        filled = filled or token.kind not in ("space", "comment")
        if token.kind == "word":
            words.append(text.lower())
            bodies = _body_depth(bodies, words)
        elif token.kind == "other":
            brackets = max(brackets + {"(": 1, ")": -1}.get(text, 0), 0)
    if filled:
        statements.append(sql[start:].strip())
    return statements


def _body_depth(depth: int, words: list[str]) -> int:
    """The nesting of `begin atomic … end` and `case … end` after `create … function | procedure`."""
    if words[0] != "create" or not {"function", "procedure"} & set(words[:5]):
        return 0
    if words[-2:] == ["begin", "atomic"]:
        return depth + 1
    if depth and words[-1] in ("begin", "case"):
        return depth + 1
    return depth - 1 if depth and words[-1] == "end" else depth


def needs_no_transaction(statement: str) -> bool:
    """Whether a statement cannot run inside a transaction block, or begins or ends one."""
    return _ALONE.match(words_of(statement)) is not None


def needs_empty_database(statement: str) -> bool:
    """Whether a statement may wait until nobody is connected to a database."""
    return "database" in statement.lower() and _ON_DATABASE.match(words_of(statement)) is not None


def lasts_until_disconnect(statement: str) -> bool:
    """Whether a statement may leave what no reset of its session removes."""
    return any(name in statement.lower() for name in _UNTIL_DISCONNECT)


def copies_with_client(statement: str) -> bool:
    """Whether a statement copies to or from the client."""
    if "copy" not in statement.lower():
        return False
    words = words_of(statement)
    while (outer := re.sub(r"\([^()]*\)", "", words)) != words:
        words = outer
    return re.match(r"copy\b.*\b(?:to\s+stdout|from\s+stdin)\b", words) is not None


def words_of(statement: str) -> str:
    """The words and signs of a statement in lower case, without comments, texts and names in quotes."""
    return " ".join(
        statement[token.start : token.end].lower() for token in tokens(statement) if token.kind in ("word", "other")
    )


def has_numbers(statement: str) -> bool:
    """Whether a statement has parameters such as `$1`."""
    return any(token.kind == "parameter" for token in tokens(statement))


def has_names(statement: str) -> bool:
    """Whether a statement has parameters such as `:name`."""
    return any(token.kind == "named" for token in tokens(statement))


def numbered(statement: str, values: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """Replace each `:name` that is in `values` by `$1`, `$2` …; returns the statement and the values in that order."""
    order: list[str] = []
    parts: list[str] = []
    for token in tokens(statement):
        text = statement[token.start : token.end]
        name = text[1:]
        if token.kind == "named" and name in values:
            if name not in order:
                order.append(name)
            text = f"${order.index(name) + 1}"
        parts.append(text)
    return "".join(parts), [values[name] for name in order]


def with_parameter_types(statement: str, types: Sequence[str]) -> str:
    """Cast `$1` from text to the first type, and so on. The types are quoted SQL."""
    parts = []
    for token in tokens(statement):
        text = statement[token.start : token.end]
        if token.kind == "parameter":
            text = f"({text}::text::{types[int(text[1:]) - 1]})"
        parts.append(text)
    return "".join(parts)


def quoted_name(name: str) -> str:
    """Quote one identifier. Raises ValueError when it is empty or holds a NUL."""
    if not name or "\x00" in name:
        raise ValueError(f"{name!r} is not a name")
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def quoted_table(table: str) -> str:
    """Quote `table` or `schema.table`; a part may be quoted already. Raises ValueError for anything else.

    As in SQL, an unquoted part is folded to lower case.
    """
    parts = [table[token.start : token.end] for token in tokens(table.strip())]
    names = parts[::2]
    if len(parts) % 2 == 0 or any(part != "." for part in parts[1::2]) or len(names) > 2:  # noqa: PLR2004 - schema.table
        raise ValueError(f"{table!r} is not a table name; write table or schema.table")
    return ".".join(quoted_name(_name(part, table)) for part in names)


def _name(part: str, table: str) -> str:
    if part.startswith('"') and part.endswith('"') and len(part) > 1:
        return part[1:-1].replace('""', '"')
    if re.fullmatch(r"[^\W\d][\w$]*", part):
        return part.lower()
    raise ValueError(f"{table!r} is not a table name; write table or schema.table")

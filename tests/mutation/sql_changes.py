"""The changes of SQL texts that mutants are drawn from: a few regular expressions, no grammar."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from tests.mutation.python_changes import Change

NAME = re.compile(r"^-- name: (?P<name>\w+)", re.MULTILINE)
HEADER = re.compile(
    r"^create or replace (?:function|view|procedure) (?P<name>[\w.]+)"
    r"|^(?:create|alter|comment|grant|revoke|do|drop|insert|update|select)\b[^(\n]{0,60}",
    re.MULTILINE,
)
MASKED = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", re.DOTALL)
COMPARISON = re.compile(
    r"\b(?:where|and|or|on|when|if|elsif|having|not)\b[^,;=<>\n]*?\s(?P<operator>[<>]=?|<>|=)(?=\s)"
)
TURNED = {"=": "<>", "<>": "=", "<": "<=", "<=": "<", ">": ">=", ">=": ">"}
# What ends a condition outside of parentheses.
CONDITION_ENDS = re.compile(
    r"\b(and|or|then|loop|group|order|limit|returning|for|union|on|where|set|left|join|cross|from|select|window|except|as)\b"
    r"|[;,()]|\bcase\b|\bend\b"
)
SIMPLE = (
    (
        "lock left out",
        re.compile(r"\bfor (?:no key )?(?:update|share|key share)(?: of \w+)?(?: skip locked| nowait)?"),
        "",
    ),
    ("lock left out", re.compile(r" skip locked\b"), ""),
    ("order turned", re.compile(r" desc\b"), ""),
    ("order turned", re.compile(r"\border by [\w.]+(?=\)|$|\n)"), r"\g<0> desc"),
    ("null turned", re.compile(r"\bis null\b"), "is not null"),
    ("null turned", re.compile(r"\bis not null\b"), "is null"),
    ("distinct turned", re.compile(r"\bis distinct from\b"), "is not distinct from"),
    ("distinct turned", re.compile(r"\bis not distinct from\b"), "is distinct from"),
    ("greatest/least", re.compile(r"\bgreatest(?=\()"), "least"),
    ("greatest/least", re.compile(r"\bleast(?=\()"), "greatest"),
    ("exists turned", re.compile(r"(?<!if )\bnot exists\b"), "exists"),
    ("exists turned", re.compile(r"(?<!not )(?<!if )\bexists(?= ?\()"), "not exists"),
)
NUMBER = re.compile(r"(?<=[\s(\[+-])\d+\b(?![.'])")
AND = re.compile(r"\band\b(?<!between \$\d and)(?<!between \d and)")
LOCK = re.compile(r"\bpg_(?:try_)?advisory_(?:xact_)?lock(?:_shared)?\(")
COALESCE = re.compile(r"\bcoalesce\(")
STATEMENT = re.compile(r"^ +(?:perform|update|insert into|delete from)\b[^;]{0,600};", re.MULTILINE)


def changes(text: str) -> Iterator[Change]:
    """Yield the possible changes of a file of SQL."""
    masked = MASKED.sub(lambda part: re.sub(r"[^\n]", "~", part[0]), text)
    for name, start, end in _parts(text):
        if name.startswith(("comment", "grant", "revoke", "drop")):
            continue
        found = sorted(_of(masked[start:end]), key=lambda change: (change[1], change[2], change[0]))
        for kind, first, last, after in found:
            # The part of a call that stays is in the mask; take it from the text.
            shown = text[start + after[0] : start + after[1]] if isinstance(after, tuple) else after
            yield Change(name, kind, start + first, start + last, shown)


def functions(text: str) -> Iterator[tuple[str, str]]:
    """Yield name and text of each named statement, function and view of a file."""
    return ((name, text[start:end]) for name, start, end in _parts(text) if " " not in name)


def _parts(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield the name, the start and the end of each statement."""
    headers = [*(NAME if NAME.search(text) else HEADER).finditer(text)]
    ends = [*(header.start() for header in headers[1:]), len(text)]
    for header, end in zip(headers, ends, strict=False):
        yield header["name"] or " ".join(header[0].split()), header.start(), end


def replaced_functions(texts: Mapping[str, str]) -> set[tuple[str, str]]:
    """Return the file and the name of each function that a later file creates again."""
    last: dict[str, str] = {}
    dead: set[tuple[str, str]] = set()
    for file, text in texts.items():
        for name in {name for name, _ in functions(text)}:
            if name in last:
                dead.add((last[name], name))
            last[name] = file
    return dead


def _of(text: str) -> Iterator[tuple[str, int, int, str | tuple[int, int]]]:
    """Yield kind, start, end and new text, or the span of it, of each change in a masked text."""
    for kind, pattern, after in SIMPLE:
        for found in pattern.finditer(text):
            yield kind, found.start(), found.end(), found.expand(after)
    for found in COMPARISON.finditer(text):
        yield "comparison", *found.span("operator"), TURNED[found["operator"]]
    for found in NUMBER.finditer(text):
        yield "constant", found.start(), found.end(), str(int(found[0]) + 1)
    for found in AND.finditer(text):
        if end := _condition_end(text, found.end()):
            yield "condition dropped", found.start(), end, ""
    for found in LOCK.finditer(text):
        yield "lock left out", found.start(), _arguments(text, found.end())[1], "true"
    for found in COALESCE.finditer(text):
        first, end = _arguments(text, found.end())
        yield "coalesce", found.start(), end, (found.end(), first)
    for found in STATEMENT.finditer(text if "language plpgsql" in text else ""):
        yield "statement dropped", found.start(), found.end(), "  null;"


def _condition_end(text: str, start: int) -> int | None:
    """Return where the condition that starts here ends."""
    depth = 0
    for found in CONDITION_ENDS.finditer(text, start):
        if depth == 0 and found[0] not in {"(", "case"}:
            return start + len(text[start : found.start()].rstrip())
        depth += {"(": 1, "case": 1, ")": -1, "end": -1}.get(found[0], 0)
    return None


def _arguments(text: str, start: int) -> tuple[int, int]:
    """Return where the first argument of a call ends, and where the call ends."""
    depth, first = 1, 0
    for place in range(start, len(text)):
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(text[place], 0)
        if not first and (depth == 0 or (depth == 1 and text[place] == ",")):
            first = place
        if depth == 0:
            return first, place + 1
    return start, start

"""Finds the sentences of the sources: docstrings, comments, and texts that the program prints."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# A sentence also ends at a colon and at a semicolon; an item of a list is a sentence of its own.
PARAGRAPH_END = re.compile(r"\n\s*\n|\n(?=\s*(?:-|\d+\.) )")
SENTENCE_END = re.compile(r"(?:(?<=[.!?;:])|(?<=[.!?]\)))\s+")
# Not sentences: code in backticks is one word, a table has rows, and code without backticks is indented.
QUOTED = re.compile(r"`[^`]*`")
ROW_OR_CODE = re.compile(r"^(?:\||    ).*$", re.MULTILINE)
SQL_STATEMENT_NAME = re.compile(r"^-- name: .*$", re.MULTILINE)
SQL_COMMENT = re.compile(r"(?:^|(?<=\s))--[^\n]*(?:\n[ \t]*--[^\n]*)*", re.MULTILINE)
SQL_DESCRIPTION = re.compile(r"\bcomment on [^;']*? is\s+((?:'(?:[^']|'')*'\s*)+);")
SQL_TEXT = re.compile(r"'((?:[^']|'')*)'")


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a text, each on one line."""
    prose = ROW_OR_CODE.sub("", QUOTED.sub("X", text))
    for paragraph in PARAGRAPH_END.split(prose):
        for sentence in SENTENCE_END.split(paragraph):
            if words := sentence.split():
                yield " ".join(words)


def python_prose(source: str) -> Iterator[str]:
    """Yield docstrings and comments. Comments on lines below each other are one text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and (docstring := ast.get_docstring(node)):
            yield docstring
    yield from _python_comments(source)


def _python_comments(source: str) -> Iterator[str]:
    lines: list[str] = []
    last_row = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, is_alone = token.start[0], token.line.lstrip().startswith("#")
            if not is_alone or row != last_row + 1:
                yield "\n".join(lines)
                lines = []
            lines.append(token.string.lstrip("# "))
            last_row = row if is_alone else 0
    yield "\n".join(lines)


def python_texts(source: str) -> Iterator[str]:
    """Yield what may be printed: strings of one line; X stands for the values of an f-string.

    A string of several lines is a table, an example of a command, or code of another language.
    """
    tree = ast.parse(source)
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            text = node.value
        else:
            continue
        if "\n" not in text:
            yield text


def sql_prose(source: str) -> Iterator[str]:
    """Yield comments, and the texts of `comment on`."""
    yield from sql_comments(source)
    yield from sql_descriptions(source)


def sql_comments(source: str) -> Iterator[str]:
    """Yield comments. Those on lines below each other are one text."""
    for found in SQL_COMMENT.findall(SQL_STATEMENT_NAME.sub("", source)):
        yield re.sub(r"^\s*-- ?", "", found, flags=re.MULTILINE)


def sql_descriptions(source: str) -> Iterator[str]:
    """Yield the texts of `comment on`."""
    for found in SQL_DESCRIPTION.findall(source):
        yield "".join(SQL_TEXT.findall(found)).replace("''", "'")


def long_sentences(files: Iterable[Path], *, max_words: int) -> list[str]:
    """Return `FILE: SENTENCE` for each sentence that is too long, of Python and SQL files."""
    return [
        f"{file.name}: {sentence}"
        for file in files
        for text in _texts(file)
        for sentence in sentences(text)
        if len(sentence.split()) > max_words
    ]


def _texts(file: Path) -> Iterator[str]:
    source = file.read_text(encoding="utf-8")
    if file.suffix == ".sql":
        yield from sql_prose(source)
    else:
        yield from python_prose(source)
        yield from python_texts(source)

"""The glossary is short and sorted. Pages use its words, in short sentences. Sources have short sentences, too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES as PAGES_OF_DOCS
from tests.docs.pages import read_page, table
from tests.docs.source_prose import (
    long_sentences,
    python_prose,
    python_texts,
    sentences,
    sql_comments,
    sql_descriptions,
    sql_prose,
)
from tests.test_tidy import ROOT

MAX_WORDS = 20
TERMS = {term: meaning for term, [meaning] in table(read_page("glossary"), "| term |").items()}
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("changelog.d/*.md")), *PAGES_OF_DOCS.values()]
CODE_LIST = re.compile(r"X(?:, X)+")
SOURCE = ROOT / "src" / "noetl_broker"
PACKAGES = sorted(
    str(folder.relative_to(ROOT))
    for folder in (ROOT / "migrations", ROOT / "docs", SOURCE, *SOURCE.iterdir())
    if folder.is_dir() and any(folder.rglob("*.*"))
)
OLD_WORDS = re.compile(
    r"\b(?:shelf|journey|standing|retelling|holds? against|held against|takes again|taken again"
    r"|told|tells of|brought back|rings|letters alone|strangers|latecomers|where nobody|nor is|so does)\b"
)
# Code and shown output.
NOT_OURS = re.compile(
    r"^```.*?^```$"
    r"|<!-- results -->.*<!-- end"
    r"|`[^`\n]*`",
    re.DOTALL | re.MULTILINE,
)


def _text(page: Path) -> str:
    return NOT_OURS.sub(lambda found: "" if found[0].endswith("\n") else "X", page.read_text(encoding="utf-8"))


def test_the_glossary_is_sorted_and_short() -> None:
    """Each term has one or two sentences."""
    assert [*TERMS] == sorted(TERMS)
    assert [term for term, meaning in TERMS.items() if not meaning.endswith(".") or meaning.count(". ") > 1] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_sentences_of_a_page_are_short(page: Path) -> None:
    """A colon or a semicolon ends a sentence, too. In a table, a list of code is one word. Links are not counted."""
    text = re.sub(r"\]\([^)]*\)", "]", _text(page))
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    prose = "\n".join(line for line in lines if not line.startswith("|"))
    rows = [line.strip("|") for line in lines if line.startswith("|")]
    cells = [CODE_LIST.sub("X", cell) for row in rows for cell in row.split(" | ")]
    parts = [*re.split(r"\n\n+|\n(?=(?:-|\d+\.) )", prose), *cells]
    found = [sentence for part in parts for sentence in re.split(r"(?<=[.!?;:])\s+", part)]
    assert [sentence for sentence in found if len(sentence.split()) > MAX_WORDS] == []
    assert OLD_WORDS.findall(" ".join(text.split())) == []  # the glossary has the words to use instead


@pytest.mark.parametrize("package", PACKAGES)
def test_sentences_of_the_sources_are_short(package: str) -> None:
    """At most 20 words: docstrings, comments, and texts that the program prints."""
    folder = ROOT / package
    files = folder.glob("*.*") if folder == SOURCE else folder.rglob("*.*")
    sources = sorted(file for file in files if file.suffix in {".py", ".sql"})
    assert long_sentences(sources, max_words=MAX_WORDS) == []


def test_no_comment_of_a_migration_repeats_a_description() -> None:
    """A `comment on` says what something is; a `--` comment says why. A few words may repeat."""
    texts = [file.read_text(encoding="utf-8") for file in (ROOT / "migrations").glob("*.sql")]
    said, described = (
        {sentence for text in texts for part in prose(text) for sentence in sentences(part)}
        for prose in (sql_comments, sql_descriptions)
    )
    assert [sentence for sentence in said & described if len(sentence.split()) > 3] == []


def test_sentences_of_a_docstring_leave_out_code_and_tables() -> None:
    """Code in backticks is one word."""
    text = (
        "Give `a long piece of code`.\n\n| a | row |\n|---|---|\n\n    more code\n\n- an item\n- another: with a colon"
    )
    assert [*sentences(text)] == ["Give X.", "- an item", "- another:", "with a colon"]


def test_the_prose_of_python_is_its_docstrings_and_comments() -> None:
    """Comments below each other are one text; one behind code stands alone."""
    source = '"""Doc."""\n# One\n# text.\nx = 1  # behind\n# after\ndef f():\n    """Give."""\n    return f"a {x} b"\n'
    assert [text for text in python_prose(source) if text] == ["Doc.", "Give.", "One\ntext.", "behind", "after"]
    assert "a X b" in [*python_texts(source)]


def test_the_prose_of_sql_is_its_comments_and_descriptions() -> None:
    """The name of a statement is neither."""
    source = (
        "-- name: find\n-- What is\n-- there.\nselect 1; -- one\ncomment on table noetl.a is 'A user''s '\n'row.';\n"
    )
    assert [*sql_prose(source)] == ["What is\nthere.", "one", "A user's row."]

"""The glossary is short and sorted. Pages use its words, in short sentences."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, read_page, table
from tests.test_tidy import ROOT

MAX_WORDS = 20
TERMS = {term: meaning for term, [meaning] in table(read_page("glossary"), "| term |").items()}
GENERATED = {"playbook-reference.md", "tables.md"}
PAGES = [page for page in (*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))) if page.name not in GENERATED]
OLD_WORDS = (
    "shelf",
    "journey",
    "standing",
    "retelling",
    "held against",
    "holds against",
    "taken again",
    "takes again",
    "told",
    "tells of",
    "brought back",
    "rings",
    "letters alone",
    "strangers",
    "latecomers",
    "where nobody",
    "nor is",
    "so does",
)
# Code, shown output, and rows that other tests compare with texts of the program: invariants and metrics.
NOT_OURS = re.compile(
    r"^```.*?^```$"
    r"|<!-- results -->.*<!-- end"
    r"|^\| I\d+ [^\n]*\n"
    r"|^\| `\w+` \| (?:gauge|counter|histogram) [^\n]*\n"
    r"|`[^`\n]*`",
    re.DOTALL | re.MULTILINE,
)


def _text(page: Path) -> str:
    return NOT_OURS.sub(lambda found: "" if found[0].endswith("\n") else "X", page.read_text(encoding="utf-8"))


def test_terms_are_sorted() -> None:
    """Each term is found at once."""
    assert [*TERMS] == sorted(TERMS)


@pytest.mark.parametrize("term", TERMS)
def test_a_meaning_is_one_or_two_short_sentences(term: str) -> None:
    """At most 20 words each."""
    sentences = re.split(r"(?<=\.) ", TERMS[term])
    assert len(sentences) <= 2
    assert TERMS[term].endswith(".")
    assert max(len(sentence.split()) for sentence in sentences) <= MAX_WORDS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_do_not_use_old_words(page: Path) -> None:
    """The glossary has the words to use instead."""
    words = " ".join(_text(page).split())
    assert [word for word in OLD_WORDS if re.search(rf"\b{word}\b", words)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_sentences_of_paragraphs_are_short(page: Path) -> None:
    """At most 20 words; a colon or a semicolon ends a sentence, too. Tables and links are not counted."""
    prose = "\n".join(line for line in _text(page).splitlines() if not line.startswith(("|", "#")))
    prose = re.sub(r"\]\([^)]*\)", "]", prose)
    paragraphs = re.split(r"\n\n+|\n(?=(?:-|\d+\.) )", prose)
    sentences = [sentence for text in paragraphs for sentence in re.split(r"(?<=[.!?;:])\s+", text)]
    assert [sentence for sentence in sentences if len(sentence.split()) > MAX_WORDS] == []

"""Real playbooks, where they are at hand: each is refused for a reason or runs to its end through the core.

They are no part of the project: the environment variable NOETL_BROKER_CORPUS says where they are, else they are looked
for in shared/corpus beside the checkout. With `-s` the table is printed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from io import StringIO
from pathlib import Path

import pytest

from tests.corpus.survey import VARIABLE, Survey, documents, survey, tell

Ask = Callable[[Path], Survey]

pytestmark = pytest.mark.skipif(not documents(), reason=f"there is no corpus: set {VARIABLE} to its folder")


@pytest.fixture(scope="module")
def ask() -> Ask:
    """Survey a document, once."""
    return cache(survey)


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_each_document_is_refused_or_comes_to_its_end(ask: Ask, path: Path) -> None:
    """In every world that the script could think of; no run raises, waits for ever or goes past a limit.

    Each step is visited, and each condition true once and false once, unless a template of the author's, a missing
    path, or (of a retry) every failure shows why not.
    """
    found = ask(path)
    assert (found.ends.total() > 0) is (found.verdict != "refused")
    assert found.past_limits == set()
    assert [step for step, why in found.unvisited.items() if not why] == []
    assert [condition for condition, why in found.missing.items() if not why] == []


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_each_finding_has_a_place_and_a_remedy(ask: Ask, path: Path) -> None:
    """A line and column of the file, the path in the document; errors say what to write instead."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for one in ask(path).findings:
        assert 1 <= one.line <= len(lines)
        assert 1 <= one.column <= len(lines[one.line - 1]) + 1
        assert one.path
        assert one.hint or one.severity == "warning"


def test_what_was_found_is_told(ask: Ask) -> None:
    """As a table: accepted, warned, refused by reason, and what no run has reached."""
    surveys, told = [ask(path) for path in documents()], StringIO()
    tell(surveys, told)
    assert told.getvalue().startswith(f"{len(surveys)} documents\n")
    sys.stdout.write(f"\n{told.getvalue()}")

"""Playbooks from elsewhere: each is refused with a reason, or runs to its end through the core.

They are not part of the project. The environment variable NOETL_BROKER_CORPUS names their folder; the default is
shared/corpus beside the checkout. `-s` prints the table.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from io import StringIO
from pathlib import Path

import pytest

from tests.corpus.survey import VARIABLE, Survey, documents, print_table, survey

SurveyOf = Callable[[Path], Survey]

pytestmark = pytest.mark.skipif(not documents(), reason=f"there is no corpus: set {VARIABLE} to its folder")


@pytest.fixture(scope="module")
def survey_of() -> SurveyOf:
    """Return the survey of a document; each is made once."""
    return cache(survey)


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_each_document_is_refused_or_runs_to_its_end(survey_of: SurveyOf, path: Path) -> None:
    """With each script. No run raises, waits for ever or exceeds a limit.

    Each step is visited, and each condition is true and false, unless there is a reason: a failed template, a missing
    path, or no failure that leads to it.
    """
    found = survey_of(path)
    assert (found.ends.total() > 0) is (found.verdict != "refused")
    assert found.past_limits == set()
    assert [step for step, why in found.unvisited.items() if not why] == []
    assert [condition for condition, why in found.missing.items() if not why] == []


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_each_finding_has_a_place_and_a_remedy(survey_of: SurveyOf, path: Path) -> None:
    """Line and column, the path in the document; errors have a hint."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for finding in survey_of(path).findings:
        assert 1 <= finding.line <= len(lines)
        assert 1 <= finding.column <= len(lines[finding.line - 1]) + 1
        assert finding.path
        assert finding.hint or finding.severity == "warning"


def test_the_table_has_all_documents(survey_of: SurveyOf) -> None:
    """Accepted, with warnings, refused, and what no run reached."""
    surveys, output = [survey_of(path) for path in documents()], StringIO()
    print_table(surveys, output)
    assert output.getvalue().startswith(f"{len(surveys)} documents\n")
    sys.stdout.write(f"\n{output.getvalue()}")

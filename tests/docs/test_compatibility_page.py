"""The page of compatibility names the versions that the tests run with."""

from __future__ import annotations

from tests.docs.pages import read_page, table
from tests.matrix import POSTGRES, PYTHONS


def test_the_page_has_each_python_and_postgres_of_the_matrix() -> None:
    """`make test-matrix` runs all tests on each."""
    served = [*(f"Python {version}" for version in PYTHONS), *(f"Postgres {version}" for version in POSTGRES)]
    assert [*table(read_page("compatibility"), "| version |")] == served

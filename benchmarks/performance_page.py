"""`python -m benchmarks.performance_page`: writes the table of the page Performance from the kept results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from benchmarks.report import markdown

RESULTS: Final = Path(__file__).parent / "results" / "results.json"
PAGE: Final = Path(__file__).parent.parent / "docs" / "explanation" / "performance.md"
BEGIN: Final = "<!-- results -->\n"
END: Final = "<!-- end of results -->\n"
NO_RESULTS: Final = "No full run has been kept yet.\n"


def filled(page: str) -> str:
    """Return the page with the table of the kept results."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    table = markdown(json.loads(RESULTS.read_text(encoding="utf-8"))) if RESULTS.exists() else NO_RESULTS
    return before + BEGIN + table + END + after


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

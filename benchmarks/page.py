"""The table in docs/performance.md, made from the results that were kept: `python -m benchmarks.page`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from benchmarks.report import markdown

RESULTS: Final = Path(__file__).parent / "results" / "results.json"
PAGE: Final = Path(__file__).parent.parent / "docs" / "performance.md"
BEGIN: Final = "<!-- results -->\n"
END: Final = "<!-- end of results -->\n"
NONE_YET: Final = "No full run has been kept yet.\n"


def filled(page: str) -> str:
    """The page with the table of the results that are kept now."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    table = markdown(json.loads(RESULTS.read_text(encoding="utf-8"))) if RESULTS.exists() else NONE_YET
    return before + BEGIN + table + END + after


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

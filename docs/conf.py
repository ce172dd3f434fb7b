"""The docs site: `make site`. Sphinx reads this file."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

from docs.generate.llms import write_llms  # noqa: E402 - the path comes first
from docs.generate.pages import write_pages  # noqa: E402
from noetl_broker import __version__  # noqa: E402

if TYPE_CHECKING:
    from sphinx.application import Sphinx

REPOSITORY = "https://github.com/noetl/noetl-broker"
OUTSIDE = re.compile(r"(?<=\]\()(?:\.\./)+[^)#\s]*")

project = "noetl-broker"
author = "The noetl-broker developers"
version = release = __version__
extensions = ["myst_parser"]
exclude_patterns = ["generate"]
suppress_warnings = ["misc.highlighting_failure"]  # stories and mermaid have no colours; an example may leave out text
smartquotes = False  # `--wait` stays as it is
myst_heading_anchors = 4
linkcheck_ignore = [re.escape(REPOSITORY)]  # `address_outside` looks into the checkout

html_theme = "furo"
html_title = f"noetl-broker {__version__}"
html_copy_source = True
html_sourcelink_suffix = ""  # _sources/index.md: llms.txt lists them
html_static_path = ["static"]
html_css_files = ["site.css"]
html_theme_options = {"top_of_page_buttons": ["view"]}  # the Markdown
html_show_copyright = False
html_permalinks_icon = "#"


def address_outside(_app: Sphinx, name: str, content: list[str]) -> None:
    """Let links that leave docs/ lead to the repository."""

    def address(found: re.Match[str]) -> str:
        target = (DOCS / name).parent.joinpath(found[0]).resolve()
        if target.is_relative_to(DOCS) or not target.exists():
            return found[0]
        return f"{REPOSITORY}/{'tree' if target.is_dir() else 'blob'}/main/{target.relative_to(ROOT)}"

    content[0] = OUTSIDE.sub(address, content[0])


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Write what only a complete site has."""
    if exception is None and app.builder.format == "html":
        write_llms(app.env, Path(app.outdir))


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the hooks."""
    app.connect("builder-inited", lambda _app: write_pages())
    app.connect("source-read", address_outside)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Writes `llms.txt`, a list of the pages for language models, and `llms-full.txt`, their text (llmstxt.org)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import noetl_broker

if TYPE_CHECKING:
    from sphinx.environment import BuildEnvironment

PARTS = {"tutorials": "Tutorials", "how-to": "How-to", "reference": "Reference", "explanation": "Explanation"}


def write_llms(environment: BuildEnvironment, folder: Path) -> None:
    """Write both files; the pages are in the order of the site. Links lead to the Markdown that the site copies."""
    titles = {name: title.astext() for name, title in environment.titles.items()}
    names = environment.toctree_includes["index"]
    texts = {name: Path(environment.doc2path(name)).read_text(encoding="utf-8") for name in names}
    parts = [f"# {titles['index']}", f"> {' '.join(str(noetl_broker.__doc__).splitlines()[:1])}"]
    for part, heading in PARTS.items():
        links = [
            f"- [{titles[name]}](_sources/{name}.md): {_sentence(text)}".removesuffix(": ")
            for name, text in texts.items()
            if name.startswith(f"{part}/")
        ]
        parts += [f"## {heading}", "\n".join(links)]
    (folder / "llms.txt").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    readme = Path(environment.srcdir, "..", "README.md").read_text(encoding="utf-8")  # the first page shows parts of it
    full = "\n".join([readme, *(f"<!-- {name}.md -->\n\n{text}" for name, text in texts.items())])
    (folder / "llms-full.txt").write_text(full, encoding="utf-8")


def _sentence(text: str) -> str:
    """Return the first sentence below the title, without links; empty where something else begins."""
    paragraph = " ".join(text.split("\n\n", maxsplit=2)[1].split())
    if paragraph.startswith(("#", "|", "!", "```")):
        return ""
    return re.split(r"(?<=\.) ", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", paragraph), maxsplit=1)[0]

"""`make site` gives no warning; its links lead somewhere, and it loads nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from docs.generate import GENERATED
from docs.generate.versions import write_versions
from tests.docs.pages import DOCS, PAGES
from tests.test_tidy import ROOT

LOADED = {"script", "img", "link", "iframe", "source", "object"}  # what a browser loads by itself
BUILD = [sys.executable, "-m", "sphinx", "--quiet", "--nitpicky", "-W", "--keep-going", "-b", "html"]


class Page(HTMLParser):
    """The anchors of an HTML page, and what it links to and loads."""

    def __init__(self, file: Path) -> None:
        """Read the page."""
        super().__init__()
        self.anchors, self.links, self.loaded = {""}, set[str](), set[str]()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect from one element."""
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        for address in (found[name] for name in ("href", "src", "data") if name in found):
            (self.loaded if tag in LOADED and found.get("rel") != "search" else self.links).add(address)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    """Build the site as `make site` does; return its pages."""
    folder = tmp_path_factory.mktemp("site").resolve()
    built = subprocess.run(
        [*BUILD, "-d", folder / "cache", DOCS, folder / "site" / "latest"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,
    )
    assert (built.returncode, built.stdout) == (0, "")
    write_versions(folder / "site")
    return {file: Page(file) for file in (folder / "site").rglob("*.html")}


@pytest.mark.slow
def test_each_link_within_the_site_leads_to_a_file_and_a_place(pages: dict[Path, Page]) -> None:
    """Also what a page loads."""
    broken = []
    for file, page in pages.items():
        for address in page.links | page.loaded:
            url = urlsplit(address)
            target = (file.parent / unquote(url.path)).resolve() if url.path else file
            is_dead = not target.is_file() or (target in pages and unquote(url.fragment) not in pages[target].anchors)
            if not url.scheme and is_dead:
                broken.append(f"{file.name}: {address}")
    assert broken == []


@pytest.mark.slow
def test_no_page_loads_anything_from_elsewhere(pages: dict[Path, Page]) -> None:
    """No script, style, font or picture."""
    assert {address for page in pages.values() for address in page.loaded if urlsplit(address).netloc} == set()
    styles = [file.read_text(encoding="utf-8") for site in {*pages} for file in site.parent.glob("_static/**/*.css")]
    assert [found for style in styles for found in re.findall(r"(?:url\(|@import )[\"']?https?:[^)\"']*", style)] == []


@pytest.mark.slow
def test_the_files_for_language_models_have_each_page(pages: dict[Path, Page]) -> None:
    """The list says of each page what it is about; the other file has its text."""
    [latest] = {file.parent for file in pages if file.name == "genindex.html"}
    names = {str(file.relative_to(DOCS)) for file in PAGES.values()} - {"index.md"}
    names |= {f"reference/{name}" for name in GENERATED}
    listed = re.findall(r"^- \[.*\]\(_sources/(.*)\)", (latest / "llms.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert {*listed} == names
    assert [name for name in names if not (latest / "_sources" / name).is_file()] == []
    full = (latest / "llms-full.txt").read_text(encoding="utf-8")
    assert [name for name in names if f"<!-- {name} -->" not in full] == []


def test_the_versions_are_listed_with_the_newest_first(tmp_path: Path) -> None:
    """The address of the site leads to `latest`."""
    for name in ("v0.9.0", "latest", "v0.10.0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.html").touch()
    write_versions(tmp_path)
    listed = re.findall(r'href="([^/]*)/index.html"', (tmp_path / "versions.html").read_text(encoding="utf-8"))
    assert listed == ["latest", "v0.10.0", "v0.9.0"]
    assert 'content="0; url=latest/index.html"' in (tmp_path / "index.html").read_text(encoding="utf-8")

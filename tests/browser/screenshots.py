"""Takes pictures of every page: `python -m tests.browser.screenshots FOLDER`, of an empty and of a full database.

Each page is taken at 390 and 1440 pixels, light and dark, as `full/executions_N-1440-dark.png`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser

from tests.browser.addresses import crawl, kind_of
from tests.browser.conftest import opened, sign_in
from tests.browser.full import fill
from tests.browser.site import Site

WIDTHS = {390: 844, 1440: 900}  # and heights
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def take(browser: Browser, site: Site, addresses: Mapping[str, str], folder: Path) -> None:
    """Take pictures of these addresses, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    for width, height in WIDTHS.items():
        for scheme in SCHEMES:
            context = browser.new_context(
                base_url=site.url,
                color_scheme=scheme,
                reduced_motion="reduce",
                viewport={"width": width, "height": height},
            )
            sign_in(context, site)
            context.set_default_timeout(120_000)
            page = context.new_page()
            for name, address in addresses.items():
                page.goto(address)
                page.wait_for_function("document.fonts.status === 'loaded'")
                page.screenshot(path=folder / f"{name}-{width}-{scheme}.png", full_page=True)
                wide = page.evaluate("document.documentElement.scrollWidth")
                if wide > width:
                    print(f"{address} is {wide} px wide on a screen of {width}")
            context.close()


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--items", type=int, default=5_000, help="of the iterator")
    parser.add_argument("--only", default="", help="a part of the names")
    options = parser.parse_args()
    with opened() as (running, browser):
        for state in ("empty", "full"):
            shown = fill(running, items=options.items) if state == "full" else {}
            named = {f"execution_{name}": f"/executions/{execution_id}" for name, execution_id in shown.items()}
            for answer in crawl(running, "operator", "/", "/sign-in", *named.values()):
                if answer.address not in named.values():
                    named.setdefault(name_of(answer.address), answer.address)
            wanted = {name: address for name, address in named.items() if options.only in name}
            take(browser, running, wanted, options.folder / state)


def name_of(address: str) -> str:
    """A file's name for an address: by the kind of page."""
    return re.sub(r"[^A-Za-z0-9]+", "_", kind_of(address)).strip("_")[:80] or "overview"


if __name__ == "__main__":
    main()

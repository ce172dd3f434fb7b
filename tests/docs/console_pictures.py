"""Takes the pictures of docs/how-to/console.md anew: `python -m tests.docs.console_pictures`.

`--every FOLDER` takes pictures of every page instead, of an empty and of a full database. Each page is taken at 390 and
1440 pixels, light and dark, as `full/executions_N-1440-dark.png`.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from benchmarks.busy_day import fill
from noetl_broker.store.admin.figures import sum_due_hours
from noetl_broker.store.connect.connection import connect
from tests.browser.addresses import crawl, kind_of
from tests.browser.conftest import ARGUMENTS, chromium, sign_in
from tests.browser.site import Site, site
from tests.docs import three_weeks
from tests.docs.pages import DOCS

WIDTHS = {390: 844, 1280: 720, 1440: 900}  # and heights
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def window(browser: Browser, site: Site, width: int, scheme: Literal["light", "dark"]) -> BrowserContext:
    """Open an operator's window."""
    context = browser.new_context(
        base_url=site.url,
        color_scheme=scheme,
        reduced_motion="reduce",
        viewport={"width": width, "height": WIDTHS[width]},
    )
    context.set_default_timeout(120_000)
    sign_in(context, site)
    return context


def take_documented(page: Page, shown: Mapping[str, int]) -> None:
    """Take the pictures of docs/how-to/console.md, without those of three weeks."""
    page.goto(f"/executions/{shown['failed']}?step=charge")
    expect(page.locator("#step")).to_contain_text("Why")
    save(page, "execution")
    page.goto(f"/executions/{shown['forty']}?turn=10")
    expect(page.locator("#turns")).to_contain_text("after turn 10")
    save(page, "past")
    page.goto("/executions?path=shop/*")
    page.get_by_text("Live", exact=True).wait_for()
    save(page, "executions")
    page.goto("/executions?status=FAILED&path=shop/charge")
    page.get_by_label("Choose all on this page").check()
    page.get_by_role("button", name="Retry").click()
    expect(page.get_by_role("heading", name="What will happen")).to_be_visible()
    save(page, "retry")
    page.goto("/playbooks/edit?path=shop/charge")
    text = page.get_by_label("Text of the playbook")
    text.fill(text.input_value().replace("charge.charged > 1000", "charge.charged > 100"))
    page.get_by_role("button", name="Check").click()
    expect(page.get_by_role("heading", name="Back-test")).to_be_visible()
    save(page, "back-test")
    page.goto("/approvals")
    page.locator("summary.line").first.click()
    page.get_by_text("Live", exact=True).wait_for()
    save(page, "approvals")


def take_three_weeks(browser: Browser, site: Site) -> None:
    """Take the two pictures with charts, the second one dark."""
    page = window(browser, site, 1440, "light").new_page()
    page.goto("/?span=21d")
    expect(page.get_by_role("heading", name="Started executions")).to_be_visible()
    save(page, "charts", whole=True)
    page = window(browser, site, 1440, "dark").new_page()
    page.goto("/playbooks/stats?path=orders/fulfil&span=21d")
    expect(page.get_by_role("heading", name="Failures by type of error")).to_be_visible()
    save(page, "numbers", whole=True)


async def fill_three_weeks(site: Site) -> None:
    """Write the executions, and sum them at once."""
    connection = await connect(site.database, name="pictures")
    try:
        await three_weeks.fill(connection)
        while await sum_due_hours(connection, most=100):
            pass
    finally:
        await connection.close()


def save(page: Page, name: str, *, whole: bool = False) -> None:
    """Take what is seen of a page, or the whole page."""
    page.screenshot(path=DOCS / "pictures" / f"console-{name}.png", full_page=whole)


def take_every(browser: Browser, site: Site, shown: Mapping[str, int], folder: Path) -> None:
    """Take pictures of each kind of page, and of the executions that are shown, by name."""
    addresses = {f"execution_{name}": f"/executions/{execution_id}" for name, execution_id in shown.items()}
    for answer in crawl(site, "operator", "/", "/sign-in", *addresses.values()):
        if answer.address not in addresses.values() and answer.headers["content-type"].startswith("text/html"):
            addresses.setdefault(name_of(answer.address), answer.address)
    for width in (390, 1440):
        for scheme in SCHEMES:
            context = window(browser, site, width, scheme)
            page = context.new_page()
            for name, address in addresses.items():
                page.goto(address)
                page.wait_for_function("document.fonts.status === 'loaded'")
                page.screenshot(path=folder / f"{name}-{width}-{scheme}.png", full_page=True)
                wide = page.evaluate("document.documentElement.scrollWidth")
                if wide > width:
                    print(f"{address} is {wide} px wide on a screen of {width}")
            context.close()


def name_of(address: str) -> str:
    """A file's name for an address: by the kind of page."""
    return re.sub(r"[^A-Za-z0-9]+", "_", kind_of(address)).strip("_")[:80] or "overview"


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=Path, metavar="FOLDER", help="pictures of every page into this folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, site(Path(folder)) as running, browsing() as browser:
        if options.every:
            take_every(browser, running, {}, options.every / "empty")
            take_every(browser, running, fill(running), options.every / "full")
            return
        shown = fill(running, items=50)
        take_documented(window(browser, running, 1280, "light").new_page(), shown)
    with tempfile.TemporaryDirectory() as folder, site(Path(folder)) as running:
        asyncio.run(fill_three_weeks(running))
        with browsing() as browser:
            take_three_weeks(browser, running)


@contextmanager
def browsing() -> Iterator[Browser]:
    """Run a browser."""
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS) as browser,
    ):
        yield browser


if __name__ == "__main__":
    main()

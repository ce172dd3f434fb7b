"""Takes the pictures of docs/console.md anew: `python -m tests.browser.docs_pictures`."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.conftest import opened, sign_in
from tests.browser.full import fill

DOCS = Path(__file__).parents[2] / "docs"
WIDE, HIGH = 1280, 720


def take(page: Page, shown: dict[str, int]) -> None:
    """Take the six pictures."""
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


def save(page: Page, name: str) -> None:
    """Take what is seen of a page."""
    page.screenshot(path=DOCS / f"console-{name}.png")


def main() -> None:
    """Take all."""
    with opened() as (running, browser):
        shown = fill(running, items=50)
        context = browser.new_context(
            base_url=running.url,
            color_scheme="light",
            reduced_motion="reduce",
            viewport={"width": WIDE, "height": HIGH},
        )
        context.set_default_timeout(60_000)
        sign_in(context, running)
        take(context.new_page(), shown)


if __name__ == "__main__":
    main()

"""An execution that failed in its undo: seen at night, and undone from the console."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.site import Site

PATH = "one/payment"
PAYMENT = """
workload: {bank: "", amount: 50}
workflow:
  - {step: start, next: reserve}
  - step: reserve
    type: python
    code: "def main(): return {'shelf': 7}"
    compensate: {type: python, code: "def main(): return 'released'"}
    next: charge
  - step: charge
    type: python
    code: "def main(): return {'charge': 17}"
    compensate:
      type: python
      args: {bank: "{{ workload.bank }}", charge: "{{ result.charge }}"}
      retry: {max_attempts: 1}
      code: |
        def main(bank, charge):
            with open(bank, "a") as refunds:
                refunds.write(f"refund {charge}\\n")
    next: ship
  - {step: ship, type: python, code: "def main(): raise ValueError('no truck')", next: end}
  - {step: end}
"""


def test_a_failed_undo_goes_on_from_the_console(site: Site, page: Page, tmp_path: Path) -> None:
    """Health and the execution say what is left; the confirmation lists it; then nothing is left, and it is retried."""
    bank = tmp_path / "closed" / "refunds"
    site.register(PATH, PAYMENT)
    [failed] = site.run(PATH, {"bank": str(bank)})

    page.goto("/health")
    left = page.get_by_role("row").filter(has_text=str(failed))
    expect(left).to_contain_text("1 failed")
    left.get_by_role("link", name=str(failed)).click()
    expect(page.locator(".undoing")).to_contain_text("No such file or directory")
    expect(page.locator(".undoing li")).to_have_count(2)
    page.get_by_role("link", name="Retry", exact=True).click()
    expect(page.get_by_text("something left to undo")).to_be_visible()
    page.go_back()

    bank.parent.mkdir()  # the bank is back
    page.locator("#actions").get_by_role("link", name="Undo").click()
    steps = page.locator("tbody tr td:first-child")
    expect(steps).to_have_text(["charge", "reserve"])
    page.get_by_role("button", name="Undo 2 actions").click()
    expect(page.locator("#headline .badge").first).to_have_text(re.compile("Completed"))
    assert bank.read_text() == "refund 17\n"

    page.goto(f"/executions/{failed}")
    expect(page.locator(".undoing")).to_contain_text("What was left was undone by")
    page.get_by_role("link", name="Retry", exact=True).click()
    expect(page.get_by_text("what it did was undone")).to_be_visible()

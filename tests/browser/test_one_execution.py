"""The page of one execution, as an operator uses it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Visitors, press_until
from tests.browser.site import Site

PATH = "one/order"
ORDER = """
workload: {amount: 50, customer: ACME}
workload_schema:
  type: object
  properties:
    amount: {type: integer, title: Amount, minimum: 1}
    customer: {type: string, title: Customer}
workflow:
  - {step: start, next: check}
  - step: check
    type: python
    args: {amount: "{{ workload.amount }}"}
    code: "def main(amount): return {'risk': amount / 10000}"
    next_mode: exclusive
    next:
      - {when: "{{ check.risk > 0.1 }}", step: review}
      - {else: [{step: hold}]}
  - {step: review, type: approval, title: "Is the risk of {{ check.risk }} fine?", next: ship}
  - {step: hold, type: wait, signal: paid, next: approve}
  - step: approve
    type: approval
    title: "Ship to {{ workload.customer }}?"
    form: {discount: {type: integer, title: Discount, default: 0}}
    next: ship
  - {step: ship, type: python, code: "def main(): return 'on its way'", next: end}
  - {step: end, result: "{{ ship }}"}
"""
DECIDE = """
select noetl.decide_approval(execution_id, node_id, true, 'ann') from noetl.pending_approvals where execution_id = %s
"""
WAITS, DONE = re.compile(r"\bwaits\b"), re.compile(r"\bcompleted\b")


@pytest.fixture
def waiting(site: Site) -> int:
    """Return an execution that waits for the signal `paid`."""
    site.register(PATH, ORDER)
    [execution_id] = site.start(PATH)
    site.until_step(execution_id, "hold", "RUNNING")
    return execution_id


@pytest.fixture(scope="module")
def ended(site: Site) -> int:
    """Return an execution that ran to its end."""
    site.register(PATH, ORDER)
    [execution_id] = site.start(PATH)
    site.until_step(execution_id, "hold", "RUNNING")
    site.rows("select noetl.signal_execution(%s, 'paid')", execution_id)
    site.until_step(execution_id, "approve", "RUNNING")
    site.rows(DECIDE, execution_id)
    site.until_ended(execution_id)
    return execution_id


def drawn(page: Page, step: str) -> Locator:
    """The step in the graph."""
    return page.locator("#graph g.step").filter(has=page.get_by_text(step, exact=True))


def test_a_form_starts_an_execution_and_its_graph_moves(site: Site, page: Page, visitors: Visitors) -> None:
    """The form's values are checked first; later, what runs and what is done changes without a load of the page."""
    visitors.expected = ("400",)
    site.register(PATH, ORDER)
    page.goto(f"/playbooks?path={PATH}")
    page.get_by_role("link", name="Start").first.click()
    page.get_by_label("Amount").fill("0")
    page.get_by_role("button", name="Start version 1").click()
    expect(page.get_by_label("Amount")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Amount").fill("70")
    page.get_by_role("button", name="Start version 1").click()
    expect(page).to_have_url(re.compile(r"/executions/\d+$"))
    expect(drawn(page, "hold")).to_have_class(WAITS)
    page.evaluate("window.loaded = true")
    execution_id = int(page.url.rpartition("/")[2])
    site.rows("select noetl.signal_execution(%s, 'paid')", execution_id)
    expect(drawn(page, "hold")).to_have_class(DONE)
    expect(drawn(page, "approve")).to_have_class(WAITS)
    assert (
        site.value("select workload ->> 'amount' from noetl.execution where execution_id = %s", execution_id)
    ) == "70"
    assert page.evaluate("window.loaded")
    page.get_by_label("Discount").fill("5")
    page.get_by_role("button", name="Approve").click()  # the form came by script, and has its token
    expect(page.get_by_text("approve is approved by token:operator.")).to_be_visible()


def test_the_slider_goes_back_and_forth(ended: int, page: Page) -> None:
    """Graph and steps are as they were after a turn; the address says which, and can be sent."""
    page.goto(f"/executions/{ended}")
    expect(drawn(page, "ship")).to_have_class(DONE)
    page.evaluate("window.loaded = true")
    slider = page.get_by_role("slider")
    slider.focus()
    page.keyboard.press("Home")
    expect(page.locator("#turns")).to_contain_text("after turn 1 of")
    expect(drawn(page, "check")).not_to_have_class(DONE)
    expect(page).to_have_url(re.compile(r"turn=1\b"))
    page.get_by_role("link", name="Next turn").click()
    expect(page.locator("#turns")).to_contain_text("after turn 2 of")
    expect(drawn(page, "check")).to_have_class(DONE)
    expect(drawn(page, "ship")).not_to_have_class(DONE)
    page.go_back()
    expect(page.locator("#turns")).to_contain_text("after turn 1 of")
    page.get_by_role("link", name="Now").click()
    expect(drawn(page, "ship")).to_have_class(DONE)
    assert page.evaluate("window.loaded")


def test_the_page_says_why_a_step_did_not_run(ended: int, page: Page) -> None:
    """With the condition that was not true."""
    page.goto(f"/executions/{ended}")
    drawn(page, "review").click()
    expect(page).to_have_url(re.compile("step=review"))
    expect(page.locator("#step")).to_contain_text("check.risk > 0.1")


def test_the_page_is_for_a_keyboard(waiting: int, page: Page) -> None:
    """From the graph to a step's panel, to a signal, to the approval."""
    page.goto(f"/executions/{waiting}")
    press_until(page, "Tab", "Skip to the content")
    page.keyboard.press("Enter")
    press_until(page, "Tab", "Signal")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.type("paid")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Ship to ACME?")).to_be_visible()
    press_until(page, "Tab", "Approve")
    page.keyboard.press("Enter")
    expect(page.locator("#headline")).to_contain_text("Completed")
    expect(page.locator("#result")).to_contain_text("on its way")


def test_without_script_everything_can_be_done(site: Site, enter: Callable[..., Page]) -> None:
    """Start, signal, approve, read the past."""
    site.register(PATH, ORDER)
    page = enter(java_script_enabled=False)
    page.goto(f"/playbooks/start?path={PATH}")
    page.get_by_role("button", name="Start version 1").click()
    expect(page.get_by_text(f"Version 1 of {PATH} has started.")).to_be_visible()
    execution_id = int(page.url.rpartition("/")[2])
    site.until_step(execution_id, "hold", "RUNNING")
    page.goto(f"/executions/{execution_id}/signal?name=paid")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("The signal paid was sent to this execution.")).to_be_visible()
    site.until_step(execution_id, "approve", "RUNNING")
    page.reload()
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_text("approve is approved by token:operator.")).to_be_visible()
    site.until_ended(execution_id)
    page.reload()
    expect(page.locator("#headline")).to_contain_text("Completed")
    page.get_by_role("link", name="Previous turn").click()
    expect(page.locator("#turns")).to_contain_text("after turn")

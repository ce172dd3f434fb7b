"""The list of executions and the overview, as an operator uses them; who enters, and what others may not do.

The tests of signing in are here, because each file starts a browser and an installation.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.conftest import Visitors, press_until
from tests.browser.site import Site
from tests.browser.test_every_page import AXE

WAITS = """
workflow:
  - {step: start, next: hold}
  - {step: hold, type: wait, signal: go, next: end}
  - {step: end}
"""


def test_the_list_is_live(site: Site, page: Page) -> None:
    """A new execution appears, and its status changes, without a load of the page."""
    site.register("lists/waits", WAITS)
    page.goto("/executions?path=lists/waits")
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    page.evaluate("window.loaded = true")
    [execution_id] = site.start("lists/waits")
    row = page.locator(f"#row-{execution_id}")
    expect(row).to_contain_text("Running")
    site.value("select noetl.cancel_execution(%s, 'enough')", execution_id)
    expect(row).to_contain_text("Cancelled")
    assert page.evaluate("window.loaded")


def test_the_list_is_for_a_keyboard(site: Site, page: Page) -> None:
    """Search with the slash, choose all with the space bar, act with Enter; the focus can always be seen."""
    site.register("lists/waits", WAITS)
    both = site.start("lists/waits", {"who": "by hand"}, count=2)
    for execution_id in both:
        site.until_step(execution_id, "hold", "RUNNING")  # then no row changes while keys are pressed
    page.goto("/executions")
    page.keyboard.press("/")
    expect(page.locator("[data-search]")).to_be_focused()
    page.keyboard.type("by hand")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"\btext=by\+hand\b"))
    expect(page.locator("tbody tr")).to_have_count(2)
    press_until(page, "Tab", "Choose all on this page")
    page.keyboard.press("Space")
    expect(page.get_by_text("2 chosen:")).to_be_visible()
    press_until(page, "Tab", "Cancel")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Cancel 2 executions?")
    press_until(page, "Tab", "Why")
    page.keyboard.type("ordered twice")
    page.keyboard.press("Enter")
    expect(page.get_by_text("2 executions were asked to end.")).to_be_visible()
    for execution_id in both:
        site.until_ended(execution_id)


def test_without_script_lists_are_the_same(site: Site, enter: Callable[..., Page]) -> None:
    """Choose, preview, act."""
    site.register("lists/waits", WAITS)
    [execution_id] = site.start("lists/waits")
    page = enter(java_script_enabled=False)
    page.goto(f"/executions?text={execution_id}")
    page.get_by_label(f"Choose {execution_id}").check()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Cancel 1 execution").click()
    expect(page.get_by_text("1 execution was asked to end.")).to_be_visible()


def test_a_restart_of_postgres_breaks_nothing(site: Site, page: Page, visitors: Visitors) -> None:
    """An open page goes on by itself, with what happened meanwhile."""
    visitors.expected = ("503", "ERR_INCOMPLETE_CHUNKED_ENCODING")
    site.register("lists/waits", WAITS)
    page.goto("/executions?path=lists/waits")
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    page.evaluate("window.loaded = true")
    site.postgres.restart()
    [execution_id] = site.start("lists/waits")
    expect(page.locator(f"#row-{execution_id}")).to_contain_text("Running")
    site.value("select noetl.cancel_execution(%s, 'enough')", execution_id)
    expect(page.locator(f"#row-{execution_id}")).to_contain_text("Cancelled")
    page.reload()
    expect(page.locator(f"#row-{execution_id}")).to_contain_text("Cancelled")


def test_a_token_opens_the_page_that_was_wanted(site: Site, enter: Callable[..., Page]) -> None:
    """And its session ends with a click."""
    page = enter(None)
    page.goto("/executions?status=FAILED")
    page.get_by_label("Token").fill(site.tokens["operator"])
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{site.url}/executions?status=FAILED")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_text("You have signed out.")).to_be_visible()
    page.go_back()
    page.reload()
    expect(page).to_have_url(f"{site.url}/sign-in?next=%2Fexecutions%3Fstatus%3DFAILED")


def test_another_site_can_do_nothing(site: Site, page: Page, visitors: Visitors) -> None:
    """Its form comes without the cookies, and is refused; its link opens the page with the session."""
    visitors.expected = ("403",)
    visitors.hosts_allowed = {"elsewhere.example"}
    elsewhere = "http://elsewhere.example/"
    page.goto("/")
    form = f'<form method=post action="{site.url}/sign-out"><button>Win</button></form>'
    link = f'<a href="{site.url}/executions?status=FAILED">Look</a>'
    page.context.route(
        "http://elsewhere.example/", lambda route: route.fulfill(body=form + link, content_type="text/html")
    )
    page.goto(elsewhere)
    with page.expect_response(f"{site.url}/sign-out") as answer:
        page.get_by_role("button").click()
    assert (answer.value.status, "cookie" in answer.value.request.all_headers()) == (403, False)
    page.goto(elsewhere)
    page.get_by_role("link").click()
    expect(page).to_have_url(f"{site.url}/executions?status=FAILED")
    expect(page.get_by_role("heading", level=1)).to_have_text("Executions")


def test_a_palette_goes_anywhere(site: Site, page: Page, visitors: Visitors) -> None:
    """Ctrl-K on every page, and the slash where there is no search: to pages, executions and playbooks."""
    visitors.expected = ("404",)
    site.register("lists/waits", WAITS)
    page.goto("/health")
    for keys, typed, chosen, url in (
        ("Control+k", "sched", "Schedules", "/schedules"),
        ("/", "12345", "Execution 12345", "/executions/12345"),
        ("Control+k", "lists/wa", "Playbook lists/waits", "/playbooks?path=lists%2Fwaits"),
    ):
        page.keyboard.press(keys)
        page.keyboard.type(typed)
        expect(page.get_by_role("option", name=chosen, exact=True)).to_have_attribute("aria-selected", "true")
        page.evaluate(AXE)
        found = page.evaluate("axe.run('dialog').then(({violations}) => violations.map(({id}) => id))")
        assert found == []
        page.keyboard.press("Enter")
        expect(page).to_have_url(f"{site.url}{url}")
        page.goto("/health")


def test_a_sent_form_says_that_it_works(site: Site, page: Page) -> None:
    """Its button takes no second click; who goes back finds it as it was."""
    site.register("lists/waits", WAITS)
    page.goto("/playbooks/start?path=lists/waits")
    page.evaluate("addEventListener('submit', (event) => event.preventDefault())")  # the answer takes long
    page.get_by_role("button", name="Start version 1").click()
    expect(page.get_by_role("button", name="Working…")).to_be_disabled()
    page.evaluate("dispatchEvent(new Event('pageshow'))")
    expect(page.get_by_role("button", name="Start version 1")).to_be_enabled()


def test_rows_are_short_on_a_phone(site: Site, enter: Callable[..., Page]) -> None:
    """Two lines an execution and one for its error, and nothing is wider than the screen."""
    site.register("lists/waits", WAITS)
    [execution_id] = site.start("lists/waits")
    site.until_step(execution_id, "hold", "RUNNING")
    site.value("select noetl.cancel_execution(%s, 'enough')", execution_id)
    site.until_ended(execution_id)
    page = enter(viewport={"width": 390, "height": 800})
    page.goto(f"/executions?text={execution_id}")
    row = page.locator(f"#row-{execution_id}")
    expect(row).to_contain_text("Cancelled")
    # In one step: the page may put a newer row in its place between two.
    height, width = page.evaluate(
        "row => [document.getElementById(row).offsetHeight, document.documentElement.scrollWidth]",
        f"row-{execution_id}",
    )
    assert (height < 90, width) == (True, 390)

"""Who enters the console, and what a viewer and a page of another site may not do."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.conftest import Visitors
from tests.browser.site import Site


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


def test_a_viewer_may_not_act(enter: Callable[..., Page]) -> None:
    """There is nothing to choose and no button; an address with an action says what is missing."""
    page = enter("viewer")
    page.goto("/executions")
    expect(page.get_by_role("checkbox")).to_have_count(0)
    expect(page.get_by_role("link", name="Start one")).to_have_count(0)
    expect(page.get_by_text("viewer").first).to_be_visible()


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


def test_cookies_are_for_this_site_alone(site: Site, enter: Callable[..., Page]) -> None:
    """No script and no other site gets one."""
    page = enter(None)
    page.goto("/sign-in")
    page.get_by_label("Token").fill(site.tokens["viewer"])
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(f"{site.url}/")
    cookies = page.context.cookies()
    assert {(one["name"], one["httpOnly"], one["sameSite"]) for one in cookies} == {
        ("noetl_session", True, "Strict"),
        ("noetl_form", True, "Strict"),
    }
    assert page.evaluate("document.cookie") == ""

"""What holds for every page that links lead to, where all texts of others are hostile."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from importlib import resources
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page

from tests.browser import hostile
from tests.browser.addresses import Answer, client_of, crawl, kind_of, read
from tests.browser.conftest import FOLDER, Visitors
from tests.browser.site import Site
from tests.console.conftest import page_routes

AXE = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
SERIOUS = {"serious", "critical"}
LOOK, FIND, CHECK = ((FOLDER / f"{name}.js").read_text(encoding="utf-8") for name in ("look", "find", "check"))
COLORS = ["color-contrast", "link-in-text-block"]  # of the dark scheme: the rest does not depend on colours
# Pages on which hostile names and errors of others must be seen.
SHOWING = {
    "/executions/N/undo", "/executions/N?tab=undo", "/limits", "/limits?name", "/limits/line?key&path",
    "/limits/delete?name", "/workers", "/signals", "/dead-letters", "/approvals", "/schedules", "/executions",
}  # fmt: skip
# What no link of a short execution leads to; a value has an address of its own where it is long.
FILES = {"/static/{digest}/{name}", "/favicon.ico", "/executions/{execution_id:int}/values/{part}"}


class Seen(NamedTuple):
    """What a browser sees on a page."""

    texts: Mapping[str, Any]
    violations: list[Any]


@pytest.fixture(scope="module")
def answers(site: Site) -> dict[str, Answer]:
    """Return the answers to an operator, by kind of page; of each prepared execution, by address."""
    starts = hostile.prepare(site)
    found = crawl(site, "operator", *starts, "/", "/sign-in")
    return {one.address if one.address in starts else kind_of(one.address): one for one in found}


@pytest.fixture(scope="module")
def seen(answers: dict[str, Answer], browser: Browser, site: Site) -> Iterator[dict[str, Seen]]:
    """Yield what a browser sees on each page."""
    visitors = Visitors(browser, site)
    page = visitors.enter()
    page.add_init_script(AXE)
    yield {
        kind: look(page, answer.address)
        for kind, answer in answers.items()
        if answer.headers["content-type"].startswith("text/html")
    }
    visitors.close()
    assert visitors.faults == []


def look(page: Page, address: str) -> Seen:
    """Open a page, and look for what should not be there."""
    page.goto(address)
    texts = page.evaluate(LOOK, [hostile.ELEMENT, hostile.INVISIBLE])
    has_new_colors = page.evaluate(FIND, COLORS)
    violations = page.evaluate(CHECK, TAGS)
    if has_new_colors:
        page.emulate_media(color_scheme="dark")
        violations += page.evaluate(CHECK, COLORS)
        page.emulate_media(color_scheme="light")
    return Seen(texts, violations)


def test_links_lead_to_every_page(answers: dict[str, Answer]) -> None:
    """And each answers."""
    routes = page_routes("GET") - FILES
    reached = {urlsplit(answer.address).path for answer in answers.values()}
    missed = {
        route
        for route in routes
        if not any(re.fullmatch(re.sub(r"{\w+(:\w+)?}", "[^/]+", route), path) for path in reached)
    }
    assert (missed, {kind: one.status for kind, one in answers.items() if one.status != HTTPStatus.OK}) == (set(), {})


def test_hostile_texts_are_text(seen: dict[str, Seen]) -> None:
    """No page has an element, attribute or address of them; many pages show them."""
    faults = {
        kind: one.texts
        for kind, one in seen.items()
        if any(one.texts[name] for name in ("elements", "links", "invisible"))
    }
    assert (faults, SHOWING - {kind for kind, one in seen.items() if one.texts["shown"]}) == ({}, set())


def test_everybody_can_use_each_page(seen: dict[str, Seen]) -> None:
    """axe-core finds nothing serious, and no weak contrast in the dark scheme."""
    faults = [
        f"{kind}: {rule} {' '.join(where)}"
        for kind, found in seen.items()
        for impact, rule, where in found.violations
        if impact in SERIOUS
    ]
    assert "\n".join(faults) == ""


def test_no_page_allows_what_is_inline_or_elsewhere(answers: dict[str, Answer]) -> None:
    """Each says so with the same policy; nothing of it is kept by a browser."""
    policies = {
        (one.headers["content-security-policy"], one.headers["cache-control"], one.headers["x-content-type-options"])
        for kind, one in answers.items()
        if not kind.startswith(("/static", "/api"))
    }
    inline = [
        kind
        for kind, one in answers.items()
        if re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=[\"']", re.sub(r"&\w+;", "", one.text))
    ]
    assert (len(policies), inline) == (1, [])
    [(policy, kept, _)] = policies
    assert ("unsafe" in policy, "http" in policy, "*" in policy, kept) == (False, False, False, "no-store")


def test_a_viewer_sees_no_form_and_no_value(answers: dict[str, Answer], site: Site) -> None:
    """On no page; the hostile value is in payloads, results, errors and logs."""
    with client_of(site, "viewer") as client:
        shown = {kind: read(client, answer.address) for kind, answer in answers.items()}
    forms = {kind: form.action for kind, one in shown.items() for form in one.forms if form.method == "post"}
    values = [kind for kind, one in shown.items() if "elsewhere.example" in one.text]
    assert (set(forms.values()) - {"/sign-out", "/sign-in"}, values) == (set(), [])

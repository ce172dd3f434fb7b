"""A browser on a console: one installation for all tests of a process, one browser for a module."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, expect, sync_playwright

from tests.browser.site import COOKIE, Site
from tests.browser.site import site as running_site

FOLDER = Path(__file__).parent
FOCUSED = (FOLDER / "focused.js").read_text(encoding="utf-8")
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
WORDS = "no Chromium on this machine: apt-get install chromium-headless-shell, or set CHROMIUM_PATH"
# Chromium reads only the last such list. The first names are those that Playwright disables. Then come two menus of the
# address bar, which each window loads as pages (1 s of a core), and a spare process for a page of another site.
DISABLED = (
    "AvoidUnnecessaryBeforeUnloadCheckSync", "DestroyProfileOnBrowserClose", "HttpsUpgrades",
    "HttpsFirstBalancedModeAutoEnable", "LensOverlay", "MediaRouter", "PaintHolding", "ThirdPartyStoragePartitioning",
    "AvoidCorsURLLoaderRestartOnRedirect", "OptimizationHints", "NetworkTimeServiceQuerying", "AimEnabled",
    "PreconnectToSearch",
    "WebUIOmniboxPopup", "WebUIOmniboxAimPopup", "SpareRendererForSitePerProcess",
)  # fmt: skip
# Nothing but this machine can be reached, and no profile is looked up.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    f"--disable-features={','.join(DISABLED)}",
]
PATIENCE_MS = 120_000


def chromium() -> str | None:
    """The browser of this machine; None where there is none."""
    named = os.environ.get("CHROMIUM_PATH")
    return named or next((found for name in NAMES if (found := shutil.which(name))), None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run no test of this folder where there is no browser."""
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.skipif(chromium() is None, reason=WORDS))


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Yield the installation that all tests share."""
    with running_site(tmp_path_factory.mktemp("site")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield the browser; it ends with the module, because an open one holds the thread's event loop."""
    expect.set_options(timeout=PATIENCE_MS)
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS) as launched,
    ):
        yield launched


def sign_in(context: BrowserContext, site: Site, role: str = "operator") -> None:
    """Give a window the session of this role."""
    cookie = {"name": COOKIE, "value": site.tokens[role], "url": site.url}
    context.add_cookies([{**cookie, "httpOnly": True, "sameSite": "Strict"}])  # type: ignore[typeddict-item]


class Visitors:
    """Opens browsers' windows of persons, and watches what they do: what they ask of whom, and what goes wrong."""

    def __init__(self, browser: Browser, site: Site) -> None:
        self._browser = browser
        self._site = site
        self._contexts: list[BrowserContext] = []
        self.hosts: set[str] = set()
        self.faults: list[str] = []
        self.expected: tuple[str, ...] = ()
        self.hosts_allowed: set[str] = set()

    def enter(self, role: str | None = "operator", **options: Any) -> Page:
        """Open a window of somebody with this role; None has not signed in."""
        context = self._browser.new_context(base_url=self._site.url, reduced_motion="reduce", **options)
        context.set_default_timeout(PATIENCE_MS)
        context.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        context.on("console", self._listen)
        context.on("weberror", lambda error: self.faults.append(str(error.error)))
        context.on("dialog", self._refuse)
        if role is not None:
            sign_in(context, self._site, role)
        self._contexts.append(context)
        return context.new_page()

    def close(self) -> None:
        """Close all windows."""
        for context in self._contexts:
            context.close()

    def _refuse(self, dialog: Dialog) -> None:
        self.faults.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def _listen(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.faults.append(message.text)


@pytest.fixture
def visitors(browser: Browser, site: Site) -> Iterator[Visitors]:
    """Yield who opens windows. At the end nothing was asked of another host, and no script or policy complained."""
    opened = Visitors(browser, site)
    yield opened
    opened.close()
    unexpected = [fault for fault in opened.faults if not any(words in fault for words in opened.expected)]
    assert (opened.hosts - opened.hosts_allowed - {urlsplit(site.url).netloc}, unexpected) == (set(), [])


@pytest.fixture
def page(visitors: Visitors) -> Page:
    """Return a window of an operator."""
    return visitors.enter()


@pytest.fixture
def enter(visitors: Visitors) -> Callable[..., Page]:
    """Return the function that opens a window of somebody."""
    return visitors.enter


def press_until(page: Page, key: str, name: str, *, most: int = 80) -> None:
    """Press a key until the element with this name has the focus, and its focus can be seen."""
    passed = []
    for _ in range(most):
        page.keyboard.press(key)
        found, ring = page.evaluate(FOCUSED)
        passed.append(found)
        assert ring, f"the focus of {found!r} cannot be seen"
        if found == name:
            return
    pytest.fail(f"{name!r} has no place in the order of the keyboard: {passed}")

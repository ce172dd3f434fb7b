"""Every page of the console that links lead to, one of each kind, and the forms on them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

import httpx

from tests.browser.site import COOKIE, PATIENCE_SECONDS, Site

MOST_PAGES = 300
# The values of these parameters choose what a page shows; those of others choose of what.
TELLING = {"tab", "action", "scope", "view", "kind"}
ALIKE = {"/", "/executions", "/approvals", "/signals", "/dead-letters", "/schedules"}  # their parameters are filters
OF_LISTS = {"version", "of", "cursor", "status", "since", "until", "search"}  # these change no more than which rows


@dataclass(frozen=True, slots=True)
class FormOf:
    """A form on a page: where it is sent, how, and its fields as they are."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the console answers at an address."""

    address: str
    status: int
    text: str
    headers: httpx.Headers
    links: list[str]
    forms: list[FormOf]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.forms: list[FormOf] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "form":
            self.forms.append(FormOf(given.get("action", ""), given.get("method", "get").lower()))
        elif "name" in given and self.forms:
            self.forms[-1].fields.setdefault(given["name"], given.get("value", ""))


def kind_of(address: str) -> str:
    """What a page shows, without of what: its path with N for numbers, and the names of its parameters."""
    parts = urlsplit(address)
    if parts.path in ALIKE:
        return parts.path
    named = dict(parse_qsl(parts.query, keep_blank_values=True))
    named = {"tab": named["tab"]} if "tab" in named else {name: named[name] for name in named.keys() - OF_LISTS}
    given = sorted(f"{name}={value}" if name in TELLING else name for name, value in named.items())
    return re.sub(r"/\d+(?=/|$)", "/N", parts.path) + ("?" + "&".join(given) if given else "")


def client_of(site: Site, role: str | None) -> httpx.Client:
    """A client with the session of this role."""
    cookies = {} if role is None else {COOKIE: site.tokens[role]}
    return httpx.Client(base_url=site.url, cookies=cookies, trust_env=False, timeout=PATIENCE_SECONDS)


def read(client: httpx.Client, address: str) -> Answer:
    """Ask for an address."""
    answer = client.get(address)
    reader = _Reader()
    if answer.headers.get("content-type", "").startswith("text/html"):
        reader.feed(answer.text)
    return Answer(address, answer.status_code, answer.text, answer.headers, reader.links, reader.forms)


def crawl(site: Site, role: str, *starts: str) -> Iterator[Answer]:
    """Yield an answer of each kind of address that links lead to from these."""
    waiting, known = [*starts], {kind_of(start) for start in starts}
    with client_of(site, role) as client:
        for count, address in enumerate(waiting):
            assert count < MOST_PAGES, [*known]
            answer = read(client, address)
            yield answer
            asked = [f"{form.action}?{urlencode(form.fields)}" for form in answer.forms if form.method == "get"]
            for link in (*answer.links, *asked):
                target = urljoin(address, link)
                if link.startswith("#") or urlsplit(target).netloc or kind_of(target) in known:
                    continue
                known.add(kind_of(target))
                waiting.append(target)

"""The first page: counts of the present, the chart of what started, groups of failures, and what is wrong."""

from __future__ import annotations

import re
from html import unescape

import httpx

from noetl_broker.store.connect.connection import connect
from tests.brokers import drain, execute, register, start
from tests.console.test_executions import STORY
from tests.postgres import Database

WAITS = "workflow: [{step: start, next: a}, {step: a, type: approval, title: '?', next: end}, {step: end}]"


async def test_a_list_says_where_a_live_execution_is(database: Database, api: httpx.AsyncClient) -> None:
    """The steps that run, and what one waits for."""
    steps = "\n".join(f"  - {{step: s{n}, type: python, code: x, next: end}}" for n in range(4))
    following = ", ".join(f"{{step: s{n}}}" for n in range(4))
    await register(
        database,
        f"""
workflow:
  - {{step: start, next: [{{step: ask}}, {following}]}}
  - {{step: ask, type: approval, title: "?", next: end}}
{steps}
  - step: end
""",
    )
    await start(database)
    await drain(database)
    pages = [re.sub(r"<[^>]+>", "", (await api.get(url)).text) for url in ("/", "/executions")]
    assert ["at ask, s0, s1 and 2 more, waits for a person" in page for page in pages] == [True, True]


async def test_the_navigation_counts_what_needs_a_person(database: Database, api: httpx.AsyncClient) -> None:
    """On each page, also on one about a fault."""
    await register(database, WAITS)
    await start(database, count=2)
    await drain(database)
    pages = [(await api.get(url)).text for url in ("/limits", "/executions/1")]
    assert [page.count('<span class="count run">2</span>') for page in pages] == [2, 2]


async def test_the_navigation_counts_what_health_finds(database: Database, api: httpx.AsyncClient) -> None:
    """Problems, or, without any, notices; it follows what the page of Health found last.

    Those that wait for a person share a line for each playbook, which leads to the approvals.
    """
    await register(database, WAITS)
    found = (await api.get("/health")).text.count('<span class="badge bad">')
    badges = [re.findall(r'class="count (\w+)">(\d+)', (await api.get("/schedules")).text) for _ in range(2)]
    assert (found > 0, badges) == (True, [[("bad", str(found))] * 2] * 2)  # two kinds of navigation
    await start(database, count=3)
    await drain(database)
    page = (await api.get("/")).text
    assert ("3 wait" in page, page.count('href="/approvals?path=story"')) == (True, 1)


async def test_a_new_database_says_what_to_do(api: httpx.AsyncClient) -> None:
    """And that no broker is running."""
    page = (await api.get("/")).text
    assert [words in page for words in ("Nothing has run yet", "noetl-broker run", "noetl-broker start")] == [True] * 3


async def test_what_is_wrong_is_said(database: Database, api: httpx.AsyncClient) -> None:
    """Each with a command, by what is worst."""
    said = (
        "No broker is running, so nothing moves.",
        "Events wait long for a broker to read them.",
        "A broker could not decide on some events and set them aside.",
    )

    async def found() -> list[bool]:
        page = (await api.get("/")).text
        return [words in page for words in said]

    await register(database, STORY)
    await start(database)
    await execute(database, "update noetl.event set created_at = created_at - interval '99 s'")
    first = await found()
    listening = await connect(database, name="noetl-broker bell")  # as a broker that does not come to read
    await execute(database, "insert into noetl.dead_letter values (7, 1, 'the audit table is full')")
    second = await found()
    await listening.close()
    assert (first, second) == ([True, False, False], [False, True, True])


async def test_a_bar_shows_each_status_however_few(database: Database, api: httpx.AsyncClient) -> None:
    """A link leads to what it counts."""
    await register(database, STORY)
    await start(database, payload={"x": 1}, count=99)
    await start(database, payload={"x": "text"})
    await drain(database)
    page = (await api.get("/")).text
    bars = re.findall(r'<a href="(/executions\?since=[^"]+)" tabindex="-1">(.*?)</a>', page, re.DOTALL)
    shown = [(unescape(href), re.findall(r'class="(bad|ok)".*? height="([\d.]+)"', bar)) for href, bar in bars]
    drawn = [
        (href, [tone for tone, _ in parts], min(float(size) for _, size in parts)) for href, parts in shown if parts
    ]
    assert sorted({tone for _, tones, _ in drawn for tone in tones}) == ["bad", "ok"]
    assert min(height for _, _, height in drawn) >= 2
    listed = (await api.get(drawn[0][0])).text
    assert listed.count('id="row-') > 0

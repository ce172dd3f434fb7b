"""The first page: counts of the present, the chart of what started, groups of failures, and what is wrong."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from noetl_broker.console.pages.overview import (
    HEIGHT,
    LATE_SECONDS,
    PARTS,
    draw_bars,
    find_unserved,
    find_warnings,
)
from noetl_broker.store.connect.migrations import create_roles
from tests.brokers import drain, register, start
from tests.console.conftest import console
from tests.console.test_executions import STORY
from tests.postgres import Database, named
from tests.roles import login

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
WAITS = "workflow: [{step: start, next: a}, {step: a, type: approval, title: '?', next: end}, {step: end}]"
QUIET = {
    "brokers": 1,
    "oldest_mail_seconds": None,
    "dead_letters": 0,
    "left_undone": 0,
}


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


async def test_an_operators_login_may_read_the_page(database: Database) -> None:
    """It has the rights of `noetl_operator` and no more."""
    await register(database, STORY)
    await start(database, payload={"x": 1})
    await drain(database)
    await create_roles(database)
    async with login(database, "console", named("noetl_operator")) as operator, console(operator) as client:
        answers = [await client.get(url) for url in ("/", "/executions", "/executions?text=story")]
    assert [(answer.status_code, "story" in answer.text) for answer in answers] == [(200, True)] * 3


async def test_a_new_database_says_what_to_do(api: httpx.AsyncClient) -> None:
    """And that no broker is running."""
    page = (await api.get("/")).text
    assert [words in page for words in ("Nothing has run yet", "noetl-broker run", "noetl-broker start")] == [True] * 3


@pytest.mark.parametrize(
    "changes, said",
    [
        ({}, []),
        ({"brokers": 0, "oldest_mail_seconds": 99.0}, ["No broker is running, so nothing moves."]),
        ({"oldest_mail_seconds": 99.0}, ["Events wait long for a broker to read them."]),
        ({"dead_letters": 1}, ["A broker could not decide on some events and set them aside."]),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, object], said: list[str]) -> None:
    """Each with a command."""
    warnings = [*find_warnings({**QUIET, **changes})]
    assert ([warned.words for warned in warnings], [warned for warned in warnings if not warned.command]) == (said, [])


@pytest.mark.parametrize("seconds, said", [(LATE_SECONDS, 0), (LATE_SECONDS + 1, 1)])
def test_a_type_counts_as_unserved_after_a_while(seconds: float, said: int) -> None:
    """A worker may be about to take it."""
    assert len([*find_unserved([{"type": "gpu", "jobs": 2, "seconds": seconds, "execution_id": 7}])]) == said


def test_a_bar_shows_each_status_however_few() -> None:
    """The highest bar is as high as the chart; a link leads to what it counts."""
    activity = {
        "read_at": NOW,
        "since": NOW - timedelta(hours=24),
        "parts": [[0, "COMPLETED", 1000], [0, "FAILED", 1], [PARTS - 1, "RUNNING", 10]],
    }
    bars = list(draw_bars(activity))
    assert [(piece.tone, piece.height >= 2) for piece in bars[0].pieces] == [("bad", True), ("ok", True)]
    assert len(bars) == PARTS
    assert bars[1].pieces == []
    assert bars[0].pieces[-1].y >= 0
    assert bars[-1].pieces[0].y < HEIGHT
    assert bars[0].href == "/executions?since=2026-01-30T12%3A00%3A00.000Z&until=2026-01-30T12%3A29%3A59.999Z"

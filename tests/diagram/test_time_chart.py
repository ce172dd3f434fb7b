"""The timeline as SVG: bars of visits, attempts and children, folded where they are many."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from noetl_broker.diagram.time_chart import TimeChart, lane_heights
from noetl_broker.history.visit_spans import ExecutionSpans, lanes_of

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """The moment so long after the start."""
    return START + timedelta(seconds=seconds)


def visit(step: str, number: int, began: float, ended: float | None, **more: Any) -> dict[str, Any]:
    """The row of a visit."""
    row = {"step": step, "type": "python", "visit": number, "began_at": at(began), "status": "COMPLETED"}
    row |= {"ended_at": None if ended is None else at(ended), "started": None, "failed": None, "waits_for": None}
    return {**row, "has_job": False, "held_until": None, **more}


def chart(rows: list[dict[str, Any]], seconds: float = 100.0, **more: Any) -> TimeChart:
    """The chart of these visits; the execution is live."""
    lanes = lanes_of(rows, more.pop("children", ()), is_live=True)
    return TimeChart(ExecutionSpans(1, "story", START, at(seconds), is_live=True, lanes=lanes), **more)


def bars(drawn: TimeChart) -> list[list[tuple[str, int]]]:
    """By lane: status and number of visits of each bar."""
    return [[(bar.status, bar.number) for row in lane.rows for bar in row] for lane in drawn.lanes]


def test_a_visit_has_its_attempts() -> None:
    """A failed attempt ends when it failed; the last one with its visit."""
    [lane] = lanes_of(
        [visit("load", 1, 0, 9, started=[at(1), at(5)], failed=[at(3)])],
        (),
        is_live=True,
    )
    assert [(one.began_at, one.ended_at, one.failed) for one in lane.visits[0].attempts] == [
        (at(1), at(3), True),
        (at(5), at(9), False),
    ]


@pytest.mark.parametrize(
    "row, said",
    [
        ({"started": [at(4)]}, "waited 4.0 s for a worker; ran 5.0 s"),
        ({"started": [at(4)], "held_until": at(3)}, "waited 3.0 s for a throttle and 1.0 s for a worker; ran 5.0 s"),
        ({"started": [at(1), at(5)], "failed": [at(3)]}, "waited 1.0 s for a worker; ran 6.0 s in 2 attempts"),
        ({"ended_at": None, "held_until": at(100)}, "waited 1 min 40 s for a throttle and 0 ms for a worker"),
    ],
)
def test_the_time_of_a_visit_is_waited_or_ran(row: dict[str, Any], said: str) -> None:
    """For a throttle, for a worker, and in attempts; each part is drawn."""
    rows = [visit("load", 1, 0, 9, has_job=True, **row)]
    drawn = chart(rows).svg()
    assert (said in drawn, 'class="held"' in drawn, 'class="queue"' in drawn) == (True, True, True)


def test_an_open_visit_runs_waits_or_was_cancelled() -> None:
    """It waits for a time, a signal or a person; it was cancelled where the execution has ended."""
    rows = [visit("run", 1, 0, None), visit("wait", 1, 1, None, waits_for="timer")]
    found = [[one.visits[0].status for one in lanes_of(rows, (), is_live=is_live)] for is_live in (True, False)]
    assert found == [["RUNNING", "WAITING"], ["CANCELLED", "CANCELLED"]]


@pytest.mark.parametrize("until, label", [(40, ">queued 40.0 s<"), (1, "queued for 1.0 s, before the first step<")])
def test_the_time_in_a_queue_is_drawn(until: float, label: str) -> None:
    """Before the first step, with a label where it has room; nothing of an execution that was never queued."""
    lanes = lanes_of([visit("a", 1, 50, 60)], (), is_live=True)
    spans = ExecutionSpans(1, "story", START, at(100), is_live=True, lanes=lanes)
    drawn = TimeChart(spans._replace(queued_until=at(until))).svg()
    assert (label in drawn, "queued" in TimeChart(spans).svg()) == (True, False)


def test_thousands_of_visits_become_few_bars() -> None:
    """None is lost, and the worst status of a bar's visits shows."""
    rows = [visit("tick", number, number / 50, number / 50 + 0.01) for number in range(5_000)]
    rows[2_500]["status"] = "FAILED"
    drawn = chart(rows)
    [found] = bars(drawn)
    assert (sum(number for _, number in found), len(found) < 40, [one for one, _ in found].count("FAILED")) == (
        5_000,
        True,
        1,
    )
    assert len(drawn.svg(style=False)) < 20_000


def test_visits_at_the_same_time_are_below_each_other() -> None:
    """At most four rows; then they overlap no more, and the lane says how many have no room."""
    rows = [visit("load", number, 10, 60) for number in range(6)]
    [lane] = chart(rows).lanes
    assert ([len(row) for row in lane.rows], lane.hidden) == ([1, 1, 1, 1], 2)


def test_names_are_text_and_steps_are_links() -> None:
    """Also where a name is hostile."""
    hostile = '<img src=x onerror=alert(1)> "q"'
    svg = chart([visit(hostile, 1, 0, 5)], link=lambda step, number: f"?step={len(step)}&visit={number}").svg()
    assert ("<img" in svg, "&lt;img" in svg, 'href="?step=32&amp;visit=1"' in svg) == (False, True, True)


def test_a_turn_is_marked() -> None:
    """At its moment."""
    drawn = chart([visit("load", 1, 0, 100)], at=at(50), names=False)
    assert (drawn.x_of(at(50)) - drawn.x_of(at(0)), 'class="cursor"' in drawn.svg()) == (330.0, True)


def test_names_stand_beside_their_lanes() -> None:
    """For a page that shows them in a column of its own."""
    drawn = chart([visit("load", 1, 0, 5), visit("check", 1, 5, 9)], names=False)
    assert lane_heights(drawn) == [("load", 26.0), ("check", 26.0)]

"""Pauses in a simulation: nothing is entered and no job begins until the execution is resumed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from noetl_broker import SimulationFault, delayed, simulate
from noetl_broker.history.story import STORY_START

HEAD = "apiVersion: noetl.io/v1\nkind: Playbook\nmetadata: {name: p, path: p}\n"
TWO = (
    HEAD
    + """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: "def main(): ...", next: b}
- {step: b, type: python, code: "def main(): ...", next: end}
- {step: end}
"""
)


def test_a_paused_execution_goes_on_when_it_is_resumed() -> None:
    """What a worker has begun ends meanwhile."""
    story = simulate(
        TWO, {"a": delayed(1, after="2h"), "b": 2}, pauses=[{"after": "1h", "for": "1d", "reason": "count"}]
    )
    assert (story.status, story.result, story.waited.days) == ("COMPLETED", 2, 1)
    assert [visit.began_at for visit in story.visits("b")] == [STORY_START + timedelta(hours=25)]
    assert '> execution_pause {"reason": "count"}' in story.text.splitlines()


def test_a_job_of_a_paused_execution_is_held() -> None:
    """Without a resume it stays; the deadline counts all the same."""
    story = simulate(TWO, {"a": 1, "b": 2}, pauses=[{}])
    assert (story.status, story.jobs) == ("PAUSED", ())
    late = simulate(TWO.replace("path: p}", "path: p, deadline: 60}"), {"a": 1, "b": 2}, pauses=[{"for": "2m"}])
    assert (late.status, late.error["type"]) == ("FAILED", "deadline")


def test_a_child_is_paused_with_its_parent() -> None:
    """And resumed with it."""
    body = "workflow:\n- {step: start, next: call}\n- {step: call, type: playbook, path: child}\n"
    story = simulate(
        HEAD + body,
        {"a": 1, "b": 2},
        playbooks=[TWO.replace(" p}", " child}").replace("name: p", "name: child")],
        pauses=[{"for": "1h", "reason": "count"}],
    )
    assert (story.status, story.result) == ("COMPLETED", 2)
    assert [line for line in story.children[0].text.splitlines() if "parent_execution_id" in line] == [
        '> execution_pause {"parent_execution_id": 1, "reason": "count"}',
        '    event execution_paused {"reason": "count", "parent_execution_id": 1}',
        '> execution_resume {"parent_execution_id": 1}',
    ]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ("1h", "pauses[0] is '1h'; write a mapping with some of after, for, reason"),
        ({"until": "1h"}, "pauses[0] is {'until': '1h'}; write a mapping with some of after, for, reason"),
        ({"for": "soon"}, "pauses[0]: for is 'soon', not a number of seconds, 90s, 15m, 2h30m, 3d, 2w or P3DT12H"),
    ],
)
def test_a_wrong_pause_is_refused(wrong: Any, message: str) -> None:
    """With what to write."""
    with pytest.raises(SimulationFault) as caught:
        simulate(TWO, {"a": 1, "b": 2}, pauses=[wrong])
    assert str(caught.value) == message

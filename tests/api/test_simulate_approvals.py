"""`simulate` decides approvals: at once, later, or never."""

from __future__ import annotations

import pytest

from noetl_broker import SimulationFault, delayed, in_turn, simulate
from tests.stories import document

ORDER = document("""
workflow:
- {step: start, next: ask}
- step: ask
  type: approval
  title: "Order {{ workload.order }}"
  form: {discount: {type: number, maximum: 30, default: 0}}
  timeout: 3d
  next: [{when: "{{ ask.approved }}", step: end}, {else: [{step: change}]}]
- {step: change, type: python, code: result = 1, next: ask}
- {step: end, result: {by: "{{ ask.by }}", discount: "{{ ask.discount }}"}}
""")
YES = {"approved": True}


def test_an_approval_is_decided_at_once() -> None:
    """By `tester`; fields that are left out have their defaults."""
    story = simulate(ORDER, payload={"order": 7}, approvals={"ask": True})
    assert (story.status, story.result) == ("COMPLETED", {"by": "tester", "discount": 0})


def test_a_decision_fills_in_the_form() -> None:
    """As the result has it."""
    story = simulate(ORDER, payload={"order": 7}, approvals={"ask": {"approved": True, "by": "ann", "discount": 5}})
    assert story.result == {"by": "ann", "discount": 5}


def test_each_visit_has_its_decision() -> None:
    """A function sees what is asked."""
    story = simulate(
        ORDER,
        {"change": 1},
        payload={"order": 7},
        approvals={"ask": in_turn({"approved": False}, lambda shown: {"approved": True, "by": shown["title"]})},
    )
    assert story.result == {"by": "Order 7", "discount": 0}


def test_a_decision_comes_later() -> None:
    """The clock jumps to it, or to the timeout."""
    story = simulate(ORDER, payload={"order": 7}, approvals={"ask": delayed(YES, after="2d")})
    assert (story.status, story.waited.days) == ("COMPLETED", 2)
    story = simulate(ORDER, payload={"order": 7}, approvals={"ask": delayed(YES, after="4d")})
    assert (story.status, story.error["message"], story.waited.days) == ("FAILED", "nobody decided in time", 3)


def test_nobody_decides() -> None:
    """The approval times out."""
    assert simulate(ORDER, payload={"order": 7}, approvals={"ask": None}).error["type"] == "timeout"


@pytest.mark.parametrize(
    "approvals, complaint",
    [
        ({}, r"step ask of story waits for a person; decide in simulate: approvals=\{'ask': True\}"),
        ({"asc": True}, r'approvals\[.asc.\]: there is no such step; did you mean "ask"\?'),
        ({"ask": "yes"}, r"approvals\['ask'\] is 'yes'; write True, False, None"),
        ({"ask": {"approved": True, "discount": 40}}, "does not fit the form: discount is 40, the most is 30"),
        ({"ask": in_turn()}, "needs one more decision than the 0"),
    ],
)
def test_a_wrong_decision_is_named(approvals: dict[str, object], complaint: str) -> None:
    """With what to write instead."""
    with pytest.raises(SimulationFault, match=complaint):
        simulate(ORDER, payload={"order": 7}, approvals=approvals)

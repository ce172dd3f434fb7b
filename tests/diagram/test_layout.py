"""Layouts: boxes and labels never overlap."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noetl_broker.diagram import layout
from noetl_broker.diagram.layout import Box, EdgeSpec, Plan, Size, place
from noetl_broker.errors import OperatorFault

SIZES = st.builds(Size, st.sampled_from([60, 120, 250]), st.sampled_from([30, 60, 90]))
LABELS = st.none() | st.builds(Size, st.sampled_from([20, 90, 200]), st.sampled_from([19, 45]))


@st.composite
def workflows(draw: st.DrawFn) -> tuple[list[Size], list[EdgeSpec]]:
    """Boxes with any edges between them: parallel ones, loops, self-loops, boxes without edges."""
    sizes = draw(st.lists(SIZES, min_size=1, max_size=12))
    ends = st.integers(0, len(sizes) - 1)
    return sizes, draw(st.lists(st.builds(EdgeSpec, ends, ends, LABELS), max_size=20))


def meets(one: Box, other: Box) -> bool:
    """Whether two rectangles overlap, with a tolerance for floating point."""
    return (
        one.x < other.x + other.width - 0.01
        and other.x < one.x + one.width - 0.01
        and one.y < other.y + other.height - 0.01
        and other.y < one.y + one.height - 0.01
    )


def everything(plan: Plan) -> list[Box]:
    """All boxes and all labels."""
    return [*plan.boxes, *(route.label for route in plan.routes if route.label is not None)]


@settings(max_examples=150, deadline=None)
@given(workflows())
def test_no_two_boxes_and_labels_overlap(workflow: tuple[list[Size], list[EdgeSpec]]) -> None:
    """Each step and each label has a place of its own."""
    assert [pair for pair in combinations(everything(place(*workflow)), 2) if meets(*pair)] == []


@settings(max_examples=50, deadline=None)
@given(workflows())
def test_boxes_keep_their_sizes_and_lie_within_the_drawing(workflow: tuple[list[Size], list[EdgeSpec]]) -> None:
    """They are drawn as they were measured."""
    sizes, wires = workflow
    plan = place(sizes, wires)
    assert [(box.width, box.height) for box in plan.boxes] == [(size.width, size.height) for size in sizes]
    assert [route.label and Size(route.label.width, route.label.height) for route in plan.routes] == [
        wire.label for wire in wires
    ]
    edges = [(box.x, box.y, plan.size.width - box.x - box.width, plan.size.height - box.y - box.height)
             for box in everything(plan)]  # fmt: skip
    assert min(min(distances) for distances in edges) > -0.01


def test_a_missing_layout_library_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra `graph` is optional."""
    monkeypatch.setattr(layout, "graphlay", None)
    with pytest.raises(OperatorFault, match=r"pip install 'noetl-broker\[graph\]'"):
        place([Size(10, 10)], [])

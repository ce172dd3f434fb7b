"""Where everything stands: the layout library finds the places, and nothing here knows what is in the boxes.

A label is a box of its own on its arc, so that the library keeps it clear of steps, arcs and other labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from noetl_broker.errors import OperatorFault

try:
    import graphlay
except ImportError:  # the optional part `graph` is not installed
    graphlay = None  # type: ignore[assignment]

Point = tuple[float, float]

SPACING = {"layer_gap": 30.0, "node_gap": 36.0, "dummy_gap": 26.0}
# Arcs that may leave and enter at the sides read best where a workflow branches and loops; where they would cross more
# often than arcs that run from the lower edge to the upper one, those are taken.
PORT_SIDES = ("any", "facing_preferred")
# What is wrong with a drawing, the worst first.
FAULTS = ("node_edge_hits", "overlaps", "crossings")
# Boxes and labels up to which the library may take its time: 0.2 s.
FEW = 150


class Size(NamedTuple):
    """Width and height."""

    width: float
    height: float


class Box(NamedTuple):
    """A rectangle by its upper left corner."""

    x: float
    y: float
    width: float
    height: float


class Wire(NamedTuple):
    """An arc to be placed, between two boxes by their places in the list; `label` None: it has none."""

    source: int
    target: int
    label: Size | None = None


class Route(NamedTuple):
    """An arc in its place: one line of points, or two with the label between them."""

    paths: tuple[tuple[Point, ...], ...]
    label: Box | None


class Plan(NamedTuple):
    """Everything in its place, in the order in which it was given; the corner of the whole is (0, 0)."""

    boxes: tuple[Box, ...]
    routes: tuple[Route, ...]
    size: Size


def place(sizes: Sequence[Size], wires: Sequence[Wire]) -> Plan:
    """Find a place for each box and each arc; OperatorFault where the library is not installed."""
    if graphlay is None:
        raise OperatorFault(
            "an SVG needs a library that is not installed; "
            "pip install 'noetl-broker[graph]' brings it, --format mermaid does without"
        )
    graph = graphlay.Graph()
    for size in sizes:
        graph.node(width=size.width, height=size.height)
    legs = [_connect(graph, wire) for wire in wires]
    plan = _plan(_best_layout(graph), len(sizes), legs)
    return _mirrored(plan) if _runs_backwards(plan, wires) else plan


def _best_layout(graph: Any) -> Any:
    effort = "thorough" if len(graph.nodes) <= FEW else "balanced"
    options = [{"spacing": SPACING, "routing": {"port_sides": sides}, "effort": effort} for sides in PORT_SIDES]
    return min((graphlay.layout(graph, preset="process_map", options=option) for option in options), key=_faults)


def _faults(layout: Any) -> list[Any]:
    metrics = layout.metrics()
    return [metrics[name] for name in FAULTS]


def _connect(graph: Any, wire: Wire) -> tuple[int | None, tuple[int, ...]]:
    """Add an arc to the graph; gives the box of its label, and its one or two edges."""
    if wire.label is None:
        return None, (graph.edge(wire.source, wire.target),)
    label = graph.node(width=wire.label.width, height=wire.label.height)
    return label, (graph.edge(wire.source, label), graph.edge(label, wire.target))


def _plan(layout: Any, count: int, legs: Sequence[tuple[int | None, tuple[int, ...]]]) -> Plan:
    bounds = layout.bounds
    left, top = bounds["min"]["x"], bounds["min"]["y"]

    def box(index: int) -> Box:
        center, size = layout.nodes[index]["center"], layout.nodes[index]["size"]
        corner = (center["x"] - size["width"] / 2 - left, center["y"] - size["height"] / 2 - top)
        return Box(*corner, size["width"], size["height"])

    def path(index: int) -> tuple[Point, ...]:
        return tuple((point["x"] - left, point["y"] - top) for point in layout.edges[index]["points"])

    return Plan(
        tuple(box(index) for index in range(count)),
        tuple(
            Route(tuple(path(edge) for edge in edges), None if label is None else box(label)) for label, edges in legs
        ),
        Size(bounds["max"]["x"] - left, bounds["max"]["y"] - top),
    )


def _runs_backwards(plan: Plan, wires: Sequence[Wire]) -> bool:
    """Whether arcs of one box mostly stand in the opposite of their given order, from left to right."""
    leftwards = rightwards = 0
    before: dict[int, float] = {}
    for wire, route in zip(wires, plan.routes, strict=True):
        box = route.label or plan.boxes[wire.target]
        x = box.x + box.width / 2
        if wire.source in before:
            rightwards += before[wire.source] < x
            leftwards += before[wire.source] > x
        before[wire.source] = x
    return leftwards > rightwards


def _mirrored(plan: Plan) -> Plan:
    """The plan with left and right exchanged."""
    width = plan.size.width

    def box(given: Box) -> Box:
        return given._replace(x=width - given.x - given.width)

    return Plan(
        tuple(box(given) for given in plan.boxes),
        tuple(
            Route(
                tuple(tuple((width - x, y) for x, y in path) for path in route.paths),
                None if route.label is None else box(route.label),
            )
            for route in plan.routes
        ),
        plan.size,
    )

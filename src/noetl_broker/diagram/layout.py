"""Places boxes and edges with the layout library.

A label is a box on its edge, so the library keeps it away from steps, edges and other labels.
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
# Edges that leave and enter at the sides are the easiest to read. The second option is used where they would cross
# more often.
PORT_SIDES = ("any", "facing_preferred")
# The metrics of a layout that should be 0, the worst first.
FAULTS = ("node_edge_hits", "overlaps", "crossings")
# Boxes and labels up to which the thorough layout takes at most 0.2 s.
FEW = 150


class MissingLibrary(OperatorFault):
    """The layout library is not installed."""


class Size(NamedTuple):
    """Width and height."""

    width: float
    height: float


class Box(NamedTuple):
    """A rectangle; `x` and `y` are its upper left corner."""

    x: float
    y: float
    width: float
    height: float


class EdgeSpec(NamedTuple):
    """An edge to place, between two boxes by their places in the list; `label` is None if it has none."""

    source: int
    target: int
    label: Size | None = None


class Route(NamedTuple):
    """A placed edge: one line of points, or two with the label between them."""

    paths: tuple[tuple[Point, ...], ...]
    label: Box | None


class Plan(NamedTuple):
    """All boxes and edges with their places, in the given order; the upper left corner is (0, 0)."""

    boxes: tuple[Box, ...]
    routes: tuple[Route, ...]
    size: Size


def place(sizes: Sequence[Size], specs: Sequence[EdgeSpec]) -> Plan:
    """Place all boxes and edges. Raises MissingLibrary."""
    if graphlay is None:
        raise MissingLibrary(
            "an SVG needs a library that is not installed: pip install 'noetl-broker[graph]'; "
            "--format mermaid does not need it"
        )
    graph = graphlay.Graph()
    for size in sizes:
        graph.node(width=size.width, height=size.height)
    legs = [_connect(graph, spec) for spec in specs]
    plan = _plan(_best_layout(graph), len(sizes), legs)
    return _mirrored(plan) if _runs_backwards(plan, specs) else plan


def _best_layout(graph: Any) -> Any:
    effort = "thorough" if len(graph.nodes) <= FEW else "balanced"
    options = [{"spacing": SPACING, "routing": {"port_sides": sides}, "effort": effort} for sides in PORT_SIDES]
    return min((graphlay.layout(graph, preset="process_map", options=option) for option in options), key=_faults)


def _faults(layout: Any) -> list[Any]:
    metrics = layout.metrics()
    return [metrics[name] for name in FAULTS]


def _connect(graph: Any, spec: EdgeSpec) -> tuple[int | None, tuple[int, ...]]:
    """Add an edge to the graph; gives the box of its label, and its one or two parts."""
    if spec.label is None:
        return None, (graph.edge(spec.source, spec.target),)
    label = graph.node(width=spec.label.width, height=spec.label.height)
    return label, (graph.edge(spec.source, label), graph.edge(label, spec.target))


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


def _runs_backwards(plan: Plan, specs: Sequence[EdgeSpec]) -> bool:
    """Whether the edges of a box are mostly in reverse order, from left to right."""
    leftwards = rightwards = 0
    before: dict[int, float] = {}
    for spec, route in zip(specs, plan.routes, strict=True):
        box = route.label or plan.boxes[spec.target]
        x = box.x + box.width / 2
        if spec.source in before:
            rightwards += before[spec.source] < x
            leftwards += before[spec.source] > x
        before[spec.source] = x
    return leftwards > rightwards


def _mirrored(plan: Plan) -> Plan:
    """The plan, mirrored."""
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

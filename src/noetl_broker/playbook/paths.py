"""Warns of the workflow's paths: steps nobody reaches, loops without a way out, joins that mix what they should not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import product

from noetl_broker.playbook.findings import Place
from noetl_broker.playbook.graph import Graph
from noetl_broker.playbook.model import Arc, Entry, Playbook, Step, Target
from noetl_broker.playbook.overlap import alternatives, exclude_each_other, first_overlap
from noetl_broker.playbook.reading import MADE, Reading
from noetl_broker.playbook.vocabulary import END, START
from noetl_broker.playbook.work import Work

SHOWN_STEPS = 20  # of a loop
MOST_PAIRS = 2_000  # of conditions compared in one step
Places = Mapping[str, Place]
Ways = Mapping[str, list[Target]]


def warn_unreachable(reading: Reading, playbook: Playbook, places: Places) -> None:
    """Warn of each step that no path from `start` comes to."""
    reached = playbook.graph.reached_from(START)
    for name, place in places.items():
        if name != START and name not in reached:
            reading.report.warning(
                "unreachable",
                place,
                f"no path from `start` leads to the step `{name}`",
                "add it to a `next`, or remove it",
            )


def warn_loops(reading: Reading, playbook: Playbook, places: Places) -> None:
    """Warn of each loop that no condition can leave, and of each that only routers make."""
    routers = frozenset(
        name for name, step in playbook.steps.items() if step.kind == "control" and name not in (START, END)
    )
    for ring in _loops(reading, playbook, routers):
        shown = _shown(ring)
        reading.report.warning(
            "router-ring",
            places[ring[0]],
            f"the loop {shown} has only routers",
            "let a step with an action stand in it",
        )
    graph = _until_end(playbook)
    for step in playbook.steps.values():
        reading.work.spend(len(step.next) * sum(entry.kind == "when" for entry in step.next) // MADE)
    endless = frozenset(name for name, step in playbook.steps.items() if not can_leave(step, _around(graph, name)))
    endless -= {END}
    for loop in _loops(reading, playbook, endless):
        if routers.issuperset(loop):
            continue
        shown = _shown(loop)
        reading.report.warning(
            "endless-loop",
            places[loop[0]],
            f"the loop {shown} has no conditional way out",
            'give one of its steps a `when`, such as {when: "{{ … }}", step: …}',
        )


def _shown(loop: tuple[str, ...]) -> str:
    """Write a loop; of a long one its beginning and its end."""
    steps = (*loop, loop[0])
    if len(steps) > SHOWN_STEPS:
        steps = (*steps[: SHOWN_STEPS // 2], "…", *steps[-SHOWN_STEPS // 2 :])
    return " → ".join(steps)


def _until_end(playbook: Playbook) -> Graph:
    """Give the graph without what leads on from `end`: that is an error of its own, and makes no loop."""
    if playbook.end is None or not playbook.end.next:
        return playbook.graph
    return Graph([*playbook.steps], [(arc.source, arc.target) for arc in playbook.arcs if arc.source != END]).close()


def _around(graph: Graph, name: str) -> frozenset[str]:
    """Give the successors from which a step can be reached again."""
    return frozenset(target for target in graph.successors(name) if target == name or graph.can_reach(target, name))


def can_leave(step: Step, loop: frozenset[str]) -> bool:
    """Whether some outcome of the step's conditions takes no arc into `loop`."""
    conditional = [number for number, entry in enumerate(step.next) if entry.kind == "when"]
    outcomes: list[int | None] = [None, *conditional]
    if not step.next or not loop:
        return True
    return any(
        all(target.step not in loop for target in _fired(step.next, conditional, true)) for true in outcomes
    ) and bool(conditional)


def _fired(entries: tuple[Entry, ...], conditional: list[int], true: int | None) -> Iterable[Target]:
    """Give the targets when just the condition of entry `true` holds (None: no condition does)."""
    for number, entry in enumerate(entries):
        if entry.kind == "when":
            yield from entry.then if number == true else entry.otherwise
        elif entry.kind == "else":
            yield from entry.otherwise if true is None else ()
        elif true is None or not conditional or number < conditional[0]:
            yield from entry.then


def _loops(reading: Reading, playbook: Playbook, within: frozenset[str]) -> list[tuple[str, ...]]:
    """Give one loop through each group of steps that reach each other inside `within`."""
    inner = [name for name in playbook.steps if name in within]
    arcs = [(arc.source, arc.target) for arc in playbook.arcs if {arc.source, arc.target} <= within]
    graph = Graph(inner, arcs).close()
    seen: set[str] = set()
    loops = []
    for name in inner:
        if name not in seen and graph.can_reach(name, name):
            reading.work.spend(len(inner))
            loop = graph.cycle(name)
            loops.append(loop)
            seen |= {other for other in graph.reached_from(name) if graph.can_reach(other, name)}
    return loops


def warn_overlaps(reading: Reading, playbook: Playbook, places: Places) -> None:
    """Warn where two conditions of one `next` can both be true: both then fire."""
    for name, step in playbook.steps.items():
        if step.exclusive or sum(entry.kind == "when" for entry in step.next) < 2:  # noqa: PLR2004 - a pair
            continue
        conditions = []
        for number, entry in enumerate(step.next):
            found = alternatives(entry.condition.source) if entry.condition is not None else None
            if found is not None:
                conditions.append((number, found))
        single = not isinstance(step.raw.get("next"), list)
        for number, earlier in first_overlap(conditions, MOST_PAIRS, reading.work):
            place: Place = (*places[name][:-1], "next") if single else (*places[name][:-1], "next", number)
            other, _ = reading.report.positions.where((*places[name][:-1], "next", earlier))
            reading.report.warning(
                "overlapping-when",
                place,
                f"this condition and the one on line {other} can both be true, and then both fire",
                "write next_mode: exclusive on the step, or let one exclude the other",
            )


def warn_joins(reading: Reading, playbook: Playbook, places: Places) -> None:
    """Warn where two arcs give an `all` join one input, and where a template would mix the visits of an `each` join."""
    arriving: dict[str, list[Target]] = defaultdict(list)
    for step in playbook.steps.values():
        for entry in step.next:
            for target in (*entry.then, *entry.otherwise):
                arriving[target.step].append(target)
    for name, targets in arriving.items():
        if playbook.steps[name].join == "all":
            _warn_same_key(reading, playbook, name, targets, places)
    _warn_mixed(reading, playbook)


def _warn_same_key(reading: Reading, playbook: Playbook, name: str, targets: list[Target], places: Places) -> None:
    giving: dict[str, list[Target]] = defaultdict(list)
    for target in targets:
        for key in target.inputs.keys:
            giving[key].append(target)
    shared = {target.arc: target for group in giving.values() if len(group) > 1 for target in group}
    reading.work.spend(len(shared) * (len(playbook.arcs) + len(playbook.steps)))
    ways = {arc: _ways(playbook, name, target) for arc, target in shared.items()}
    pairs = 0
    for key, group in giving.items():
        for place, target in enumerate(group):
            other = None
            for earlier in group[:place]:
                pairs += 1
                if pairs > MOST_PAIRS:
                    return
                if _meet(reading.work, playbook, ways[earlier.arc], ways[target.arc]):
                    other = earlier
                    break
            if other is None:
                continue
            sources = [playbook.arcs[arc.arc].source for arc in (other, target)]
            reading.report.warning(
                "join-input",
                places[name],
                f"the join `{name}` gets the input `{key}` from `{sources[0]}` and `{sources[1]}`: the later arc wins",
                "give the two different names",
            )


def _ways(playbook: Playbook, join: str, target: Target) -> Ways:
    """Give the arcs by which a token may come to an arc into a join, not passing the join itself: by their sources.

    What has passed the join does not meet what waits there: the join was released when nothing else could reach it.
    """
    source, avoiding = playbook.arcs[target.arc].source, frozenset({join})
    ways: dict[str, list[Target]] = {}
    for name, step in playbook.steps.items():
        for entry in step.next:
            for way in (*entry.then, *entry.otherwise):
                leads = way.step == source or playbook.graph.can_reach(way.step, source, avoiding=avoiding)
                if way.arc == target.arc or (leads and join not in (way.step, source)):
                    ways.setdefault(name, []).append(way)
    return ways


def _meet(work: Work, playbook: Playbook, one: Ways, other: Ways) -> bool:
    """Whether two tokens that part at some step may take these ways: by two of its arcs that may both be taken."""
    for source in one.keys() & other.keys():
        for left, right in product(one[source], other[source]):
            work.spend(MADE + len(playbook.steps[source].next))
            if left.arc != right.arc and not _alternative(playbook, left, right):
                return True
    return False


def _alternative(playbook: Playbook, one: Target, other: Target) -> bool:
    """Whether the conditions of one `next` show that two of its arcs are never both taken."""
    first, second = playbook.arcs[one.arc], playbook.arcs[other.arc]
    step = playbook.steps[first.source]
    if first.entry == second.entry:
        return first.branch != second.branch
    kinds = {_fires(step, first), _fires(step, second)}
    if kinds != {"then"} or step.exclusive:
        return kinds == {"then", "otherwise"} or (step.exclusive and kinds == {"then"})
    found = [alternatives(arc.condition or "") for arc in (first, second)]
    return found[0] is not None and found[1] is not None and exclude_each_other(found[0], found[1])


def _fires(step: Step, arc: Arc) -> str:
    """Tell when an arc is taken: if its condition holds ("then") or not ("else"), "otherwise", or "always"."""
    kind = step.next[arc.entry].kind
    if kind == "when":
        return arc.branch
    conditional = [number for number, entry in enumerate(step.next) if entry.kind == "when"]
    return "otherwise" if kind == "else" or (conditional and conditional[0] < arc.entry) else "always"


def _warn_mixed(reading: Reading, playbook: Playbook) -> None:
    often = _visited_often(playbook)
    for use in reading.uses:
        source = use.part.step
        for name in often & use.names if source is not None else ():
            own = source == name and use.part.role == "next"
            if not own and source is not None and playbook.graph.can_reach(name, source):
                reading.report.warning(
                    "mixed-visits",
                    use.place,
                    f"`{name}` is visited once per arrival, and this template reads the latest of all visits",
                    "read `result`, or hand the value on as an input",
                )


def _visited_often(playbook: Playbook) -> frozenset[str]:
    """Give the `each` joins, and the steps after them that nothing gathers."""
    often = {name for name, step in playbook.steps.items() if step.join == "each" and playbook.graph.incoming(name) > 1}
    fresh = list(often)
    while fresh:
        for target in playbook.graph.successors(fresh.pop()):
            if target != END and playbook.steps[target].join is None and target not in often:
                often.add(target)
                fresh.append(target)
    return frozenset(often)

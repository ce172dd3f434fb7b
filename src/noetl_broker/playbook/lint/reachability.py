"""Warns about paths: unreachable steps, loops without a way out, overlapping conditions, ambiguous joins."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import product

from noetl_broker.playbook.diagnostics import Location
from noetl_broker.playbook.graph import Graph
from noetl_broker.playbook.keywords import END, START
from noetl_broker.playbook.lint.overlapping_conditions import alternatives, exclude_each_other, first_overlap
from noetl_broker.playbook.model import Arc, Entry, Playbook, Step, Target
from noetl_broker.playbook.reader import COST_OF_COPY, Reading
from noetl_broker.playbook.work_budget import Work

SHOWN_STEPS = 20  # of a loop
MOST_PAIRS = 2_000  # of conditions compared in one step
Locations = Mapping[str, Location]
Ways = Mapping[str, list[Target]]


def warn_unreachable(reading: Reading, playbook: Playbook, locations: Locations) -> None:
    """Warn of each step that no path from `start` reaches."""
    reached = playbook.graph.reached_from(START)
    for name, location in locations.items():
        if name != START and name not in reached:
            reading.report.warning(
                "unreachable",
                location,
                f"no path from `start` leads to the step `{name}`",
                "add it to a `next`, or remove it",
            )


def warn_loops(reading: Reading, playbook: Playbook, locations: Locations) -> None:
    """Warn of each loop that no condition can leave, and of each loop of routers."""
    routers = frozenset(name for name, step in playbook.steps.items() if not step.has_action)
    for cycle in _loops(reading, playbook, routers):
        shown = _shown(cycle)
        reading.report.warning(
            "router-cycle",
            locations[cycle[0]],
            f"the loop {shown} has only routers",
            "add a step with an action to it",
        )
    graph = _until_end(playbook)
    for step in playbook.steps.values():
        reading.work.spend(len(step.next) * sum(entry.kind == "when" for entry in step.next) // COST_OF_COPY)
    endless = frozenset(name for name, step in playbook.steps.items() if not can_leave(step, _around(graph, name)))
    endless -= {END}
    for loop in _loops(reading, playbook, endless):
        if routers.issuperset(loop):
            continue
        shown = _shown(loop)
        reading.report.warning(
            "endless-loop",
            locations[loop[0]],
            f"the loop {shown} has no conditional way out",
            'give one of its steps a `when`, such as {when: "{{ … }}", step: …}',
        )


def _shown(loop: tuple[str, ...]) -> str:
    """Write a loop as text; of a long one only both ends."""
    steps = (*loop, loop[0])
    if len(steps) > SHOWN_STEPS:
        steps = (*steps[: SHOWN_STEPS // 2], "…", *steps[-SHOWN_STEPS // 2 :])
    return " → ".join(steps)


def _until_end(playbook: Playbook) -> Graph:
    """Give the graph without arcs from `end`, which are an error of their own."""
    if playbook.end is None or not playbook.end.next:
        return playbook.graph
    return Graph([*playbook.steps], [(arc.source, arc.target) for arc in playbook.arcs if arc.source != END]).close()


def _around(graph: Graph, name: str) -> frozenset[str]:
    """Give the successors of a step that can reach it again."""
    return frozenset(target for target in graph.successors(name) if target == name or graph.can_reach(target, name))


def can_leave(step: Step, loop: frozenset[str]) -> bool:
    """Whether some outcome of the step's conditions takes no arc into `loop`."""
    conditional = [number for number, entry in enumerate(step.next) if entry.kind == "when"]
    outcomes: list[int | None] = [None, *conditional]
    if not loop or not any(target.step in loop for entry in step.next for target in (*entry.then, *entry.otherwise)):
        return True
    if any(target.step not in loop for entry in step.catch for target in entry.then):
        return True  # by a failure
    return any(
        all(target.step not in loop for target in _fired(step.next, conditional, true)) for true in outcomes
    ) and bool(conditional)


def _fired(entries: tuple[Entry, ...], conditional: list[int], true: int | None) -> Iterable[Target]:
    """Give the targets that fire if only the condition of entry `true` holds (None: no condition)."""
    for number, entry in enumerate(entries):
        if entry.kind == "when":
            yield from entry.then if number == true else entry.otherwise
        elif entry.kind == "else":
            yield from entry.otherwise if true is None else ()
        elif true is None or not conditional or number < conditional[0]:
            yield from entry.then


def _loops(reading: Reading, playbook: Playbook, within: frozenset[str]) -> list[tuple[str, ...]]:
    """Give one loop of each group of steps that reach each other within these steps."""
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


def warn_overlaps(reading: Reading, playbook: Playbook, locations: Locations) -> None:
    """Warn of two conditions of one `next` that can both be true: then both fire."""
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
            location: Location = (*locations[name][:-1], "next") if single else (*locations[name][:-1], "next", number)
            other, _ = reading.report.positions.where((*locations[name][:-1], "next", earlier))
            reading.report.warning(
                "overlapping-when",
                location,
                f"this condition and the one on line {other} can both be true, and then both fire",
                "write next_mode: exclusive on the step, or let one exclude the other",
            )


def warn_joins(reading: Reading, playbook: Playbook, locations: Locations) -> None:
    """Warn of two arcs that give a join the same input. Warn of templates that mix visits of an `each` join."""
    arriving: dict[str, list[Target]] = defaultdict(list)
    for step in playbook.steps.values():
        for target in step.targets:
            arriving[target.step].append(target)
    for name, targets in arriving.items():
        if playbook.steps[name].join == "all" or playbook.steps[name].need > 1:
            _warn_same_key(reading, playbook, name, targets, locations)
    _warn_mixed(reading, playbook)


def _warn_same_key(
    reading: Reading, playbook: Playbook, name: str, targets: list[Target], locations: Locations
) -> None:
    giving: dict[str, list[Target]] = defaultdict(list)
    for target in targets:
        for key in target.inputs.keys:
            giving[key].append(target)
    shared = {target.arc: target for group in giving.values() if len(group) > 1 for target in group}
    reading.work.spend(len(shared) * (len(playbook.arcs) + len(playbook.steps)))
    ways = {arc: _ways(playbook, name, target) for arc, target in shared.items()}
    pairs = 0
    for key, group in giving.items():
        for index, target in enumerate(group):
            other = None
            for earlier in group[:index]:
                pairs += 1
                if pairs > MOST_PAIRS:
                    return
                if _can_both_arrive(reading.work, playbook, ways[earlier.arc], ways[target.arc]):
                    other = earlier
                    break
            if other is None:
                continue
            sources = [playbook.arcs[arc.arc].source for arc in (other, target)]
            reading.report.warning(
                "join-input",
                locations[name],
                f"the join `{name}` gets the input `{key}` from `{sources[0]}` and `{sources[1]}`: the later arc wins",
                "give the two different names",
            )


def _ways(playbook: Playbook, join: str, target: Target) -> Ways:
    """Give the arcs on the ways to an arc into a join that avoid the join, by their sources.

    A token that passed the join never meets a waiting token: the join ran when no other token could reach it.
    """
    source, avoiding = playbook.arcs[target.arc].source, frozenset({join})
    ways: dict[str, list[Target]] = {}
    for name, step in playbook.steps.items():
        for way in step.targets:
            leads = way.step == source or playbook.graph.can_reach(way.step, source, avoiding=avoiding)
            if way.arc == target.arc or (leads and join not in (way.step, source)):
                ways.setdefault(name, []).append(way)
    return ways


def _can_both_arrive(work: Work, playbook: Playbook, one: Ways, other: Ways) -> bool:
    """Whether two tokens can take these paths: some step has two of the arcs, and both can fire."""
    for source in one.keys() & other.keys():
        for left, right in product(one[source], other[source]):
            work.spend(COST_OF_COPY + len(playbook.steps[source].next))
            if left.arc != right.arc and not _alternative(playbook, left, right):
                return True
    return False


def _alternative(playbook: Playbook, one: Target, other: Target) -> bool:
    """Whether two arcs of one `next` never both fire, as its conditions show."""
    first, second = playbook.arcs[one.arc], playbook.arcs[other.arc]
    step = playbook.steps[first.source]
    if "catch" in {first.branch, second.branch}:  # of a `catch` one entry fires, and nothing of the `next`
        return first.branch != second.branch or first.entry != second.entry
    if first.entry == second.entry:
        return first.branch != second.branch
    kinds = {_fires(step, first), _fires(step, second)}
    if kinds != {"then"} or step.exclusive:
        return kinds == {"then", "otherwise"} or (step.exclusive and kinds == {"then"})
    found = [alternatives(arc.condition or "") for arc in (first, second)]
    return found[0] is not None and found[1] is not None and exclude_each_other(found[0], found[1])


def _fires(step: Step, arc: Arc) -> str:
    """Give when an arc fires: its condition is true ("then") or false ("else"), "otherwise", "always"."""
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
                    use.location,
                    f"`{name}` is visited once per arrival, and this template reads the latest of all visits",
                    "read `result`, or hand the value on as an input",
                )


def _visited_often(playbook: Playbook) -> frozenset[str]:
    """Give the `each` joins, and the steps after them up to the next join."""
    often = {name for name, step in playbook.steps.items() if step.join == "each" and playbook.graph.incoming(name) > 1}
    fresh = list(often)
    while fresh:
        for target in playbook.graph.successors(fresh.pop()):
            if target != END and playbook.steps[target].join is None and target not in often:
                often.add(target)
                fresh.append(target)
    return frozenset(often)

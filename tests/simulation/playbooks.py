"""Random plans from a seed: branches, fan-outs, joins, routers, loops, retries, children, iterators, failures."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any, Literal

from tests.simulation.expressions import Compare, Constant, FailedItems, Fallback, Plus, Read, Value
from tests.simulation.plans import Entry, Inputs, Iterate, Kind, Plan, Retry, Step, Target
from tests.simulation.values import Values

NAMES = "abcdefghijkl"
WORKLOAD = {"size": 3, "mode": "quick", "deep": {"x": 4, "y": [1, 2]}, "sizes": {"long": 5, "s": 2, "mid": 4}}
WIDE = 130  # items of an iterator: more than one turn starts


def plan(seed: int, *, calm: bool = False) -> Plan:
    """Return the plan of a seed; the same seed gives the same plan, on every machine.

    A calm one ends alike in whatever order its actions end: no races, no loops, nothing that reads a step beside it.
    """
    chance = Random(f"plan {seed}")
    nesting = chance.choice((0, 0, 1, 1, 2))
    return _plan(chance, "main", nesting, steps=chance.randint(2, 9), calm=calm)


def _plan(chance: Random, path: str, nesting: int, *, steps: int, calm: bool) -> Plan:
    few = chance.randint(1, 4)
    children = (_plan(chance, f"{path}-child", nesting - 1, steps=few, calm=calm),) if nesting else ()
    names = [*NAMES[:steps]]
    written = [_Author(chance, names, at, children, calm=calm).step() for at in range(-1, steps)]
    written = _reached(chance, written)
    if chance.random() < 0.3:
        first, *others = written
        chance.shuffle(others)
        written = [first, *others]
    if any(target.step == "end" for step in written for entry in step.entries for target in _targets(entry)):
        written.append(_end(chance, names, calm=calm))
    return Plan(
        path=path,
        steps=tuple(written),
        workload=WORKLOAD,
        max_visits=60 if calm else chance.choice((60, 60, 60, 12)),
        deadline=chance.randint(2, 30) if not calm and chance.random() < 0.03 else None,
        children=children,
    )


def _targets(entry: Entry) -> tuple[Target, ...]:
    return entry.then + entry.otherwise


def _reached(chance: Random, steps: list[Step]) -> list[Step]:
    """Add an arc from an earlier step to each step that none leads to."""
    for at in range(1, len(steps)):
        name = steps[at].name
        if not any(target.step == name for step in steps[:at] for entry in step.entries for target in _targets(entry)):
            source = chance.randrange(at)
            entries = (Entry(then=(Target(name),)), *steps[source].entries)
            steps[source] = replace(steps[source], entries=entries)
    return steps


class _Author:
    """Who writes one step: knows which steps stand before it and after it."""

    def __init__(self, chance: Random, names: list[str], at: int, children: tuple[Plan, ...], *, calm: bool) -> None:
        self.chance = chance
        self.names = names
        self.at = at
        self.children = children
        self.calm = calm
        self.name = "start" if at < 0 else names[at]
        self.values = Values(chance, self.name, names, names[: at + 1] or names[:1], calm=calm)

    def step(self) -> Step:
        """Write the step."""
        kind = self._kind()
        entries = self._entries()
        is_task = kind in {"action", "playbook"}
        continues = self._now(0.35) if is_task else kind == "iterator" and self._now(0.6)
        return Step(
            name=self.name,
            kind=kind,
            entries=entries,
            exclusive=self._now(0.25) and any(entry.when is not None for entry in entries),
            join=self._join(),
            inputs=() if kind == "iterator" else self.values.inputs(0.3),
            retry=self._retry() if is_task and self._now(0.3 if kind == "action" else 0.6) else None,
            on_error="continue" if continues else "fail",
            timeout=self.chance.randint(1, 3) if kind != "router" and not self.calm and self._now(0.06) else None,
            path=self.children[0].path if kind == "playbook" else None,
            return_step=self._asked_for() if kind == "playbook" and self._now(0.3) else None,
            iterate=self._iterate() if kind == "iterator" else None,
        )

    def _asked_for(self) -> str | None:
        """Return a step of the child whose data the parent wants."""
        return "a" if any(step.name == "a" for step in self.children[0].steps) else None

    def _now(self, odds: float) -> bool:
        return self.chance.random() < odds

    def _kind(self) -> Kind:
        if self.at < 0:
            return "action" if self._now(0.1) else "router"
        if self.children and self._now(0.2):
            return "playbook"
        kinds: tuple[Kind, ...] = ("action", "router", "iterator")
        return self.chance.choices(kinds, (75, 18, 7))[0]

    def _join(self) -> Literal["all", "any", "each"] | None:
        if self.at < 0 or self.calm:
            return None
        joins: tuple[Literal["all", "any", "each"] | None, ...] = (None, "all", "any", "each")
        return self.chance.choices(joins, (70, 6, 14, 10))[0]

    # Transitions.

    def _entries(self) -> tuple[Entry, ...]:
        shape = self.chance.choices(("one", "several", "choice", "mixed", "none"), (38, 20, 24, 10, 8))[0]
        if shape == "none" and self.at >= 0:
            return ()
        if shape == "choice":
            entries = self._choice()
        elif shape == "mixed":
            entries = [self._plain(), *self._choice(), self._plain()]
            if self._now(0.5):
                entries = entries[1:]
        else:
            entries = [self._plain() for _ in range(1 if shape != "several" else self.chance.randint(2, 3))]
        if self.at >= 0 and not self.calm and self._now(0.16):
            entries = self._loop(entries)
        return tuple(entries)

    def _choice(self) -> list[Entry]:
        entries = [self._conditional() for _ in range(self.chance.randint(1, 2))]
        if self._now(0.5):
            entries.insert(self.chance.choice((0, len(entries), len(entries))), Entry(otherwise=(self._target(),)))
        return entries

    def _plain(self) -> Entry:
        return Entry(then=(self._target(),), inputs=self.values.inputs(0.2))

    def _conditional(self) -> Entry:
        then = tuple(self._target() for _ in range(self.chance.choice((1, 1, 1, 2))))
        otherwise = (self._target(),) if self._now(0.25) else ()
        return Entry(then=then, when=self.values.condition(), otherwise=otherwise, inputs=self.values.inputs(0.2))

    def _loop(self, entries: list[Entry]) -> list[Entry]:
        """Write a way back, taken while a count is small or while results say so."""
        back = self.names[self.chance.randint(0, self.at)]
        if self._now(0.5):
            again = Compare(Fallback(Read("n"), 0), "<", Constant(self.chance.randint(1, 2)))
            inputs: Inputs = (("n", Plus(Fallback(Read("n"), 0), 1)),)
        else:
            again, inputs = Compare(Fallback(Read("result", ("x",)), 9), "<", Constant(self.chance.randint(2, 5))), ()
        if self._now(0.5):
            return [Entry(then=(Target(back),), when=again, inputs=inputs, otherwise=_targets(entries[0]))]
        return [Entry(then=(Target(back),), when=again, inputs=inputs), *entries]

    def _target(self) -> Target:
        later = self.names[self.at + 1 :]
        name = self.chance.choice(later[:4]) if later and self._now(0.85) else "end"
        return Target(name, self.values.inputs(0.06))

    # Work.

    def _retry(self) -> Retry:
        again = None
        if self._now(0.3):
            again = self.chance.choice(
                (
                    Compare(Read("status_code"), ">=", Constant(500)),
                    Compare(Read("error"), "==", Constant("busy")),
                    Compare(Read("attempt"), "<", Constant(2)),
                    Compare(Read("result", ("x",)), "==", Constant(1)),
                )
            )
        return Retry(
            max_attempts=self.chance.randint(1, 4),
            initial_delay=self.chance.choice((0, 1, 5)),
            backoff_multiplier=self.chance.choice((1, 2, 3)),
            max_delay=self.chance.choice((4, 60)),
            retry_when=again,
            stop_when=Compare(Read("status_code"), "==", Constant(400)) if self._now(0.2) else None,
        )

    def _iterate(self) -> Iterate:
        size = self.chance.choice((0, 1, 2, 3, 5))
        collection: Value = Constant([self.chance.randint(0, 9) for _ in range(size)])
        path = self.children[0].path if self.children and self._now(0.6) else None
        by_worker = path is None and self._now(0.2)
        concurrency = self.chance.choice((None, 1, 2, 3))
        item = Read("item")
        if path is None and not by_worker and self._now(0.02):
            collection, concurrency = Constant([*range(WIDE)]), WIDE
        elif self._now(0.4):
            collection = Fallback(Read("result" if self.calm else self.chance.choice(self.names), ("items",)), [1, 2])
        elif self._now(0.2):
            collection, item = Read("workload", ("sizes",)), Read("item", ("value",))
        chunk = self.chance.choice((None, None, None, 2))
        named: Value = Fallback(item, None) if by_worker or chunk else item
        mode: Inputs = (("p", Read("workload", ("mode",))),) if self._now(0.3) else ()
        return Iterate(
            collection=collection,
            inputs=(("size", named), *mode),
            path=path,
            by_worker=by_worker,
            concurrency=concurrency,
            where=Compare(item, ">", Constant(2)) if self._now(0.2) else None,
            order_by=item if self._now(0.2) else None,
            limit=self.chance.choice((None, None, 2)) if concurrency != WIDE else None,
            chunk=chunk,
        )


def _end(chance: Random, names: list[str], *, calm: bool) -> Step:
    """Write the end: mostly a plain one; some with a result, an action, or a join of its own."""
    result: Any = None
    if chance.random() < 0.4:
        read = Fallback(Read(chance.choice(names), ("x",)), "cold")
        result = (
            read
            if chance.random() < 0.4
            else (
                ("answer", read),
                ("size", Read("workload", ("size",))),
                ("given", Read("args")),
                ("failed", FailedItems(read.read.root)),
            )
        )
    elif chance.random() < 0.08:
        result = Read(chance.choice(names), ("x",))
    kind: Kind = "action" if chance.random() < 0.15 else "router"
    joins: tuple[Literal["all", "any", "each"] | None, ...] = (None, "any", "each", "all")
    join = None if calm else chance.choices(joins, (86, 5, 4, 5))[0]
    # Others outlive an end with a join: what it was given must still be known when they are done.
    inputs: Inputs = (("p", Fallback(Read("result", ("x",)), "cold")),) if join else ()
    return Step(name="end", kind=kind, join=join, inputs=inputs, result=result)

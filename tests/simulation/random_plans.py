"""Random plans from a seed: branches, fan-outs, joins, routers, loops, retries, children, iterators, failures."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any, Literal

from tests.simulation.expressions import Add, Compare, Constant, Default, Expression, FailedItems, Read, Value
from tests.simulation.plans import Compensate, Entry, Inputs, Iterate, Kind, Plan, Retry, Signal, Step, Target
from tests.simulation.random_expressions import ExpressionWriter

NAMES = "abcdefghijkl"
LATE_KINDS = frozenset({"action", "playbook", "iterator", "wait", "approval"})
WORKLOAD = {"size": 3, "mode": "quick", "deep": {"x": 4, "y": [1, 2]}, "sizes": {"long": 5, "s": 2, "mid": 4}}
NEEDS_FROM = 1_000_000  # plans of these seeds also have joins that need a number, or cancel their losers
WAITS_FROM = 2_000_000  # plans of these seeds have waits, too
SCHEMAS_FROM = 3_000_000  # plans of these seeds have schemas of the workload, too
APPROVALS_FROM = 4_000_000  # plans of these seeds have approvals, too, and no schemas
SIGNALS_FROM = 6_000_000  # plans of these seeds send signals and wait for them, too
SIGNALS = ("go", "paid", "stop")
WIDE = 130  # items of an iterator, more than one turn starts
POOLS: tuple[Value, ...] = (Constant("gpu"), Constant("default"), Read("workload", ("mode",)))
POOLS_OF_JOBS = (*POOLS * 10, Read("workload", ("size",)))  # the last fails: it is a number; a playbook's never does
TAGS: tuple[Value, ...] = (
    Constant("eu"), Constant(7), Constant(value=True), Read("workload", ("mode",)), Read("workload", ("size",)),
    Read("workload", ("sizes",)), Read("workload", ("more",)),
)  # fmt: skip
TAG_NAMES = ("customer", "region", "size")


def plan(seed: int, *, stable: bool = False) -> Plan:
    """Return the plan of a seed; the same seed gives the same plan, on every machine.

    The end of a stable plan does not depend on the order in which actions end. It has no races and no loops, and no
    template reads a parallel step.
    """
    random = Random(f"plan {seed}")
    nesting = random.choice((0, 0, 1, 1, 2))
    made = _plan(random, "main", nesting, steps=random.randint(2, 9), stable=stable)
    if seed >= NEEDS_FROM and not stable:
        made = _with_needs(Random(f"needs {seed}"), made)
    if seed >= SIGNALS_FROM and not stable:
        made = _with_signals(Random(f"signals {seed}"), made)
    if seed >= WAITS_FROM and not stable:
        made = _with_waits(Random(f"waits {seed}"), made)
    if seed >= APPROVALS_FROM and not stable:
        made = _with_approvals(Random(f"approvals {seed}"), made)
    if SCHEMAS_FROM <= seed < APPROVALS_FROM:
        made = _with_schemas(Random(f"schemas {seed}"), made)
    return made if stable else _with_late(Random(f"late {seed}"), made)


def _with_schemas(random: Random, made: Plan) -> Plan:
    """Return a plan that refuses some payloads, as its children do."""
    names = ("more", "p", "n", "size", "value", "deep")
    required = tuple(random.sample(names, random.choice((0, 0, 1, 1, 2))))
    largest_size = random.choice((None, None, 3, 5))
    children = tuple(_with_schemas(random, child) for child in made.children)
    return replace(made, required=required, largest_size=largest_size, children=children)


def _with_waits(random: Random, made: Plan) -> Plan:
    """Return a plan some of whose actions are waits."""
    steps = tuple(_as_wait(random, step) for step in made.steps)
    return replace(made, steps=steps, children=tuple(_with_waits(random, child) for child in made.children))


def _as_wait(random: Random, step: Step) -> Step:
    if step.kind != "action" or step.name in {"start", "end"} or random.random() > 0.3:
        return step
    seconds = random.choice((1, 2, 5, 20))
    return replace(step, kind="wait", seconds=seconds, retry=None, timeout=None, on_error="fail")


def _with_approvals(random: Random, made: Plan) -> Plan:
    """Return a plan some of whose actions wait for a person."""
    steps = tuple(_as_approval(random, step) for step in made.steps)
    return replace(made, steps=steps, children=tuple(_with_approvals(random, child) for child in made.children))


def _as_approval(random: Random, step: Step) -> Step:
    if step.kind != "action" or step.name in {"start", "end"} or random.random() > 0.4:
        return step
    timeout = random.choice((None, 2, 5, 20))
    return replace(step, kind="approval", retry=None, timeout=timeout, on_error=random.choice(("fail", "continue")))


def _with_signals(random: Random, made: Plan) -> Plan:
    """Return a plan some of whose actions wait for a signal or send one."""
    steps = tuple(_as_signal(random, step) for step in made.steps)
    if random.random() < 0.5:
        steps = _and_readers(random, *steps)
    return replace(made, steps=steps, children=tuple(_with_signals(random, child) for child in made.children))


def _as_signal(random: Random, step: Step) -> Step:
    chance = random.random()
    if step.kind != "action" or step.name in {"start", "end"} or chance > 0.85:
        return step
    continues: Literal["fail", "continue"] = random.choice(("fail", "continue"))
    if chance < 0.25:
        number = Default(Read("result", ("x",)), random.randint(0, 9))
        payload: Inputs | None = random.choice((None, (("n", Constant(random.randint(0, 9))),), (("n", number),)))
        sent = Signal((random.choice(SIGNALS),), _key(random), payload=payload)
        return replace(step, kind="signal", signal=sent, retry=None, timeout=None, on_error="fail")
    names = tuple(random.sample(SIGNALS, random.choice((1, 1, 2, 3))))
    awaited = Signal(names, _key(random), _when(random, step.name), random.choice((None, None, 5, 3600)))
    timeout = random.choice((None, None, 2, 5, 20))
    if random.random() < 0.3:
        step = _as_reader(random, step)
    return replace(step, kind="wait", signal=awaited, retry=None, timeout=timeout, on_error=continues)


def _and_readers(random: Random, start: Step, *steps: Step) -> tuple[Step, ...]:
    """Return steps with some more that begin at the start, and that read signals beside each other."""
    readers = []
    for name, target in (("x", "y"), ("y", "z"), ("z", None)):
        names = tuple(random.sample(SIGNALS, random.choice((1, 2, 3))))
        spec = Signal(names, random.choice((None, Constant("k"))), _when(random, name), random.choice((None, 3600)))
        timeout = random.choice((None, None, None, 5))
        entries = () if target is None else (Entry(otherwise=(Target(target),)),)
        readers.append(_as_reader(random, Step(
            name=name, kind="wait", signal=spec, timeout=timeout, on_error="continue", entries=entries
        )))  # fmt: skip
    begun = Entry(then=tuple(Target(name) for name in random.sample("xyz", random.choice((1, 2, 2, 3)))))
    place = random.randint(0, len(steps))
    return replace(start, entries=(*start.entries, begun)), *steps[:place], *readers, *steps[place:]


def _as_reader(random: Random, step: Step) -> Step:
    """Return a step that is visited again and again, as a reader of a queue."""
    small = Compare(Default(Read(step.name, ("n",)), 9), "<", Constant(random.randint(3, 9)))
    again = Entry(then=(Target(step.name),), when=small)
    return replace(step, join="each", need=1, losers="run", exclusive=True, entries=(again, *step.entries))


def _key(random: Random) -> Value | None:
    """Return what a signal is about: mostly the execution itself or a constant; rarely no key."""
    keys: tuple[Value | None, ...] = (
        None, None, None, Constant("k"), Constant("k"), Constant(3), Constant("quick"), Read("workload", ("mode",)),
        Read("workload", ("size",)), Default(Read("p"), "k"),
    )  # fmt: skip
    return random.choice(keys)


def _when(random: Random, name: str) -> Expression | None:
    number = Read("signal", ("payload", "n"))
    conditions: tuple[Expression | None, ...] = (
        None, None, None, Compare(number, ">=", Constant(random.randint(1, 6))),
        Compare(Default(number, 5), "<", Constant(7)), Compare(number, "!=", Default(Read("result", ("x",)), 4)),
        Compare(Default(number, 3), ">=", Default(Read("n"), 2)), Default(Read("signal", ("payload", "flag")), "yes"),
        Compare(Read("signal", ("name",)), "!=", Constant("stop")),
        Compare(number, ">=", Default(Read(name, ("n",)), 1)),
    )  # fmt: skip
    return random.choice(conditions)


def _with_needs(random: Random, made: Plan) -> Plan:
    """Return a plan some of whose joins need a number of arrivals or cancel their losers."""
    arcs = Counter(target.step for step in made.steps for entry in step.entries for target in _targets(entry))
    steps = tuple(_with_need(random, step, arcs[step.name]) for step in made.steps)
    return replace(made, steps=steps, children=tuple(_with_needs(random, child) for child in made.children))


def _with_need(random: Random, step: Step, arcs: int) -> Step:
    if step.name == "start" or (step.join != "any" and random.random() > (0.5 if arcs > 1 else 0.1)):
        return step
    losers: Literal["run", "cancel"] = random.choice(("run", "cancel"))
    need = random.choice((1, 1, 2, 3)) if arcs > 2 else random.choice((1, min(arcs, 2)))
    return replace(step, join="any", need=max(need, 1), losers=losers)


def _plan(random: Random, path: str, nesting: int, *, steps: int, stable: bool) -> Plan:
    few = random.randint(1, 4)
    children = (_plan(random, f"{path}-child", nesting - 1, steps=few, stable=stable),) if nesting else ()
    names = [*NAMES[:steps]]
    written = [_StepWriter(random, names, at, children, stable=stable).step() for at in range(-1, steps)]
    written = _reached(random, written)
    if random.random() < 0.3:
        first, *others = written
        random.shuffle(others)
        written = [first, *others]
    if any(target.step == "end" for step in written for entry in step.entries for target in _targets(entry)):
        written.append(_end(random, names, stable=stable))
    return Plan(
        path=path,
        steps=tuple(written),
        workload=WORKLOAD,
        max_visits=60 if stable else random.choice((60, 60, 60, 12)),
        deadline=random.randint(2, 30) if not stable and random.random() < 0.03 else None,
        children=children,
    )


def _with_late(random: Random, made: Plan) -> Plan:
    """Return a plan some of whose executions and steps are late."""
    steps = tuple(
        replace(step, late_after=random.randint(1, 9)) if step.kind in LATE_KINDS and random.random() < 0.1 else step
        for step in made.steps
    )
    children = tuple(_with_late(random, child) for child in made.children)
    late_after = random.randint(1, 30) if random.random() < 0.1 else None
    return replace(made, steps=steps, children=children, late_after=late_after)


def _targets(entry: Entry) -> tuple[Target, ...]:
    return entry.then + entry.otherwise


def _reached(random: Random, steps: list[Step]) -> list[Step]:
    """Add an arc from an earlier step to each step that none leads to."""
    for at in range(1, len(steps)):
        name = steps[at].name
        if not any(target.step == name for step in steps[:at] for entry in step.entries for target in _targets(entry)):
            source = random.randrange(at)
            entries = (Entry(then=(Target(name),)), *steps[source].entries)
            steps[source] = replace(steps[source], entries=entries)
    return steps


class _StepWriter:
    """Writes one step; knows the steps before and after it."""

    def __init__(self, random: Random, names: list[str], at: int, children: tuple[Plan, ...], *, stable: bool) -> None:
        self.random = random
        self.names = names
        self.at = at
        self.children = children
        self.stable = stable
        self.name = "start" if at < 0 else names[at]
        self.expressions = ExpressionWriter(random, self.name, names, names[: at + 1] or names[:1], stable=stable)

    def step(self) -> Step:
        """Write the step."""
        kind = self._kind()
        entries = self._entries()
        is_task = kind in {"action", "playbook"}
        continues = self._chance(0.35) if is_task else kind == "iterator" and self._chance(0.6)
        return Step(
            name=self.name,
            kind=kind,
            entries=entries,
            exclusive=self._chance(0.25) and any(entry.when is not None for entry in entries),
            join=self._join(),
            inputs=() if kind == "iterator" else self.expressions.inputs(0.3),
            retry=self._retry(kind) if is_task and self._chance(0.3 if kind == "action" else 0.6) else None,
            on_error="continue" if continues else "fail",
            timeout=self.random.randint(1, 3) if kind != "router" and not self.stable and self._chance(0.06) else None,
            path=self.children[0].path if kind == "playbook" else None,
            return_step=self._return_step() if kind == "playbook" and self._chance(0.3) else None,
            iterate=self._iterate() if kind == "iterator" else None,
        )

    def _return_step(self) -> str | None:
        """Return the step of the child whose data is the result."""
        return "a" if any(step.name == "a" for step in self.children[0].steps) else None

    def _chance(self, odds: float) -> bool:
        return self.random.random() < odds

    def _kind(self) -> Kind:
        if self.at < 0:
            return "action" if self._chance(0.1) else "router"
        if self.children and self._chance(0.2):
            return "playbook"
        kinds: tuple[Kind, ...] = ("action", "router", "iterator")
        return self.random.choices(kinds, (75, 18, 7))[0]

    def _join(self) -> Literal["all", "any", "each"] | None:
        if self.at < 0 or self.stable:
            return None
        joins: tuple[Literal["all", "any", "each"] | None, ...] = (None, "all", "any", "each")
        return self.random.choices(joins, (70, 6, 14, 10))[0]

    # Transitions.

    def _entries(self) -> tuple[Entry, ...]:
        shape = self.random.choices(("one", "several", "choice", "mixed", "none"), (38, 20, 24, 10, 8))[0]
        if shape == "none" and self.at >= 0:
            return ()
        if shape == "choice":
            entries = self._choice()
        elif shape == "mixed":
            entries = [self._plain(), *self._choice(), self._plain()]
            if self._chance(0.5):
                entries = entries[1:]
        else:
            entries = [self._plain() for _ in range(1 if shape != "several" else self.random.randint(2, 3))]
        if self.at >= 0 and not self.stable and self._chance(0.16):
            entries = self._loop(entries)
        return tuple(entries)

    def _choice(self) -> list[Entry]:
        entries = [self._conditional() for _ in range(self.random.randint(1, 2))]
        if self._chance(0.5):
            entries.insert(self.random.choice((0, len(entries), len(entries))), Entry(otherwise=(self._target(),)))
        return entries

    def _plain(self) -> Entry:
        return Entry(then=(self._target(),), inputs=self.expressions.inputs(0.2))

    def _conditional(self) -> Entry:
        then = tuple(self._target() for _ in range(self.random.choice((1, 1, 1, 2))))
        otherwise = (self._target(),) if self._chance(0.25) else ()
        return Entry(
            then=then, when=self.expressions.condition(), otherwise=otherwise, inputs=self.expressions.inputs(0.2)
        )

    def _loop(self, entries: list[Entry]) -> list[Entry]:
        """Add an arc back, taken while a count or a result is small."""
        back = self.names[self.random.randint(0, self.at)]
        if self._chance(0.5):
            condition = Compare(Default(Read("n"), 0), "<", Constant(self.random.randint(1, 2)))
            inputs: Inputs = (("n", Add(Default(Read("n"), 0), 1)),)
        else:
            condition, inputs = (
                Compare(Default(Read("result", ("x",)), 9), "<", Constant(self.random.randint(2, 5))),
                (),
            )
        if self._chance(0.5):
            return [Entry(then=(Target(back),), when=condition, inputs=inputs, otherwise=_targets(entries[0]))]
        return [Entry(then=(Target(back),), when=condition, inputs=inputs), *entries]

    def _target(self) -> Target:
        later = self.names[self.at + 1 :]
        name = self.random.choice(later[:4]) if later and self._chance(0.85) else "end"
        return Target(name, self.expressions.inputs(0.06))

    # Work.

    def _retry(self, kind: Kind) -> Retry:
        retry = self._retry_of_any()
        # Which of a child's parallel steps fails first depends on the order, and so does its error.
        return retry._replace(retry_when=None, stop_when=None) if self.stable and kind == "playbook" else retry

    def _retry_of_any(self) -> Retry:
        retry_when = None
        if self._chance(0.3):
            retry_when = self.random.choice(
                (
                    Compare(Read("status_code"), ">=", Constant(500)),
                    Compare(Read("error"), "==", Constant("busy")),
                    Compare(Read("attempt"), "<", Constant(2)),
                    Compare(Read("result", ("x",)), "==", Constant(1)),
                )
            )
        return Retry(
            max_attempts=self.random.randint(1, 4),
            initial_delay=self.random.choice((0, 1, 5)),
            backoff_multiplier=self.random.choice((1, 2, 3)),
            max_delay=self.random.choice((4, 60)),
            retry_when=retry_when,
            stop_when=Compare(Read("status_code"), "==", Constant(400)) if self._chance(0.2) else None,
        )

    def _iterate(self) -> Iterate:
        size = self.random.choice((0, 1, 2, 3, 5))
        collection: Value = Constant([self.random.randint(0, 9) for _ in range(size)])
        path = self.children[0].path if self.children and self._chance(0.6) else None
        by_worker = path is None and self._chance(0.2)
        concurrency = self.random.choice((None, 1, 2, 3))
        item = Read("item")
        if path is None and not by_worker and self._chance(0.02):
            collection, concurrency = Constant([*range(WIDE)]), WIDE
        elif self._chance(0.4):
            collection = Default(Read("result" if self.stable else self.random.choice(self.names), ("items",)), [1, 2])
        elif self._chance(0.2):
            collection, item = Read("workload", ("sizes",)), Read("item", ("value",))
        chunk = self.random.choice((None, None, None, 2))
        named: Value = Default(item, None) if by_worker or chunk else item
        mode: Inputs = (("p", Read("workload", ("mode",))),) if self._chance(0.3) else ()
        return Iterate(
            collection=collection,
            inputs=(("size", named), *mode),
            path=path,
            by_worker=by_worker,
            concurrency=concurrency,
            where=Compare(item, ">", Constant(2)) if self._chance(0.2) else None,
            order_by=item if self._chance(0.2) else None,
            limit=self.random.choice((None, None, 2)) if concurrency != WIDE else None,
            chunk=chunk,
        )


def _end(random: Random, names: list[str], *, stable: bool) -> Step:
    """Return the step `end`: mostly a plain one, some with a result, an action or a join."""
    result: Any = None
    if random.random() < 0.4:
        read = Default(Read(random.choice(names), ("x",)), "cold")
        result = (
            read
            if random.random() < 0.4
            else (
                ("answer", read),
                ("size", Read("workload", ("size",))),
                ("given", Read("args")),
                ("failed", FailedItems(read.read.root)),
            )
        )
    elif random.random() < 0.08:
        result = Read(random.choice(names), ("x",))
    kind: Kind = "action" if random.random() < 0.15 else "router"
    joins: tuple[Literal["all", "any", "each"] | None, ...] = (None, "any", "each", "all")
    join = None if stable else random.choices(joins, (86, 5, 4, 5))[0]
    # Other tokens may end after an `end` with a join: its inputs must still be known then.
    inputs: Inputs = (("p", Default(Read("result", ("x",)), "cold")),) if join else ()
    return Step(name="end", kind=kind, join=join, inputs=inputs, result=result)


def with_options(random: Random, made: Plan) -> Plan:
    """Return a plan some of whose jobs have a pool or a priority, and whose executions may have tags."""
    steps = tuple(_with_jobs(random, step) for step in made.steps)
    children = tuple(with_options(random, child) for child in made.children)
    names = random.sample(TAG_NAMES, random.choice((0, 0, 1, 2)))
    tags = tuple((name, random.choice(TAGS)) for name in names)
    return replace(made, steps=steps, children=children, tags=tags, **_of_jobs(random, 0.2, POOLS))


def start_options(random: Random) -> dict[str, Any]:
    """Return the options of a start."""
    names = random.sample(TAG_NAMES, random.choice((0, 0, 1, 2)))
    tags = {name: random.choice(("start", 8, False)) for name in names}
    priority = _priority(random, 0.3)
    return ({"tags": tags} if tags else {}) | ({} if priority is None else {"priority": priority})


def _with_jobs(random: Random, step: Step) -> Step:
    if step.compensate:
        step = replace(step, compensate=_undo(random, step.compensate))
    if step.iterate:
        own = {} if step.iterate.path or step.iterate.by_worker else _of_jobs(random, 0.1)
        undo = _undo(random, step.iterate.compensate) if step.iterate.compensate else None
        step = replace(step, iterate=step.iterate._replace(**own, compensate=undo))
    is_job = step.kind == "action" or (step.iterate and not step.iterate.path)
    return replace(step, **_of_jobs(random, 0.2)) if is_job else step


def _undo(random: Random, undo: Compensate) -> Compensate:
    return undo if undo.path else undo._replace(**_of_jobs(random, 0.2))


def _of_jobs(random: Random, odds: float, pools: tuple[Value, ...] = POOLS_OF_JOBS) -> dict[str, Any]:
    pool = random.choice(pools) if random.random() < odds else None
    return {"pool": pool, "priority": _priority(random, odds)}


def _priority(random: Random, odds: float) -> int | None:
    return random.choice((-1, 0, 5, 8)) if random.random() < odds else None

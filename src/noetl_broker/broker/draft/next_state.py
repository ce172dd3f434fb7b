"""The state of an execution while one turn changes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.state.state import Arrival, EndReached, ExecutionState, Token, is_live

if TYPE_CHECKING:
    from noetl_broker.broker.model.values import Visit
    from noetl_broker.playbook.model import Step


class NextState:
    """An `ExecutionState` that changes. It shares no mutable object with the state that the turn started from."""

    __slots__ = (
        "compensation",
        "end",
        "ends",
        "failed_before",
        "hold",
        "hops",
        "late",
        "parent",
        "priority",
        "repeats",
        "seen",
        "signals",
        "slots",
        "status",
        "tokens",
        "total",
        "undo",
        "unknown",
        "waiting",
    )  # fmt: skip

    def __init__(self, state: ExecutionState) -> None:
        """Copy the mappings of `state`."""
        self.status = state.status
        self.tokens: dict[Visit, Token] = dict(state.tokens)
        self.waiting: dict[str, tuple[Arrival, ...]] = dict(state.waiting)
        self.seen = state.seen
        self.repeats: dict[str, int] = dict(state.repeats)
        self.total = state.total
        self.ends: dict[str, None] = dict.fromkeys(state.ends)  # in order, each once
        self.end = state.end
        self.parent = state.parent
        self.hold = state.hold
        self.signals = list(state.signals)
        self.hops = state.hops
        self.failed_before = state.failed_before
        self.priority = state.priority
        self.late = state.late
        self.undo, self.unknown, self.compensation = state.undo, state.unknown, state.compensation
        self.slots = state.slots

    def seal(self) -> ExecutionState:
        """The state after the turn."""
        waiting, live = self.waiting, is_live(self.status)
        if waiting:
            waiting = {step: tuple(map(_without_passed, arrivals)) for step, arrivals in waiting.items()}
        end = self.end if self.end is None or live else EndReached(self.end.result)
        # To call the class takes longer: it makes a mapping of the names.
        return ExecutionState.__new__(
            ExecutionState, status=self.status, tokens=self.tokens, waiting=waiting, seen=self.seen,
            repeats=self.repeats, total=self.total, ends=tuple(self.ends), end=end, parent=self.parent,
            hold=self.hold if live else None, signals=tuple(self.signals) if live else (), hops=self.hops,
            undo=self.undo, unknown=self.unknown, compensation=self.compensation, slots=self.slots,
            failed_before=self.failed_before, priority=self.priority, late=self.late,
        )  # fmt: skip

    def has_visited(self, step: Step) -> bool:
        """Whether the step has a visit. `seen` has one bit for each step."""
        return bool(self.seen >> step.index & 1)

    def visits(self, step: Step) -> int:
        """The number of visits of the step."""
        return self.repeats.get(step.name, self.seen >> step.index & 1)

    def count_visit(self, step: Step, number: int) -> None:
        """Count one more visit of the step."""
        self.count_visits(step, max(number, self.visits(step)))
        self.total += 1

    def count_visits(self, step: Step, number: int) -> None:
        """Set the number of visits of the step."""
        self.seen |= 1 << step.index
        if number > 1:
            self.repeats[step.name] = number

    @property
    def depth(self) -> int:
        """The number of executions above this one."""
        return self.parent.depth if self.parent is not None else 0


def _without_passed(arrival: Arrival) -> Arrival:
    """An arrival that waits after the end of the turn, without the routers that it passed in this turn."""
    return arrival._replace(passed=frozenset()) if arrival.passed else arrival

"""What one turn writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.model.decision import Decision, ExecutionEnd, JobRow, StepRow

if TYPE_CHECKING:
    from noetl_broker.broker.model.effects import Effect, Kind
    from noetl_broker.broker.model.event import Emitted

DECIDED = "decided"


class Writes:
    """What the turn writes so far: a `Decision` with lists instead of tuples, and rows by step."""

    __slots__ = ("carrier", "effects", "ended", "events", "jobs", "note", "outcome", "rows")

    def __init__(self) -> None:
        """Nothing is written yet."""
        self.outcome = DECIDED
        self.note: str | None = None
        self.events: list[Emitted] = []
        self.jobs: list[JobRow] = []
        self.rows: dict[str, StepRow] = {}
        self.ended: ExecutionEnd | None = None
        self.carrier: int | None = None
        self.effects: list[Effect] = []

    def added(self, kind: type[Kind]) -> list[Kind]:
        """The effects of a kind that the turn has written so far."""
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def seal(self, events: tuple[Emitted, ...]) -> Decision:
        """The decision, with these events."""
        rows = tuple(self.rows.values())
        # To call the class takes longer: it makes a mapping of the names.
        return Decision.__new__(
            Decision, outcome=self.outcome, note=self.note, events=events, jobs=tuple(self.jobs), rows=rows,
            ended=self.ended, carrier=self.carrier, effects=tuple(self.effects),
        )  # fmt: skip

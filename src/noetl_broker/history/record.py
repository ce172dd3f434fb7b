"""A recorded execution: its turns, jobs and rows, in the form in which the core can decide them again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.model.decision import ExecutionEnd
from noetl_broker.broker.model.event import Emitted, Event, Turn
from noetl_broker.broker.model.rules import Rules
from noetl_broker.broker.model.values import JSON
from noetl_broker.errors import HistoryFault

if TYPE_CHECKING:
    from collections.abc import Mapping

    from noetl_broker.playbook.model import Playbook

Node = tuple[str, int, int | None]  # a step, its visit from 1, and the index of an item from 0


class RecordedTurn(NamedTuple):
    """A row of `noetl.turn` with the event that it read and the events that it wrote."""

    turn: Turn
    event: Event
    outcome: str
    note: str | None
    events: tuple[Emitted, ...]
    event_id: int = 0
    node_names: tuple[str | None, ...] = ()  # of `events`; empty where they are not known


class RecordedJob(NamedTuple):
    """The parts of a job's row that never change."""

    node_type: str
    action: JSON
    context: JSON
    priority: int
    max_attempts: int
    timeout: float | None


class RecordedRow(NamedTuple):
    """The tracking row of a step."""

    status: str
    visits: int
    result_visit: int | None


class UsedVersion(NamedTuple):
    """A version of a playbook, or the reason why it cannot be used."""

    catalog_id: int
    playbook: Playbook | str


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Everything that the store has of one execution; `playbook` may be the reason why there is none.

    A long execution comes in parts: then `turns`, `jobs` and `unlinked` are empty here. `broken` is the reason why the
    rows cannot be read. `set_aside` counts the events in the dead letters.
    """

    execution_id: int
    playbook: Playbook | str
    rules: Rules
    turns: tuple[RecordedTurn, ...] = ()
    unlinked: tuple[str, ...] = ()  # sentences about events that claim a turn which did not write them
    jobs: Mapping[Node, RecordedJob] = field(default_factory=dict)
    rows: Mapping[str, RecordedRow] = field(default_factory=dict)
    taken: Mapping[tuple[object, ...], object] = field(default_factory=dict)  # results that a fork took over
    undo_versions: Mapping[int, UsedVersion] = field(default_factory=dict)  # by number, those that an undo used instead
    undone: Mapping[Node, str] = field(default_factory=dict)  # visits and items whose undo began: status of the row
    job_scope: dict[str, JSON] = field(default_factory=dict)  # what the store adds to the context of every job
    workload: JSON = None
    ended: ExecutionEnd | None = None
    state: JSON = None
    path: str | None = None
    name: str | None = None  # of the playbook: the node name of events without a step
    broken: str | None = None
    set_aside: int = 0


class HistoryPart(NamedTuple):
    """A history, or a part of a long one: then `history` itself has no turns, jobs and unlinked.

    `last`: no part of this execution follows. The last one may be a history that is `broken`.
    """

    history: History
    turns: tuple[RecordedTurn, ...]
    jobs: Mapping[Node, RecordedJob] | None = None  # None: they are in the history
    unlinked: tuple[str, ...] = ()
    first: bool = True
    last: bool = True

    def readable_turns(self) -> tuple[RecordedTurn, ...]:
        """Its turns; raises HistoryFault where they cannot be read."""
        if self.history.broken is not None:
            raise HistoryFault(self.history.execution_id, self.history.broken)
        return self.turns

"""What is remembered of one execution, in the form in which the core can take its turns again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.model import JSON, Emitted, Ended, Event, Rules, Turn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from noetl_broker.playbook.model import Playbook

Node = tuple[str, int, int | None]  # whose job it is: a step, its visit from 1, and the place of an item from 0


class RecordedTurn(NamedTuple):
    """One row of `noetl.turn` with the event that it read and the events that it wrote."""

    turn: Turn
    event: Event
    outcome: str
    note: str | None
    events: tuple[Emitted, ...]
    event_id: int = 0


class RecordedJob(NamedTuple):
    """What of a job's row never changes."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Everything that the store remembers of one execution; `playbook` may be the sentence why there is none.

    Of a long execution `turns`, `jobs` and `strays` come in parts beside it, and are empty here. `broken` says why the
    rows cannot be read, if they cannot; `set_aside` counts its mail on which deciding failed.
    """

    execution_id: int
    playbook: Playbook | str
    rules: Rules
    turns: tuple[RecordedTurn, ...] = ()
    strays: tuple[str, ...] = ()  # events that claim a turn that did not write them
    jobs: Mapping[Node, RecordedJob] = field(default_factory=dict)
    rows: Mapping[str, RecordedRow] = field(default_factory=dict)
    taken: Mapping[tuple[object, ...], object] = field(default_factory=dict)  # what a fork brought along, by its wishes
    job_scope: dict[str, JSON] = field(default_factory=dict)  # what the store adds to every job's context
    workload: JSON = None
    ended: Ended | None = None
    state: JSON = None
    path: str | None = None
    broken: str | None = None
    set_aside: int = 0

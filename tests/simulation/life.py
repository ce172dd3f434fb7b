"""One execution of a world: its stored state, what can be loaded, its mail, jobs, waits and timers, and its reference.

A batch of turns is decided by a session that is made from the stored state and has loaded nothing. What it asks for is
answered from the turns that were committed before. So each batch is a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from noetl_broker.broker.core import Session
from noetl_broker.broker.draft.known import Known, UndoRow, result_of
from noetl_broker.broker.draft.memory import remember
from noetl_broker.broker.draft.wants import want_failing, want_item_action, want_turn
from noetl_broker.broker.model.decision import Decision
from noetl_broker.broker.model.effects import (
    ChildStarted,
    ExecutionBegun,
    ItemEnded,
    ItemsChosen,
    UndoStatusChanged,
    WaitOpened,
)
from noetl_broker.broker.model.event import Event, Turn
from noetl_broker.broker.model.rules import Rules
from noetl_broker.broker.state.state import ExecutionState, decode, encode
from noetl_broker.node_ids import node_id
from noetl_broker.playbook.model import Playbook
from noetl_broker.store.json_codec import dump_json, load_json
from noetl_broker.store.turn.claimed_rows import event_of
from noetl_broker.template.scope import NotLoaded, unwrap
from tests.simulation.effects import reference_event
from tests.simulation.plans import Plan
from tests.simulation.reference import Reference
from tests.simulation.reference_model import LIVE, ReferenceEvent, Row

FAILURES = frozenset({"action_failed", "action_error"})
OPEN_JOBS = frozenset({"queued", "retry", "failed", "delegated", "leased"})
RULES = Rules()
NEW = "NEW"
Visit = tuple[str, int]


class Parent(NamedTuple):
    """The visit, the item or the undo that waits for a child; `attempt`: the number of this start."""

    life: Life
    node: str
    step: str
    visit: int
    item_index: int | None
    undo: bool


class Mail(NamedTuple):
    """An event that waits for a decision; the row as the store has it."""

    number: int
    row: Row


class TakenTurn(NamedTuple):
    """A turn that is decided and not yet written: `event` as the core read it, `known` as the reference reads it."""

    mail: Mail
    event: Event
    known: ReferenceEvent | None
    turn: Turn
    decision: Decision


@dataclass(slots=True, kw_only=True)
class Job:
    """A job; `failures` counts its retries, `attempts` its leases."""

    node: str
    step: str
    visit: int
    index: int | None
    undo: bool
    status: str
    available_at: datetime
    timeout: float | None = None
    attempts: int = 0
    failures: int = 0
    lost: int = 0
    first_leased_at: datetime | None = None
    lease_until: datetime | None = None
    stop: bool = False
    draining: bool = False

    def close(self) -> None:
        """Cancel it, or tell its worker to stop."""
        if self.status == "leased":
            self.stop = True
        elif self.status in OPEN_JOBS:
            self.status = "cancelled"


@dataclass(slots=True)
class OpenWait:
    """A wait that began: open, signalled (an event that may end it is on the way), or over."""

    wait: WaitOpened
    node: str
    since: datetime
    began: int
    status: str = "open"


class Timer(NamedTuple):
    """A moment at which the execution gets an event; `node` is None for its deadline."""

    node: str | None
    step: str | None
    purpose: str
    due: datetime


@dataclass(kw_only=True)
class Life:
    """An execution. `root`: its number among those that the scenario starts."""

    number: int
    plan: Plan
    playbook: Playbook
    started_at: datetime
    family: str
    parent: Parent | None = None
    root: int | None = None
    large_bytes: int = 8192
    options: Mapping[str, Any] = field(default_factory=dict)  # of its start
    tags: dict[str, str] = field(default_factory=dict)
    status: str = NEW
    turn: int = 0
    tokens: str = dump_json(encode(ExecutionState()))
    result: Any = None
    error: Any = None
    undo_error: Any = None  # why it undoes
    undo_status: str | None = None
    locked: bool = False
    mail: list[Mail] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)  # all that it was sent
    jobs: dict[str, Job] = field(default_factory=dict)
    waits: dict[Visit, OpenWait] = field(default_factory=dict)
    timers: list[Timer] = field(default_factory=list)
    children: list[Life] = field(default_factory=list)
    taken: dict[int, int] = field(default_factory=dict)  # signals that came to it: the number of the mail
    waits_for_path: bool = False
    turns: list[TakenTurn] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Know nothing."""
        self.items: dict[Visit, list[Any]] = {}  # results, by index
        self.archive = Known(RULES, complete=True)
        parent = None if self.parent is None else self.parent.life.reference
        self.reference: Reference = Reference(self.plan, self.number, options=self.options, parent=parent)
        self._left: dict[int, Any] = {}  # results that were left out of events, by turn

    @property
    def is_live(self) -> bool:
        """Tell whether it has not ended."""
        return self.status == NEW or self.status in LIVE

    @property
    def may_work(self) -> bool:
        """Tell whether workers lease its jobs."""
        return self.status in {"RUNNING", "COMPENSATING"} or not self.is_live

    @property
    def undoes(self) -> bool:
        """Tell whether it undoes what it did."""
        return self.status == "COMPENSATING" or self.undo_status == "undoing"

    # A batch.

    def decide(self, mails: list[Mail], paused_paths: set[str], clock: Any) -> list[TakenTurn]:
        """Decide on mail in a new session; write nothing."""
        state = decode(load_json(self.tokens))
        session = Session(self.playbook, RULES, execution_id=self.number, after=(state, self.turn), complete=False)
        self._left.clear()
        taken = []
        for mail in mails:
            event, known = self._read(mail, paused_paths)
            turn = Turn(self.number, session.turn + 1, clock())
            if event.result is not mail.row["result"]:
                self._left[turn.number] = result_of(event.type, mail.row["result"], event.error)
                if len(mails) > 1:
                    session.known.answers[want_turn(turn.number)] = self._left[turn.number]
            decision = self._apply(session, event, turn.at, last=mail is mails[-1])
            full = event._replace(result=mail.row["result"])
            taken.append(TakenTurn(mail, full, known, turn, decision))
        self.decided_state = session.state
        return taken

    def _apply(self, session: Session, event: Event, at: datetime, *, last: bool) -> Decision:
        while True:
            try:
                return session.apply(event, at, last=last)
            except NotLoaded as missing:
                for want in missing.wants:
                    session.known.answers.setdefault(want, self._load(want))

    def _load(self, want: tuple[Any, ...]) -> Any:
        """Return what the committed turns know."""
        if want[0] == "turn" and want[1] in self._left:
            return self._left[want[1]]
        if want[0] == "failed":
            found = self.archive.answers.get(want_failing(*want[1:]))
            return [*found] if isinstance(found, list) else None
        return self.archive.ask(want)

    def _read(self, mail: Mail, paused_paths: set[str]) -> tuple[Event, ReferenceEvent | None]:
        """Return an event for the core and for the reference."""
        row, kind = mail.row, mail.row["event_type"].lower()
        job = self.jobs.get(row["node_id"] or "")
        leases = 0 if job is None else job.attempts
        is_doubled = kind == "execution_signal" and self.taken.get(row["context"]["signal_id"]) != mail.number
        is_held = kind == "execution_start" and self.plan.path in paused_paths
        size = 0 if row["result"] is None or self.large_bytes > 1_000 else len(dump_json(row["result"]))
        row_of_mail: Any = {
            **row, "execution_id": self.number, "context": None if kind.startswith("action") else row["context"],
            "oversize": None, "broken": False, "bytes_over": None, "is_doubled": is_doubled,
            "job_attempts": leases if kind in FAILURES else None, "path_paused": is_held,
            "result_left": kind not in FAILURES and size > self.large_bytes,
        }  # fmt: skip
        event, _ = event_of(row_of_mail)
        known = None if is_doubled else reference_event(row, leases)
        if known is not None and is_held:
            known = known._replace(path_is_paused=True)
        return event, known

    # The commit.

    def keep(self, one: TakenTurn) -> None:
        """Store what later turns may ask for."""
        decision = one.decision
        remember(self.archive, one.event, one.turn, decision)
        for child in decision.of(ChildStarted):
            if child.item_index is not None and child.ordinal is not None:
                self.archive.answers[want_item_action(child.step, child.visit, child.item_index)] = {
                    "args": child.payload
                }
        for begun in decision.of(ExecutionBegun):
            self.tags = self.tags if begun.tags is None else begun.tags
        for job in decision.jobs:
            if job.item_index is not None and not job.undo:
                self.archive.answers[want_item_action(job.step, job.visit, job.item_index)] = job.action
        for items in decision.of(ItemsChosen):
            self.items[items.step, items.visit] = [None] * len(items.values)
        for end in decision.of(ItemEnded):
            if end.status == "COMPLETED":
                result = one.event.result if end.result_at is None else decision.events[end.result_at].result
                self.items[end.step, end.visit][end.item_index] = unwrap(result)
        for event in decision.events:
            if event.type == "execution_compensating":
                self.undo_error = event.error
        changed = decision.last(UndoStatusChanged)
        self.undo_status = self.undo_status if changed is None else changed.status
        self.turn = one.turn.number
        self.turns.append(one)

    def store_state(self) -> None:
        """Store the state after the last decided turn."""
        self.tokens = dump_json(encode(self.decided_state))
        self.status = self.decided_state.status

    def replayed(self) -> Session:
        """Apply all events to one session, which keeps everything; return it. Raises ValueError at a difference."""
        session = Session(self.playbook, RULES, execution_id=self.number)
        for one in self.turns:
            decision = session.apply(one.event, one.turn.at)
            if decision != one.decision:
                raise ValueError(f"replay: turn {one.turn.number} was {one.decision}, and is {decision}")
        if dump_json(encode(session.state)) != self.tokens:
            raise ValueError(f"replay: the state was {self.tokens}, and is {dump_json(encode(session.state))}")
        return session

    def undo_rows(self) -> dict[Any, tuple[UndoRow, str]]:
        """Return what is to be undone, with statuses; changes count."""
        return self.archive.undo_rows()

    def node(self, step: str, visit: int, index: int | None = None, *, undo: bool = False) -> str:
        """Return the id of a node."""
        return node_id(self.number, step, visit, index, undo=undo)

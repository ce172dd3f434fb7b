"""What a worker can be told at its start."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass, field

from noetl_broker.broker.spans import Emit
from noetl_broker.errors import OperatorFault

LONGEST_ID = 255


def own_id() -> str:
    """Name this worker by host, process and chance, so that nobody answers for it, by accident or guess."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(8)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """The settings of one worker.

    `dsn`: the database of the broker, None for the PG* variables. `types`: the job types to lease, None for all that
    the worker has tools for. `concurrency`: jobs at a time. `lease_seconds`: how long a job is ours without a
    heartbeat (one is sent each third). `poll_min_seconds` and `poll_max_seconds`: the bounds of the wait between two
    looks that found nothing, where no bell rang. `drain_seconds`: how long a stop waits for running jobs and their
    answers. `time_limit_seconds`: for a step without a timeout of its own. `null`: complete every job with {} in
    batches of `null_batch`, for benchmarks. `emit`: takes a span for each attempt; None: there are no traces.
    """

    dsn: str | None = field(repr=False)
    worker_id: str = field(default_factory=own_id)
    types: tuple[str, ...] | None = None
    concurrency: int = 4
    lease_seconds: int = 60
    poll_min_seconds: float = 0.05
    poll_max_seconds: float = 2.0
    drain_seconds: float = 10.0
    time_limit_seconds: float = 3600.0
    null: bool = False
    null_batch: int = 100
    emit: Emit | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work; raises OperatorFault."""
        if not self.worker_id:
            raise OperatorFault("worker_id must not be empty: leave it out, or give it a name of its own.")
        if not self.worker_id.isprintable() or len(self.worker_id) > LONGEST_ID:
            raise OperatorFault(
                f"worker_id {self.worker_id!r:.80} must be at most {LONGEST_ID} printable characters on one line."
            )
        for name in ("concurrency", "lease_seconds", "null_batch"):
            if getattr(self, name) < 1:
                raise OperatorFault(f"{name} must be 1 or more, not {getattr(self, name)}.")
        if not 0 < self.poll_min_seconds <= self.poll_max_seconds:
            raise OperatorFault(
                f"poll_min_seconds ({self.poll_min_seconds}) must be more than 0 and at most poll_max_seconds "
                f"({self.poll_max_seconds})."
            )
        for name in ("drain_seconds", "time_limit_seconds"):
            if getattr(self, name) < 0:
                raise OperatorFault(f"{name} must not be negative.")

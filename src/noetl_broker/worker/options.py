"""The settings of a worker."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from noetl_broker.errors import OperatorFault
from noetl_broker.playbook.keys import NAME_CHARS, POOL, POOL_FORMS
from noetl_broker.playbook.keywords import DEFAULT_POOL
from noetl_broker.store.connect.dsn import Database, node_addresses
from noetl_broker.store.connect.schema_name import DEFAULT_SCHEMA, check_schema_name
from noetl_broker.tracing.spans import Emit
from noetl_broker.worker.buckets import parse_buckets
from noetl_broker.worker.environment import is_hidden
from noetl_broker.worker.idle_connections import IDLE_SECONDS


def own_id() -> str:
    """A name of host, process and a random part, so that nobody else can answer for this worker."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(8)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """The settings of one worker.

    `dsn`: the database of the broker, None for the PG* variables. `schema`: where its tables are in it. `nodes`: as the
    setting, on Citus. `buckets`: of an installation with buckets those to serve, as `0-7,12` or as numbers, None for
    all. `types`: the job types to lease, None for all that the worker has tools for. `pools`: the pools whose jobs it
    leases. `concurrency`: jobs at a time. `lease_seconds`: the length of a lease; it is renewed at each third.
    `poll_min_seconds` and `poll_max_seconds`: the bounds of the pause between two attempts to lease, if no notification
    comes. `drain_seconds`: how long a stop waits for running jobs and their answers. `time_limit_seconds`: for a step
    without a timeout. `idle_connection_seconds`: how long a connection of a postgres or http step waits for the next
    job; 0 closes it after each. `null`: complete every job with {}, in batches of `null_batch`, for benchmarks.
    `preload`: modules that are imported once, for all python steps. `pass_env`: names of environment variables that
    jobs may read beside the common ones. `emit`: takes a span for each attempt; None: no traces.
    """

    dsn: str | None = field(repr=False)
    schema: str = DEFAULT_SCHEMA
    nodes: Sequence[str] = ()
    buckets: str | Sequence[int] | None = None
    worker_id: str = field(default_factory=own_id)
    types: tuple[str, ...] | None = None
    pools: Sequence[str] = (DEFAULT_POOL,)
    concurrency: int = 4
    lease_seconds: int = 60
    poll_min_seconds: float = 0.05
    poll_max_seconds: float = 2.0
    drain_seconds: float = 10.0
    time_limit_seconds: float = 3600.0
    idle_connection_seconds: float = IDLE_SECONDS
    null: bool = False
    null_batch: int = 100
    preload: tuple[str, ...] = ()
    pass_env: tuple[str, ...] = ()
    emit: Emit | None = None

    @property
    def database(self) -> Database:
        """The database and the schema of the queue."""
        return Database(dsn=self.dsn, schema=self.schema, nodes=node_addresses(self.nodes))

    @property
    def bucket_numbers(self) -> tuple[int, ...] | None:
        """The buckets to serve; None: all."""
        return None if self.buckets is None else parse_buckets(self.buckets)

    def __post_init__(self) -> None:
        """Raise OperatorFault for a wrong value."""
        check_schema_name(self.schema)
        node_addresses(self.nodes)
        if self.buckets is not None:
            parse_buckets(self.buckets)
        if not self.worker_id:
            raise OperatorFault("worker_id must not be empty: leave it out, or give it a name of its own.")
        if not self.worker_id.isprintable() or len(self.worker_id) > NAME_CHARS:
            raise OperatorFault(
                f"worker_id {self.worker_id!r:.80} must be at most {NAME_CHARS} printable characters on one line."
            )
        for name in ("concurrency", "lease_seconds", "null_batch"):
            if getattr(self, name) < 1:
                raise OperatorFault(f"{name} must be 1 or more, not {getattr(self, name)}.")
        if not 0 < self.poll_min_seconds <= self.poll_max_seconds:
            raise OperatorFault(
                f"poll_min_seconds ({self.poll_min_seconds}) must be more than 0 and at most poll_max_seconds "
                f"({self.poll_max_seconds})."
            )
        _check_names(self.preload, self.pass_env)
        _check_pools(self.pools)
        for name in ("drain_seconds", "time_limit_seconds", "idle_connection_seconds"):
            if getattr(self, name) < 0:
                raise OperatorFault(f"{name} must not be negative.")


def _check_pools(pools: Sequence[str]) -> None:
    """Raise OperatorFault for what is no list of pools."""
    names = [pools] if isinstance(pools, str) or not pools else [*pools]
    for name in names:
        if not POOL.fits(name) or isinstance(pools, str):
            raise OperatorFault(f"pools names {name!r:.80}; write for example [gpu, default], with {POOL_FORMS}.")


def _check_names(modules: Iterable[str], variables: Iterable[str]) -> None:
    """Raise OperatorFault for a module that cannot be preloaded, and for a variable that no job may read."""
    for name in modules:
        if not all(map(str.isidentifier, name.split("."))):
            raise OperatorFault(f"preload names {name!r:.80}, which is no module; write for example pandas.")
    for name in variables:
        if is_hidden(name):
            raise OperatorFault(f"pass_env names {name}, which no job may read; write {{{{ secret.x }}}} or auth.")

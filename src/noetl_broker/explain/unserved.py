"""Says which jobs no worker serves: the rows of `noetl.unserved_jobs`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from noetl_broker.playbook.keywords import DEFAULT_POOL
from noetl_broker.text import join_names, span


def served_name(kind: str, pool: str) -> str:
    """A type of jobs, with its pool if that is not the default one: `python in pool gpu`."""
    return kind if pool == DEFAULT_POOL else f"{kind} in pool {pool}"


def unserved_text(row: Mapping[str, Any]) -> str:
    """Which type and pool nobody serves, how many jobs wait, for how long, and whose slots they hold."""
    jobs = "one job waits" if row["jobs"] == 1 else f"{row['jobs']:,} jobs wait"
    oldest = f"for {span(row['seconds'])}" if row["jobs"] == 1 else f"the oldest for {span(row['seconds'])}"
    comma = "" if row["jobs"] == 1 else ","
    limits = join_names(row["limits"])
    holds = "" if not limits else f"; {'it holds' if row['jobs'] == 1 else 'they hold'} slots of the throttle {limits}"
    return f"no worker serves {served_name(row['type'], row['pool'])}; {jobs}{comma} {oldest}{holds}"


def worker_command(kind: str, pool: str, *, is_known: bool) -> str:
    """What starts a worker that serves a type in a pool; `is_known`: the reference worker runs the type."""
    if not is_known:
        return f"start your worker for {served_name(kind, pool)}"
    return "start one: noetl-broker worker" + ("" if pool == DEFAULT_POOL else f" --pool {pool}")

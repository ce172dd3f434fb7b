"""The span of one attempt of a job, below the span of its visit, which the broker tells."""

from __future__ import annotations

from datetime import datetime

from noetl_broker.broker.spans import Span, reason_of, span_id_of
from noetl_broker.store.jobs import LeasedJob
from noetl_broker.worker.execute import Success
from noetl_broker.worker.faults import Failure


def attempt_span(
    job: LeasedJob, traceparent: str, outcome: Success | Failure, began_at: datetime, ended_at: datetime
) -> Span:
    """`traceparent` is what the database says of the job; times are of the worker's clock."""
    _, trace_id, parent_id, _ = traceparent.split("-")
    return Span(
        trace_id=trace_id,
        span_id=span_id_of(f"{job.node_id}@{job.attempt}"),
        parent_id=parent_id,
        name=f"{job.node_type} {job.node_name}",
        began_at=began_at,
        ended_at=ended_at,
        attributes={
            "noetl.execution_id": job.execution_id,
            "noetl.node_id": job.node_id,
            "noetl.type": job.node_type,
            "noetl.attempt": job.attempt,
        },
        failed=None if isinstance(outcome, Success) else reason_of(outcome.error),
        remote=True,
    )

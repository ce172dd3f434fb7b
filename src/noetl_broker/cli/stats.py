"""The command `stats`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from noetl_broker.cli import output
from noetl_broker.cli.command import Call
from noetl_broker.cli.face import Face, face
from noetl_broker.service.models.stats import StatsRequest
from noetl_broker.text import span


def _length(kind: str, name: str) -> Any:
    """What gives a percentile of a row as text."""
    return lambda row: None if row[kind][name] is None else span(row[kind][name])


def _errors(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{one['count']} {one['type'] or 'without a type'}" for one in row["errors"])


LENGTHS = {name: _length("duration", name) for name in ("p50", "p95", "p99")}
NUMBERS: output.Columns = {
    **{name: name for name in ("started", "completed", "failed", "cancelled", "live")},
    **LENGTHS,
}
TIMES: output.Columns = {"since": "at", **NUMBERS, "backlog": "backlog"}
PLAYBOOKS: output.Columns = {"playbook": "path", "started": "started", "failed": "failed"}
STEPS: output.Columns = {
    **{name: name for name in ("step", "visits", "completed", "failed", "retries")},
    **LENGTHS,
    **{f"wait {name}": _length("wait", name) for name in ("p50", "p95", "p99")},
    "errors": _errors,
}


@face(
    "stats",
    "stats.show_stats",
    Face(StatsRequest, ("path",)),
    example="noetl-broker stats --since 24h\n"
    "noetl-broker stats orders/fulfil --since 14d --by day\n"
    "noetl-broker stats orders/fulfil --since 14d --by day --version 3   # before a change",
)
def stats(_call: Call, _asked: StatsRequest, answer: Any) -> None:
    """Show how many executions started and failed, and how long they took, by time.

    An execution counts in the hour of its start. With PATH, it shows the steps of the playbook too. Durations are those
    of completed executions. A wait is the time from which a job was ready until a worker leased it.
    """
    output.Rows.of(answer["times"], TIMES).show()
    output.say()
    output.Rows.of([answer["total"]], NUMBERS).show()
    if answer["errors"]:
        output.say()
        output.Rows.of(answer["errors"], {"failed": "count", "error": "type"}).show()
    for rows, columns in ((answer["playbooks"], PLAYBOOKS), (answer["steps"], STEPS)):
        if rows:
            output.say()
            output.Rows.of(rows, columns).show()
    if answer["sampled"] < 1:
        output.note(f"the steps are of a sample: {answer['sampled']:.1%} of the executions")
    if answer["missing_hours"]:
        output.note(f"{answer['missing_hours']} hours are not summed yet: their executions are missing")

"""The command `verify`: checks the invariants of stored executions."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from noetl_broker.cli import output
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.face import Answer, Face, ask
from noetl_broker.cli.output import spinner
from noetl_broker.cli.selection import Selection, selection
from noetl_broker.errors import EXIT_FAILED
from noetl_broker.service.models.actions import VerifyRequest, Which
from noetl_broker.service.spans import parse_since

VERIFY = Face(VerifyRequest, hides=frozenset({"execution_id", "which"}))
RECENT = "10min"  # the default of --since


@command(
    "verify",
    example=("noetl-broker verify --since 1h\nnoetl-broker verify 58123456789012345 --deep"),
)
@selection(required=False)
@VERIFY.given_to
def verify(call: Call, *, chosen: Selection, **given: Any) -> int:
    """Check the invariants of stored executions.

    Checks every invariant in one snapshot, so a busy system raises no false alarm. By default it checks executions that
    changed in the last 10 minutes. With ID it checks that execution and its children. Whether executions can still
    move is checked for all that run. Exit 1 if an invariant is broken, or a bucket did not
    answer.
    """
    which = chosen.which if chosen.named else Which(since=RECENT)
    asked = VERIFY.read({**given, "which": which, "execution_id": chosen.ids[0] if chosen.ids else None})
    began = time.monotonic()
    with spinner("checking the invariants"):
        report = ask(call, "executions.verify_executions", asked)
    seconds = time.monotonic() - began
    if not call.printed({"since_seconds": _seconds_since(which), "seconds": round(seconds, 3), **report}):
        _show(report, seconds)
    return EXIT_FAILED if report["broken"] or report.get("unanswered") else 0


def _seconds_since(which: Which) -> float | None:
    moment = None if which.since is None else parse_since(which.since)
    return (datetime.now(UTC) - moment).total_seconds() if isinstance(moment, datetime) else moment


def _show(report: Answer, seconds: float) -> None:
    invariants = report["invariants"]
    columns = {"invariant": "invariant", "broken": "broken", "what must hold": "sentence"}
    output.Rows.of(invariants, columns).show()
    for each in invariants:
        for fault in each["examples"]:
            where = "" if fault["execution_id"] is None else f" execution {fault['execution_id']}"
            output.say(f"{each['invariant']}{where}: {output.cell(fault['detail'])}")
    hold = "all hold, in the buckets that answered" if report.get("unanswered") else "all hold"
    sum_of_all = f"{report['broken']} broken" if report["broken"] else hold
    count = output.executions(report["executions"])
    output.say(f"{count}, {report['running']} that run, {output.span(seconds)}: {sum_of_all}")

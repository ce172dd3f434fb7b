"""Prints `replay --against FILE`: the executions that would differ on an edited playbook, and why."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from noetl_broker.cli import output
from noetl_broker.cli.command import Call
from noetl_broker.cli.playbooks import check_with_database
from noetl_broker.cli.replay.histories import read_histories
from noetl_broker.cli.selection import Selection
from noetl_broker.errors import EXIT_FAILED
from noetl_broker.history.comparisons import KEYS, MOST_EXAMPLES, Comparisons, compared_paths
from noetl_broker.history.decision_diff import FAILURE_GONE
from noetl_broker.playbook import compile_playbook

LONGEST_VALUE = 80  # characters; --json has all
COLUMNS: output.Columns = {
    "executions": "executions", **{"at step" if key == "step" else key: key for key in KEYS},
    "for example": lambda group: group["examples"][0]["execution_id"],
}  # fmt: skip


async def compare(call: Call, chosen: Selection, file: Path, *, ways_only: bool) -> int:
    """Compare the chosen histories with the file (default: all of its path); gives the exit code."""
    [checked] = await check_with_database(call, [file])
    for finding in checked.findings:
        if finding.severity == "error":
            output.note(str(finding))
    if checked.errors:
        output.note(f"noetl-broker: {file} has errors, so nothing was compared")
        return EXIT_FAILED
    playbook = compile_playbook(checked.source, file=str(file), rules=call.playbook_rules)
    parts = [chosen]
    if not chosen.ids:
        paths = compared_paths(playbook, chosen.which.path)
        parts = [chosen._replace(which=chosen.which.model_copy(update={"path": path})) for path in paths]
    comparisons, began = Comparisons(playbook, ways_only=ways_only), time.monotonic()
    for of_path in parts:
        async for part in read_histories(call, of_path):
            comparisons.take(part)
    found = comparisons.as_document(time.monotonic() - began)
    if not call.printed({"file": str(file), **found}):
        _show(found, file)
        if not found["executions"]:
            output.note(call.with_schema("no execution was compared; noetl-broker executions lists what there is"))
    return EXIT_FAILED if found["parting"] or found["unreadable"] else 0


def _show(found: dict[str, Any], file: Path) -> None:
    if found["groups"]:
        output.Rows.of(found["groups"], COLUMNS).show()
        output.say()
    for group in found["groups"]:
        example = group["examples"][0]
        for path, pair in [*example["values"].items()][:MOST_EXAMPLES]:
            was, now = (output.compact_json(value, longest=LONGEST_VALUE) for value in pair)
            output.say(f"{group['step']}: {path} was {was}, would be {now} (in {example['execution_id']})")
    for note in found["notes"]:
        output.say(f"noted in {note['executions']}: {note['step']}: {note['what']}")
    for one in found["unreadable"]:
        output.say(f"not compared: {one['executions']} ({one['reason']})")
    mended = [group for group in found["groups"] if group["what"] == FAILURE_GONE]
    count = sum(group["executions"] for group in mended)
    gone = f" ({count} of them because the failure is gone)" if mended else ""
    running = f" ({found['still_running']} of them still running)" if found["still_running"] else ""
    output.say(
        f"{output.executions(found['executions'])} against {file}: {found['same']} go the same way{running}, "
        f"{found['parting']} diverge{gone} ({found['executions_per_second']:,.0f} executions/s)"
    )
    if mended:
        example = mended[0]["examples"][0]["execution_id"]
        output.say(f"noetl-broker register {file}, then noetl-broker retry {example} --version latest")

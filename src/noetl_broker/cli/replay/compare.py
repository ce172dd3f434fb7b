"""Prints `replay --against FILE`: the executions that would differ on an edited playbook, and why."""

from __future__ import annotations

from pathlib import Path

from noetl_broker.cli import output
from noetl_broker.cli.command import Call
from noetl_broker.cli.playbooks import check_with_database
from noetl_broker.cli.replay.histories import read_histories
from noetl_broker.cli.selection import Selection
from noetl_broker.errors import EXIT_FAILED
from noetl_broker.playbook import compile_playbook
from noetl_broker.playbook.blocks import MARK
from noetl_broker.service.comparisons import MOST_EXAMPLES, Comparisons

LONGEST_VALUE = 80  # characters; --json has all


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
    if not chosen.ids and chosen.which.path is None:
        paths = [playbook.path, *([f"{playbook.path}{MARK}*"] if playbook.blocks else [])]
        parts = [chosen._replace(which=chosen.which.model_copy(update={"path": path})) for path in paths]
    comparisons = Comparisons(playbook, ways_only=ways_only)
    for of_path in parts:
        async for part in read_histories(call, of_path):
            comparisons.take(part)
    return _close(comparisons, call, file)


def _close(comparisons: Comparisons, call: Call, file: Path) -> int:
    """Print the totals; gives the exit code."""
    if not call.printed({"file": str(file), **comparisons.as_document()}):
        _show(comparisons, file)
        if not comparisons.pace.executions:
            output.note(call.with_schema("no execution was compared; noetl-broker executions lists what there is"))
    return EXIT_FAILED if comparisons.diverged or comparisons.unreadable else 0


def _show(comparisons: Comparisons, file: Path) -> None:
    groups = comparisons.groups()
    if groups:
        columns = ("executions", "at step", "what", "because", "was", "instead", "for example")
        rows = [(group.executions, *key, group.examples[0]["execution_id"]) for key, group in groups]
        output.Rows(columns, rows).show()
        output.say()
    for key, group in groups:
        for path, (was, now) in list(group.examples[0]["values"].items())[:MOST_EXAMPLES]:
            values = [output.compact_json(value, longest=LONGEST_VALUE) for value in (was, now)]
            output.say(
                f"{key[0]}: {path} was {values[0]}, would be {values[1]} (in {group.examples[0]['execution_id']})"
            )
    for note, count in comparisons.notes.most_common():
        output.say(f"noted in {count}: {note.step}: {note.what}")
    for reason, count in comparisons.unreadable.most_common():
        output.say(f"not compared: {count} ({reason})")
    running = f" ({comparisons.running} of them still running)" if comparisons.running else ""
    pace = comparisons.pace
    output.say(
        f"{output.executions(pace.executions)} against {file}: {comparisons.same} go the same way{running}, "
        f"{comparisons.diverged} diverge ({pace.per_second:,.0f} executions/s)"
    )

"""The command `explain`: why a step ran or not, what an execution waits for, why it failed."""

from __future__ import annotations

from collections.abc import Iterator

from noetl_broker.cli import output
from noetl_broker.cli.command import Call, command, execution_id, step_argument, with_traceback
from noetl_broker.cli.face import Answer, ask
from noetl_broker.explain.error_text import traceback_lines, traceback_of

INDENT = "  "


@command(
    "explain",
    example=(
        "noetl-broker explain 58123456789012345           # where it stands, what it waits for, why it failed\n"
        "noetl-broker explain 58123456789012345 load      # why the step load ran, or did not\n"
        "noetl-broker explain 58123456789012345 load#2    # of its second visit\n"
        "noetl-broker explain 58123456789012345 'load[3]'  # the item 3 of an iterator"
    ),
)
@execution_id
@step_argument
@with_traceback
def explain(call: Call, *, execution_id: int, step: str | None, traceback: bool) -> None:
    """Explain why a step ran, why it did not, or what it waits for.

    Shows its cause, and each condition with its outcome, values and their origins. For a waiting join, shows which open
    steps can still reach it. For an open job, shows its lease, its attempts and the next attempt. STEP is the name of a
    step, load#2 for its second visit, or load[3] for an item of an iterator. Without STEP: the state of the execution,
    what it waits for, why it failed or how it ended.
    """
    why = _with_schema(ask(call, "executions.explain", execution_id=execution_id, step=step), call)
    if call.printed(why):
        return
    for line in _lines(why, 0, traceback=traceback):
        output.say(line)


def _with_schema(why: Answer, call: Call) -> Answer:
    """The explanation with `--schema` in the commands that it names."""
    because = [_with_schema(each, call) for each in why.get("because", ())]
    return {**why, "says": call.with_schema(why["says"]), **({"because": because} if because else {})}


def _lines(why: Answer, depth: int, *, traceback: bool) -> Iterator[output.Styled]:
    indent = INDENT * depth
    yield output.Styled(indent + output.one_line(why["says"]), bold=depth == 0)
    if traceback:
        for line in traceback_lines(traceback_of(why.get("facts", {}).get("error"))):
            yield output.Styled(indent + line)
    for answer in why.get("because", ()):
        yield from _lines(answer, depth + 1, traceback=traceback)

"""The command `explain`: why a step ran or did not, what an execution waits for, why it failed or how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import click

from noetl_broker.broker.explain import explain_execution, explain_step
from noetl_broker.broker.why import Why
from noetl_broker.cli import output
from noetl_broker.cli.arguments import StepName
from noetl_broker.cli.frame import Call, command, execution_id
from noetl_broker.errors import OperatorFault
from noetl_broker.store.facts import look_closely
from noetl_broker.store.session import session

INDENT = "  "


@command(
    "explain",
    example=(
        "noetl-broker explain 58123456789012345           # where it stands, what it waits for, why it failed\n"
        "noetl-broker explain 58123456789012345 load      # why the step load ran, or did not\n"
        "noetl-broker explain 58123456789012345 load#2    # of its second visit"
    ),
)
@execution_id
@click.argument("step", metavar="[STEP]", required=False, type=StepName())
def explain(call: Call, *, execution_id: int, step: str | None) -> None:
    """Say why a step ran, why it did not, or what it waits for.

    Its cause, each condition with its outcome, the values that it read and where they came from; for a waiting join,
    which live steps can still come to it; for an open job, its lease, its attempts and its next one. STEP is the name
    of a step, or load#2 for its second visit. Without STEP: where the whole execution stands, what it waits for, why
    it failed or how it ended.
    """
    name, number = _visit(step) if step is not None else (None, None)

    async def ask() -> Why:
        async with session(call.dsn, name="explain") as connection:
            history, facts = await look_closely(connection, execution_id, call.playbook_rules)
            if name is None:
                return explain_execution(history, facts)
            return explain_step(history, facts, name, number)

    why = asyncio.run(ask())
    if call.as_json:
        output.show_json(why.as_json())
        return
    for line in _lines(why, 0):
        output.say(line)


def _lines(why: Why, depth: int) -> Iterator[output.Styled]:
    yield output.Styled(INDENT * depth + output.one_line(why.says), bold=depth == 0)
    for answer in why.because:
        yield from _lines(answer, depth + 1)


def _visit(step: str) -> tuple[str, int | None]:
    """A step's name, and the number of a visit where one is given; raises OperatorFault where that is no number."""
    name, mark, number = step.partition("#")
    if mark and not (number.isascii() and number.isdigit() and int(number) > 0):
        raise OperatorFault(f"{step} names no visit: write for example {name}#2 for the second")
    return name, int(number) if mark else None

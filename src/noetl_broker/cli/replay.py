"""The command `replay`: retake recorded turns through the same core, and name what differs from what was written."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from noetl_broker.broker.replay import Retaken, compare_end, retake
from noetl_broker.broker.story import tell_turn
from noetl_broker.cli import output
from noetl_broker.cli.frame import LARGEST_ID, Call, command
from noetl_broker.errors import EXIT_FAILED, OperatorFault
from noetl_broker.store.history import all_executions, load_history
from noetl_broker.store.pool import Connection
from noetl_broker.store.session import session


@command("replay", example="noetl-broker replay 95911055824257026")
@click.argument("execution_ids", metavar="ID…", nargs=-1, type=click.IntRange(1, LARGEST_ID))
@click.option("--all", "everything", is_flag=True, help="Every execution that the broker has read.")
def replay(call: Call, *, execution_ids: tuple[int, ...], everything: bool) -> int:
    """Retake the recorded turns of executions and compare.

    Takes every turn again, from its event alone, through the same rules, and holds what they decide against
    what was written: events, jobs, tracking rows, the end. Prints the story of each; exit 1 where anything differs.
    """
    if bool(execution_ids) == everything:
        raise OperatorFault("replay takes the ids of executions, or --all")

    async def ask() -> int:
        async with session(call.dsn, name="replay") as connection:
            retold = _Retold(call)
            if everything:
                async for execution_id in all_executions(connection):
                    await retold.take(connection, execution_id)
            else:
                for execution_id in execution_ids:
                    await retold.take(connection, execution_id)
            return retold.close(everything=everything)

    return asyncio.run(ask())


class _Retold:
    """What was replayed so far; with `--json` the findings wait for the one document at the end."""

    def __init__(self, call: Call) -> None:
        """Nothing yet."""
        self._call = call
        self._executions = 0
        self._turns = 0
        self._different: list[dict[str, Any]] = []

    async def take(self, connection: Connection, execution_id: int) -> None:
        """Replay one execution and tell it."""
        history = await load_history(connection, execution_id, self._call.playbook_rules)
        turns = list(retake(history))
        differences = [difference for turn in turns for difference in turn.differences]
        differences += compare_end(history, turns)
        self._executions += 1
        self._turns += len(turns)
        if differences:
            self._different.append({"execution_id": execution_id, "differences": differences})
        if not self._call.as_json:
            self._tell(execution_id, turns, differences)

    def close(self, *, everything: bool) -> int:
        """Tell the sum; gives the exit code."""
        if self._call.as_json:
            output.show_json({"executions": self._executions, "turns": self._turns, "different": self._different})
        elif everything or self._executions > 1:
            click.echo(f"{self._executions} executions, {self._turns} turns, {len(self._different)} different")
        return EXIT_FAILED if self._different else 0

    def _tell(self, execution_id: int, turns: list[Retaken], differences: list[str]) -> None:
        if not differences:
            for turn in turns:
                for line in tell_turn(turn.recorded.event, turn.decision):
                    click.echo(line)
            click.echo(f"execution {execution_id}: {len(turns)} turns, no difference")
            return
        click.echo(f"execution {execution_id}: {len(differences)} differences")
        for difference in differences:
            click.echo(f"  {difference}")

"""The command `fork`."""

from __future__ import annotations

import asyncio
import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from noetl_broker.cli import output
from noetl_broker.cli.arguments import LATEST, StepName, VersionOrLatest
from noetl_broker.cli.bulk import MOST, BulkOptions, GroupPreview, act_on_each, bulk_options, make_groups_with
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.playbooks import check_with_database
from noetl_broker.cli.selection import Body, Selection, selection
from noetl_broker.cli.start_cancel import refuse_constant
from noetl_broker.errors import BrokerError, OperatorFault
from noetl_broker.playbook import compile_playbook
from noetl_broker.service.bulk import Treatment, find_executions, find_left_out
from noetl_broker.service.recoveries import Forked, OnVersion, OtherPlaybook, fork_execution, key_of_fork
from noetl_broker.store.admin import executions
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.connect.session import session
from noetl_broker.template import read_integer, read_real


class ChosenPlaybook(NamedTuple):
    """Another playbook for a fork: a file, or another version of the same playbook (LATEST: the latest)."""

    file: Path | None
    version: int | None


def other_playbook(body: Body) -> Body:
    """Give a command `--playbook` and `--version`; its body takes them as `other`."""

    @functools.wraps(body)
    def run(*arguments: Any, file: Path | None, version: int | None, **own: Any) -> int | None:
        if file is not None and version is not None:
            raise OperatorFault("--playbook and --version both choose a playbook: give one of them")
        return body(*arguments, other=ChosenPlaybook(file, version), **own)

    made = click.option(
        "--version", type=VersionOrLatest(), metavar="N|latest", help="Use this version of the same playbook."
    )(run)
    return click.option(
        "--playbook",
        "file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Use this playbook; it is registered unless it already is.",
    )(made)


_SETTING = re.compile(r"(.+?)\.result=(.*)", re.DOTALL)


@command(
    "fork",
    example="""noetl-broker fork 58123456789012345 --from load --set 'transform.result={"rows": 3}'
noetl-broker fork --from load --step load --since 2h --yes""",
)
@selection(version=False)
@bulk_options
@click.option("--from", "from_step", metavar="STEP", required=True, type=StepName(), help="The step to start from.")
@other_playbook
@click.option("--set", "settings", multiple=True, metavar="STEP.result=JSON", help="Replace the result of a step.")
@click.option(
    "--idempotency-key", metavar="KEY", help="A key starts one execution, however often the call is repeated."
)
def fork(
    call: Call,
    *,
    chosen: Selection,
    bulk: BulkOptions,
    from_step: str,
    other: ChosenPlaybook,
    settings: Sequence[str],
    idempotency_key: str | None,
) -> int:
    """Start an execution from a step of another, with its results.

    The new execution gets the workload and the results from before the last visit of STEP. If STEP was never entered,
    it gets all results. It enters STEP only. Other open steps are left out, and no join waits for them. The other
    execution does not change. Prints the id of the new one. With filters instead of an ID: all failed ones (or those of
    --status) that have no parent and that no fork or retry recovered before. Without --yes, it says what each fork
    would begin with.
    """
    if idempotency_key is not None and not chosen.ids:
        raise OperatorFault("--idempotency-key is for one execution; with filters, each fork has a key of its own")
    values = dict(_setting(text) for text in settings)

    async def ask() -> int:
        async with session(call.database, name="fork") as connection:
            on = None
            if other.version is not None:
                on = OnVersion(None if other.version == LATEST else other.version, call.playbook_rules)

            async def fork_one(execution_id: int, key: str | None) -> Forked:
                used = await _other_playbook(call, connection, execution_id, other.file, on)
                forked = await fork_execution(
                    connection, execution_id, from_step, call.playbook_rules, other=used, values=values, key=key
                )
                if forked.registered is not None and forked.registered.new:
                    output.note(f"registered {forked.registered.path} version {forked.registered.version}")
                return forked

            async def recover(execution_id: int) -> dict[str, Any]:
                return (await fork_one(execution_id, key_of_fork(execution_id, from_step))).as_document()

            if chosen.ids:
                [one] = chosen.ids
                forked = await fork_one(one, idempotency_key)
                _show(call, one, from_step, forked, await executions.find_execution(connection, forked.execution_id))
                return 0
            found = await find_executions(connection, "fork", chosen.which, limit=bulk.limit)
            left_out = await find_left_out(connection, "fork", chosen.which, limit=MOST) or []
            groups = None
            asked = Treatment("fork", call.playbook_rules, from_step=from_step, on=on)
            if other.file is None and not values:
                groups = make_groups_with(connection, asked, found)
            return await act_on_each(
                call, found, recover, bulk,
                what=f"executions are forked from {from_step}", none="no execution is left to be forked",
                preview=GroupPreview(groups, len(left_out)),
            )  # fmt: skip

    return asyncio.run(ask())


def _show(call: Call, execution_id: int, step: str, forked: Forked, row: dict[str, Any]) -> None:
    new, plan = forked.execution_id, forked.plan
    taken = [wanted.step for wanted in plan.taken]
    if call.as_json:
        output.show_json(
            {
                "execution_id": new,
                "forked_from": execution_id,
                "from": step,
                "path": row["path"],
                "version": row["version"],
                "taken": taken,
                "left_out": list(plan.left_out),
            }
        )
        return
    output.say(new)
    results = f"the results of {', '.join(taken)}" if taken else "no results"
    output.note(f"it starts from {step} with {results}")
    if plan.left_out:
        where = f"{row['path']} version {row['version']}"
        output.note(f"left out, because {where} has no such steps: {', '.join(plan.left_out)}")


async def _other_playbook(
    call: Call, connection: Connection, execution_id: int, file: Path | None, on: OnVersion | None
) -> OtherPlaybook | None:
    if on is not None:
        return await on.of(connection, execution_id)
    if file is None:
        return None
    [checked] = await check_with_database(call, [file])
    for found in checked.findings:
        output.note(str(found))
    if checked.errors:
        raise BrokerError(f"{file} has errors; nothing was done")
    playbook = compile_playbook(checked.source, file=str(file), rules=call.playbook_rules)
    return OtherPlaybook(playbook, checked.source.decode(), None)


def _setting(text: str) -> tuple[str, Any]:
    """Read a `STEP.result=JSON`; raises OperatorFault for anything else."""
    found = _SETTING.fullmatch(text)
    if found is None:
        raise OperatorFault(
            f"--set {text!r} is not STEP.result=JSON; write for example --set 'fetch.result={{\"n\": 3}}'"
        )
    try:
        return found[1], json.loads(
            found[2], parse_constant=refuse_constant, parse_int=read_integer, parse_float=read_real
        )
    except ValueError as error:
        hint = f"write text in double quotes: --set '{found[1]}.result=\"text\"'"
        raise OperatorFault(f"the value in --set {text!r} is not JSON: {error}; {hint}") from error

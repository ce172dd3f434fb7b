"""The command `fork`: a new execution that takes over the results of another and goes on from a step."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from noetl_broker.broker.plans import Plan, plan_fork
from noetl_broker.cli import output
from noetl_broker.cli.arguments import StepName
from noetl_broker.cli.frame import Call, command, execution_id
from noetl_broker.cli.playbooks import check_file
from noetl_broker.errors import BrokerError, OperatorFault
from noetl_broker.playbook import compile_playbook
from noetl_broker.playbook.model import Playbook
from noetl_broker.store import catalog, executions, recovery
from noetl_broker.store.history import load_history
from noetl_broker.store.pool import Connection
from noetl_broker.store.session import session
from noetl_broker.template import read_integer, read_real

_SETTING = re.compile(r"(.+?)\.result=(.*)", re.DOTALL)


@command(
    "fork",
    example="""noetl-broker fork 58123456789012345 --from load --set 'transform.result={"rows": 3}'""",
)
@execution_id
@click.option("--from", "step", metavar="STEP", required=True, type=StepName(), help="The step from which it goes on.")
@click.option(
    "--playbook",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Go on with this playbook; it is registered, unless it is already.",
)
@click.option("--version", type=click.IntRange(1, 2**31 - 1), help="Go on with this version of the same playbook.")
@click.option(
    "--set", "settings", multiple=True, metavar="STEP.result=JSON", help="The result of a step, instead of its own."
)
@click.option("--idempotency-key", metavar="KEY", help="The same key starts one execution, however often it is sent.")
def fork(
    call: Call,
    *,
    execution_id: int,
    step: str,
    file: Path | None,
    version: int | None,
    settings: Sequence[str],
    idempotency_key: str | None,
) -> None:
    """Start an execution that takes over the results of another and goes on from a step.

    It takes over the workload, and the results of all steps that were done before STEP was entered last (or of all
    steps, where it never was). Only STEP is entered: what ran beside it is not taken over, and no join waits for it.
    The other execution is not changed. Prints the id of the new one.
    """
    if file is not None and version is not None:
        raise OperatorFault("--playbook and --version both say which playbook: give one of them")
    values = dict(_setting(text) for text in settings)

    async def ask() -> tuple[int, Plan, dict[str, Any]]:
        async with session(call.dsn, name="fork") as connection:
            history = await load_history(connection, execution_id, call.playbook_rules)
            other = await _other_playbook(call, connection, execution_id, file, version)
            plan = plan_fork(history, step, playbook=other[0] if other else None, values=values)
            catalog_id = None
            if other is not None:
                catalog_id = await _catalog_id(connection, *other)
            new = await recovery.fork_execution(
                connection, execution_id, plan, catalog_id=catalog_id, key=idempotency_key
            )
            return new, plan, await executions.find_execution(connection, new)

    _tell(call, execution_id, step, *asyncio.run(ask()))


def _tell(call: Call, execution_id: int, step: str, new: int, plan: Plan, row: dict[str, Any]) -> None:
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
    output.note(f"it goes on from {step} with {results}")
    if plan.left_out:
        where = f"{row['path']} version {row['version']}"
        output.note(f"not taken over, because {where} has no such steps: {', '.join(plan.left_out)}")


Other = tuple[Playbook, int | None, str]  # with its catalog id, if it has one, and its text


async def _other_playbook(
    call: Call, connection: Connection, execution_id: int, file: Path | None, version: int | None
) -> Other | None:
    rules = call.playbook_rules
    if version is not None:
        path = (await executions.find_execution(connection, execution_id))["path"]
        catalog_id, text = await catalog.find_row(connection, path, version)
        return compile_playbook(text, file=path, rules=rules), catalog_id, text
    if file is None:
        return None
    checked = check_file(call, file, strict=False)
    for found in checked.findings:
        output.note(str(found))
    if checked.errors:
        raise BrokerError(f"{file} has errors; nothing was done")
    return compile_playbook(checked.source, file=str(file), rules=rules), None, checked.source.decode()


async def _catalog_id(connection: Connection, playbook: Playbook, catalog_id: int | None, text: str) -> int:
    if catalog_id is not None:
        return catalog_id
    registered = await catalog.find_or_register(connection, playbook, text)
    if registered.new:
        output.note(f"registered {registered.path} version {registered.version}")
    return registered.catalog_id


def _setting(text: str) -> tuple[str, Any]:
    """One `STEP.result=JSON`; raises OperatorFault where it is none."""
    found = _SETTING.fullmatch(text)
    if found is None:
        raise OperatorFault(
            f"--set {text!r} is not STEP.result=JSON; write for example --set 'fetch.result={{\"n\": 3}}'"
        )
    try:
        return found[1], json.loads(
            found[2], parse_constant=_refuse_constant, parse_int=read_integer, parse_float=read_real
        )
    except ValueError as error:
        hint = f"text stands in double quotes: --set '{found[1]}.result=\"text\"'"
        raise OperatorFault(f"the value in --set {text!r} is not JSON: {error}; {hint}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")

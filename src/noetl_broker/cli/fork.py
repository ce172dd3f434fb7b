"""The command `fork`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from noetl_broker.cli import output
from noetl_broker.cli.bulk import TREATMENT, BulkOptions, Many, act_on_many, bulk_options
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.face import Answer, Face, ask, service
from noetl_broker.cli.playbooks import check_with_database
from noetl_broker.cli.selection import Selection, selection
from noetl_broker.cli.typed import read_json_in
from noetl_broker.errors import BrokerError, OperatorFault
from noetl_broker.service.models.actions import ForkOnPlaybook, ForkRequest

SAID = Face(
    ForkRequest,
    hides=frozenset({"execution_id", "values"}),
    helps={
        "from_step": "The step to start from.",
        "version": "Use this version of the same playbook, or the latest.",
        "idempotency_key": "A key starts one execution, however often the call is repeated.",
    },
)
_SETTING = re.compile(r"(.+?)\.result=(.*)", re.DOTALL)


@command(
    "fork",
    example="""noetl-broker fork 58123456789012345 --from load --set 'transform.result={"rows": 3}'
noetl-broker fork --from load --step load --since 2h --yes""",
)
@selection(version=False)
@bulk_options
@SAID.given_to
@click.option(
    "--playbook",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Use this playbook; it is registered unless it already is.",
)
@click.option("--set", "settings", multiple=True, metavar="STEP.result=JSON", help="Replace the result of a step.")
def fork(
    call: Call, *, chosen: Selection, bulk: BulkOptions, file: Path | None, settings: Sequence[str], **given: Any
) -> int:
    """Start an execution from a step of another, with its results.

    The new execution gets the workload and the results from before the last visit of STEP. If STEP was never entered,
    it gets all results. It enters STEP only. Other open steps are left out, and no join waits for them. The other
    execution does not change. Prints the id of the new one. With filters instead of an ID: all failed ones (or those of
    --status) that have no parent and that no fork or retry recovered before. Without --yes, it says what each fork
    would begin with.
    """
    if given["idempotency_key"] is not None and not chosen.ids:
        raise OperatorFault("--idempotency-key is for one execution; with filters, each fork has a key of its own")
    if file is not None and given["version"] is not None:
        raise OperatorFault("--playbook and --version both choose a playbook: give one of them")
    values = dict(_setting(text) for text in settings)
    text = None if file is None else _checked(call, file)
    if chosen.ids:
        asked = SAID.read({**given, "execution_id": chosen.ids[0]}).model_copy(update={"values": values})
        if text is None:
            answer = ask(call, "execution_actions.fork_execution", asked)
        else:
            onto = ForkOnPlaybook(**asked.model_dump(), text=text, file=str(file))
            answer = ask(call, "execution_actions.fork_on_playbook", onto)
        _show(call, asked, answer)
        return 0
    many = Many("fork", f"executions are forked from {given['from_step']}", "no execution is left to be forked")
    actions = service("execution_actions")
    other = None if text is None else actions.other_playbook(text, str(file), call.playbook_rules)
    asked = TREATMENT.read({**given, "action": "fork"})
    return asyncio.run(act_on_many(call, chosen, bulk, many, asked, other=other, values=values))


def _show(call: Call, asked: ForkRequest, answer: Answer) -> None:
    if registered := answer.pop("registered", None):
        output.note(f"registered {registered}")
    if call.printed(answer):
        return
    output.say(answer["execution_id"])
    results = f"the results of {', '.join(answer['taken'])}" if answer["taken"] else "no results"
    output.note(f"it starts from {asked.from_step} with {results}")
    if answer["left_out"]:
        where = f"{answer['path']} version {answer['version']}"
        output.note(f"left out, because {where} has no such steps: {', '.join(answer['left_out'])}")


def _checked(call: Call, file: Path) -> str:
    """The text of a playbook. Prints its findings; raises BrokerError if it has errors."""
    [checked] = asyncio.run(check_with_database(call, [file]))
    for found in checked.findings:
        output.note(str(found))
    if checked.errors:
        raise BrokerError(f"{file} has errors; nothing was done")
    return checked.source.decode()


def _setting(text: str) -> tuple[str, Any]:
    """Read a `STEP.result=JSON`; raises OperatorFault for anything else."""
    found = _SETTING.fullmatch(text)
    if found is None:
        raise OperatorFault(
            f"--set {text!r} is not STEP.result=JSON; write for example --set 'fetch.result={{\"n\": 3}}'"
        )
    return found[1], read_json_in(found[2], f"--set {text!r}", "value", f"--set '{found[1]}.result=\"text\"'")

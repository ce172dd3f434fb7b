"""The commands `cancel`, `pause`, `resume`, `retry`, `reevaluate` and `dead-letters`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import click

from noetl_broker.broker.state.state import COMPENSATING
from noetl_broker.cli import output
from noetl_broker.cli.bulk import MOST, BulkOptions, Many, act_on_many, bulk_command, bulk_options, treatment
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.face import Answer, Face, ask
from noetl_broker.cli.rights import PRODUCER
from noetl_broker.cli.selection import Selection, selection
from noetl_broker.errors import EXIT_FAILED
from noetl_broker.service.models.actions import Bulk, ReasonRequest, RetryRequest
from noetl_broker.service.models.base import Given, OneExecution
from noetl_broker.service.models.health import SearchDeadLetters
from noetl_broker.service.models.playbooks import OnePath, PausePathRequest

WITH_REASON = Face(ReasonRequest, helps={"reason": "The reason; stored with the execution."})
OTHER_WAYS = (
    "--or-from-start starts those anew that go another way; fork --from STEP --version N|latest starts from a step that"
    " you choose"
)


@bulk_command(
    "cancel",
    "execution_actions.cancel_execution",
    WITH_REASON,
    Many("cancel", "executions are cancelled", "no execution is left to be cancelled"),
    role=PRODUCER,
    several=True,
    example=(
        "noetl-broker cancel 58123456789012345 --reason 'wrong city'\n"
        "noetl-broker cancel --path 'examples/*' --until 2h          # counts them\n"
        "noetl-broker cancel --path 'examples/*' --until 2h --yes    # does it"
    ),
    fails=lambda answer: not answer["requested"] and answer["status"] != "CANCELLED",
)
def cancel(call: Call, asked: ReasonRequest, answer: Answer) -> None:
    """Cancel an execution and its children.

    The broker cancels it when it reads the request. Exit 1 if the execution has already completed or failed. With
    filters instead of an ID: all that have not ended.
    """
    _show_requested(call, asked, answer, "cancelling")


def _show_requested(call: Call, asked: OneExecution, answer: Answer, doing: str) -> None:
    execution_id, status = asked.execution_id, answer["status"]
    if answer["requested"]:
        output.say(f"{doing} execution {execution_id}")
    elif status == COMPENSATING:
        abandon = call.with_schema(f"noetl-broker abandon {execution_id}")
        output.say(f"execution {execution_id} is undoing what it did: a cancel changes nothing; {abandon} ends it")
    else:
        output.say(f"execution {execution_id} has already ended" + (f": {status}" if status else ""))


def _of_executions_or_path(
    name: Bulk, doing: str, done: str, said: Face, path_request: type[Given], example: str
) -> Callable[[Callable[[Answer], str]], click.Command]:
    """Make `pause` or `resume` of a function that says what became of a playbook; its docstring is the help."""
    many = Many(name, f"executions are {done}", f"no execution is left to be {done}")

    def decorate(say_path: Callable[[Answer], str]) -> click.Command:
        def body(call: Call, *, chosen: Selection, bulk: BulkOptions, **given: Any) -> int:
            path = chosen.path_alone
            if path is not None:
                answer = ask(call, f"playbooks.{name}_path", path_request.model_validate({"path": path, **given}))
                if call.as_json:
                    output.show_json(answer)
                else:
                    output.say(call.with_schema(say_path(answer)))
                return 0
            if len(chosen.ids) != 1:
                return asyncio.run(act_on_many(call, chosen, bulk, many, treatment(name, given)))
            asked = said.read({**given, "execution_id": chosen.ids[0]})
            answer = ask(call, f"execution_actions.{name}_execution", asked)
            if call.as_json:
                output.show_json(answer)
            else:
                _show_requested(call, asked, answer, doing)
            return 0 if answer["requested"] else EXIT_FAILED

        for option in reversed(said._replace(hides=frozenset({"execution_id"})).options()):
            option(body)
        made = selection(several=True)(bulk_options(body))
        made.__doc__ = say_path.__doc__
        return command(name, example=example)(made)

    return decorate


@_of_executions_or_path(
    "pause",
    "pausing",
    "paused",
    WITH_REASON,
    PausePathRequest,
    "noetl-broker pause 58123456789012345 --reason 'disk full'\n"
    "noetl-broker pause --path examples/weather                          # its new executions are queued\n"
    "noetl-broker pause --path examples/weather --status running --yes   # and these are paused",
)
def pause(answer: Answer) -> str:
    """Pause executions, or queue the new executions of a playbook.

    A paused execution enters no step, starts nothing, and does not end. Its children pause, too. Leased jobs go on.
    Failures, deadlines and cancels count. With --path alone, new executions of that playbook are queued, and those that
    run are not paused.
    """
    path = answer["path"]
    remedy = f"noetl-broker pause --path {path} --status running pauses running executions"
    return f"new executions of {path} are queued; {remedy}"


@_of_executions_or_path(
    "resume",
    "resuming",
    "resumed",
    Face(OneExecution),
    OnePath,
    "noetl-broker resume 58123456789012345\n"
    "noetl-broker resume --path examples/weather                       # admits queued executions\n"
    "noetl-broker resume --path examples/weather --status paused --yes",
)
def resume(answer: Answer) -> str:
    """Resume paused executions, or the new executions of a playbook.

    The kept tokens go on in their order. Children are resumed, too; one that was paused by itself stays paused. With
    --path alone, the queued executions of that playbook are admitted, the oldest first.
    """
    if not answer["changed"] and not answer["admitted"]:
        return f"{answer['path']} is not paused"
    return f"new executions of {answer['path']} run again; admitted: {output.executions(answer['admitted'])}"


@bulk_command(
    "reevaluate",
    "execution_actions.reevaluate_execution",
    Face(OneExecution),
    Many("reevaluate", "dead letters are put back", "no dead letters are left to put back"),
    example="noetl-broker reevaluate 58123456789012345\nnoetl-broker reevaluate --error 'audit table' --yes",
)
def reevaluate(_call: Call, asked: OneExecution, answer: Answer) -> None:
    """Give dead letters and lost mail back to the broker.

    Lost mail: events without a turn that are not in the inbox. Repeating the command is harmless. With filters instead
    of an ID: all executions with dead letters; --error and --since compare with the dead letter.
    """
    _show_put_back(asked.execution_id, answer["put_back"])


def _show_put_back(execution_id: int, count: int) -> None:
    if count:
        output.say(f"execution {execution_id}: {count} {'event is' if count == 1 else 'events are'} put back")
    else:
        output.say(f"execution {execution_id} has no dead letters and no lost mail")


@bulk_command(
    "retry",
    "execution_actions.retry_execution",
    Face(
        RetryRequest,
        helps={
            "version": "Continue on this version of the playbook, or on the latest.",
            "or_from_start": "With --version: start an execution anew if that version goes another way.",
        },
    ),
    Many("retry", "failed executions are retried", "no failed execution is left to retry", OTHER_WAYS),
    version=False,
    example=(
        "noetl-broker retry 58123456789012345\n"
        "noetl-broker retry --step load --since 2h          # counts them\n"
        "noetl-broker retry --step load --since 2h --yes    # does it\n"
        "noetl-broker retry --step load --version latest    # after a fix: says which can go on"
    ),
)
def retry(call: Call, asked: RetryRequest, answer: Answer) -> None:
    """Retry failed executions, each as a new execution from its failed step.

    A failed execution stays failed. A new one with its results, workload and version continues from the failed step and
    all other open steps. Each retry gives the same new execution. Dead letters of a running execution are given back to
    the broker. With --version, it continues on that version if that decides the same up to the failure; otherwise
    nothing is started, and it says where they differ. With filters instead of an ID: all failed executions that were
    not recovered before and have no parent.
    """
    execution_id = asked.execution_id
    if "put_back" in answer:
        _show_put_back(execution_id, answer["put_back"])
        return
    new, before = answer["recovered_as"], answer["status_before"]
    if before is not None:
        again = call.with_schema(f"noetl-broker retry {new}")
        further = f"; {again} retries that one" if before == "FAILED" else ""
        output.say(f"execution {execution_id} is continued as {new}, which is {before}{further}")
    else:
        steps, version = ", ".join(answer["steps"]), answer.get("version")
        where = f"{steps} on version {version}" if version is not None else steps
        output.say(f"execution {new} continues from {where}; it retries {execution_id}")
    for note in answer["notes"]:
        output.note(note)


@command("dead-letters", example="noetl-broker dead-letters --path 'examples/*' --since 2h")
@selection(ids=False, required=False)
@click.option("--limit", type=click.IntRange(1, MOST), default=100, show_default=True, help="How many at most.")
def dead_letters(call: Call, *, chosen: Selection, limit: int) -> None:
    """List dead letters: events on which deciding failed, oldest first.

    The cause is a bug of the program, or a value that the database refuses. When it is mended, `reevaluate` gives the
    events back to the broker. --error and --since compare with the dead letter.
    """
    found = ask(call, "health.search_dead_letters", SearchDeadLetters(which=chosen.which, limit=limit))
    if call.as_json:
        output.show_json(found)
        return
    columns = ("set aside", "execution", "path", "event", "of", "reason")
    fields = ("created_at", "execution_id", "path", "event_type", "step", "reason")
    output.show_table(columns, [[letter[field] for field in fields] for letter in found])

"""The commands `cancel`, `pause`, `resume`, `retry`, `reevaluate` and `dead-letters`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from noetl_broker.broker.state.state import COMPENSATING
from noetl_broker.cli import output
from noetl_broker.cli.bulk import Many, bulk_command
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.face import Answer, Face, ask
from noetl_broker.cli.rights import PRODUCER
from noetl_broker.cli.selection import Selection, selection
from noetl_broker.service.models.actions import EraseRequest, ReasonRequest, RetryRequest
from noetl_broker.service.models.base import OneExecution
from noetl_broker.service.models.health import SearchDeadLetters

WITH_REASON = Face(ReasonRequest)
LETTERS = Face(SearchDeadLetters, hides=frozenset({"which"}))
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


def _on_path(action: str, sentence: Callable[[Answer], str]) -> Callable[[Call, str, Mapping[str, Any]], None]:
    """Acts on a playbook; `sentence` says what became of it."""

    def act(call: Call, path: str, given: Mapping[str, Any]) -> None:
        answer = ask(call, action, path=path, **given)
        if not call.printed(answer):
            output.say(call.with_schema(sentence(answer)))

    return act


def _paused(answer: Answer) -> str:
    path = answer["path"]
    remedy = f"noetl-broker pause --path {path} --status running pauses running executions"
    return f"new executions of {path} are queued; {remedy}"


def _resumed(answer: Answer) -> str:
    if not answer["changed"] and not answer["admitted"]:
        return f"{answer['path']} is not paused"
    return f"new executions of {answer['path']} run again; admitted: {output.executions(answer['admitted'])}"


@bulk_command(
    "pause",
    "execution_actions.pause_execution",
    WITH_REASON,
    Many("pause", "executions are paused", "no execution is left to be paused"),
    several=True,
    example=(
        "noetl-broker pause 58123456789012345 --reason 'disk full'\n"
        "noetl-broker pause --path examples/weather                          # its new executions are queued\n"
        "noetl-broker pause --path examples/weather --status running --yes   # and these are paused"
    ),
    on_path=_on_path("playbooks.pause_path", _paused),
)
def pause(call: Call, asked: ReasonRequest, answer: Answer) -> None:
    """Pause executions, or queue the new executions of a playbook.

    A paused execution enters no step, starts nothing, and does not end. Its children pause, too. Leased jobs go on.
    Failures, deadlines and cancels count. With --path alone, new executions of that playbook are queued, and those that
    run are not paused.
    """
    _show_requested(call, asked, answer, "pausing")


@bulk_command(
    "resume",
    "execution_actions.resume_execution",
    Face(OneExecution),
    Many("resume", "executions are resumed", "no execution is left to be resumed"),
    several=True,
    example=(
        "noetl-broker resume 58123456789012345\n"
        "noetl-broker resume --path examples/weather                       # admits queued executions\n"
        "noetl-broker resume --path examples/weather --status paused --yes"
    ),
    on_path=_on_path("playbooks.resume_path", _resumed),
)
def resume(call: Call, asked: OneExecution, answer: Answer) -> None:
    """Resume paused executions, or the new executions of a playbook.

    The kept tokens go on in their order. Children are resumed, too; one that was paused by itself stays paused. With
    --path alone, the queued executions of that playbook are admitted, the oldest first.
    """
    _show_requested(call, asked, answer, "resuming")


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


@bulk_command(
    "erase",
    "execution_actions.erase_execution",
    Face(EraseRequest, hides=frozenset({"preview"})),
    Many("erase", "executions are erased", "no execution is left to be erased", asks=True, rate=1000.0),
    several=True,
    example=(
        "noetl-broker erase 58123456789012345          # says what will be erased\n"
        "noetl-broker erase 58123456789012345 --yes    # erases it\n"
        "noetl-broker erase --path 'orders/*' --until 2026-01-31 --yes"
    ),
)
def erase(_call: Call, _asked: EraseRequest, _answer: Answer) -> None:
    """Erase the values of executions that have ended.

    Payloads, results, errors, logs, keys and names of people go; statuses, times, decisions and names of steps stay.
    What an execution started, its forks and its retries are erased with it, and the signals that they took. Without
    --yes, it says how many, and which are refused. Nothing brings the values back. With filters instead of IDs: all
    that have ended.
    """


@command("dead-letters", example="noetl-broker dead-letters --path 'examples/*' --since 2h")
@selection(ids=False, required=False)
@LETTERS.given_to
def dead_letters(call: Call, *, chosen: Selection, **given: Any) -> None:
    """List dead letters: events on which deciding failed, oldest first.

    The cause is a bug of the program, or a value that the database refuses. When it is mended, `reevaluate` gives the
    events back to the broker. --error and --since compare with the dead letter.
    """
    found = ask(call, "health.search_dead_letters", LETTERS.read({**given, "which": chosen.which}))["items"]
    columns = {
        "set aside": "created_at", "execution": "execution_id", "path": "path", "event": "event_type", "of": "step",
        "reason": "reason",
    }  # fmt: skip
    call.show_rows(found, columns)

"""The commands `undo` and `abandon`: go on after a failed undo, or give one up."""

from __future__ import annotations

from typing import Any

from noetl_broker.cli import output
from noetl_broker.cli.command import Call
from noetl_broker.cli.face import Face, face
from noetl_broker.service.models.actions import ReasonRequest, UndoRequest


@face(
    "undo",
    "execution_actions.undo_execution",
    Face(
        UndoRequest,
        ("execution_id",),
        helps={
            "unknown": "Undo also actions of unknown outcome: they timed out, or lost their lease.",
            "version": "Undo with the `compensate` of this version, or of the latest.",
        },
    ),
    example=(
        "noetl-broker undo 58123456789012345\n"
        "noetl-broker undo 58123456789012345 --unknown   # also what may not have happened\n"
        "noetl-broker undo 58123456789012345 --version latest   # with a mended compensate"
    ),
)
def undo(call: Call, asked: UndoRequest, answer: Any) -> None:
    """Undo what is left of an execution that has ended, in a new execution.

    That is what was not undone when the execution failed or was cancelled, or all of one that completed. The last
    success is undone first. Prints the id of the new execution. It has the version of the execution. --version gives
    another one, which must have a `compensate` for all that is left.
    """
    output.say(answer["undone_by"])
    remedy = call.with_schema(f"noetl-broker status {answer['undone_by']}")
    output.note(f"it undoes what is left of execution {asked.execution_id}; {remedy} shows how far it is")


@face(
    "abandon",
    "execution_actions.abandon_execution",
    Face(ReasonRequest, ("execution_id",), helps={"reason": "The reason; stored with the execution."}),
    example="noetl-broker abandon 58123456789012345 --reason 'the bank does it by hand'",
    fails=lambda answer: not answer["requested"],
)
def abandon(_call: Call, asked: ReasonRequest, answer: Any) -> None:
    """Give up the undo of an execution: it fails, and lists what is left.

    An undo that runs is stopped, and its outcome is unknown. Exit 1 if the execution has already ended.
    """
    if answer["requested"]:
        output.say(f"abandoning the undo of execution {asked.execution_id}")
    else:
        output.say(f"execution {asked.execution_id} has already ended: {answer['status']}")

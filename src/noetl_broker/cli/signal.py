"""The command `signal`."""

from __future__ import annotations

import shlex
from typing import Any

import click

from noetl_broker.cli import output
from noetl_broker.cli.arguments import ExecutionId
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.face import Face, ask
from noetl_broker.cli.rights import PRODUCER
from noetl_broker.errors import OperatorFault
from noetl_broker.service.models.actions import SignalExecutionRequest
from noetl_broker.service.models.waits import SendRequest
from noetl_broker.text import join_names

BY_KEY = Face(
    SendRequest,
    ("name",),
    names={"keep_seconds": "--keep"},
    helps={
        "key": "What the signal is about: a wait for this name and key gets it.",
        "payload": "Any JSON, or @FILE with it (@- is stdin): the result of the wait.",
        "keep_seconds": "How long to keep it for a wait; only with --key. [default: 7d]",
        "idempotency_key": "A key sends one signal of the name and key.",
    },
)
TO_ONE = Face(SignalExecutionRequest, ("name",), {"execution_id": "--execution"})


@command(
    "signal",
    role=PRODUCER,
    example=(
        "noetl-broker signal payment --key 42 --payload '{\"amount\": 5}'\n"
        "noetl-broker signal go --execution 96232008007548961"
    ),
)
@BY_KEY.given_to
@click.option(
    "--execution", "execution_id", type=ExecutionId(), help="Send it to this execution only: to waits without `key`."
)
def signal(call: Call, *, execution_id: int | None, **given: Any) -> None:
    """Send a signal to the executions that wait for it.

    NAME is the name that their step has under `signal`. Prints the id of the signal. A signal to an execution reaches
    its waits without `key`. It is kept until the execution ends; exit 1 if it has ended.
    """
    if (given["key"] is None) == (execution_id is None):
        raise OperatorFault("give one of --key and --execution")
    if given["keep_seconds"] is not None and execution_id is not None:
        raise OperatorFault("a signal to an execution is kept until the execution ends; leave out --keep")
    if execution_id is None:
        answer = ask(call, "waits.send_signal", BY_KEY.read(given))
    else:
        answer = ask(call, "execution_actions.signal_execution", TO_ONE.read(given | {"execution_id": execution_id}))
    if not call.printed(answer):
        output.say(answer["signal_id"])
    if keys := answer.get("other_keys"):
        name = given["name"]
        remedy = call.with_schema(f"noetl-broker signal {shlex.quote(name)} --key {shlex.quote(keys[0])}")
        output.note(
            f"noetl-broker: execution {execution_id} waits for {name} with the key {join_names(keys)}, so it does not "
            f"take this signal; send it by the key: {remedy}"
        )

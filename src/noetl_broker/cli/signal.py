"""The command `signal`."""

from __future__ import annotations

import asyncio
import shlex
from datetime import timedelta

import click

from noetl_broker.cli import output
from noetl_broker.cli.arguments import Duration, ExecutionId
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.rights import PRODUCER
from noetl_broker.cli.start_cancel import read_payload
from noetl_broker.errors import EXIT_FAILED, OperatorFault
from noetl_broker.store.admin import signals
from noetl_broker.store.connect.session import session
from noetl_broker.text import join_names


@command(
    "signal",
    role=PRODUCER,
    example=(
        "noetl-broker signal payment --key 42 --payload '{\"amount\": 5}'\n"
        "noetl-broker signal go --execution 96232008007548961"
    ),
)
@click.argument("name")
@click.option("--key", metavar="TEXT", help="What the signal is about: a wait for this name and key gets it.")
@click.option("--execution", type=ExecutionId(), help="Send it to this execution only: to its waits without `key`.")
@click.option("--payload", metavar="JSON", help="Any JSON, or @FILE with it (@- is stdin): the result of the wait.")
@click.option("--idempotency-key", metavar="KEY", help="A key sends one signal of the name and key.")
@click.option("--keep", type=Duration(), show_default="7d", help="How long to keep it for a wait; only with --key.")
def signal(
    call: Call,
    *,
    name: str,
    key: str | None,
    execution: int | None,
    payload: str | None,
    idempotency_key: str | None,
    keep: timedelta | None,
) -> int:
    """Send a signal to the executions that wait for it.

    NAME is the name that their step has under `signal`. Prints the id of the signal. A signal to an execution reaches
    its waits without `key`. It is kept until the execution ends; exit 1 if it has ended.
    """
    if (key is None) == (execution is None):
        raise OperatorFault("give one of --key and --execution")
    if keep is not None and execution is not None:
        raise OperatorFault("a signal to an execution is kept until the execution ends; leave out --keep")
    document = None if payload is None else read_payload(payload, is_object=False)

    async def ask() -> int | None:
        async with session(call.database, name="signal") as connection:
            if execution is not None:
                sent = await signals.signal_execution(
                    connection, execution, name, document, idempotency_key=idempotency_key
                )
                _note_other_keys(call, execution, name, await signals.keys_of_waits(connection, execution, name))
                return sent
            kept = signals.KEEP if keep is None else keep
            return await signals.send_signal(
                connection, name, key or "", document, idempotency_key=idempotency_key, keep=kept
            )

    sent = asyncio.run(ask())
    if call.as_json:
        output.show_json({"signal_id": sent})
    elif sent is not None:
        output.say(sent)
    else:
        output.note(f"noetl-broker: execution {execution} has ended, so nothing was sent")
    return 0 if sent is not None else EXIT_FAILED


def _note_other_keys(call: Call, execution: int, name: str, keys: list[str]) -> None:
    """Say that a signal to an execution misses its open waits, if all of them have another key."""
    if keys and str(execution) not in keys:
        remedy = call.with_schema(f"noetl-broker signal {shlex.quote(name)} --key {shlex.quote(keys[0])}")
        output.note(
            f"noetl-broker: execution {execution} waits for {name} with the key {join_names(keys)}, so it does not "
            f"take this signal; send it by the key: {remedy}"
        )

"""The form that starts a playbook: its fields are made from `workload_schema`."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from http import HTTPStatus
from typing import NamedTuple

from fastapi import APIRouter, Response

from noetl_broker.console.access import Operator
from noetl_broker.console.pages.opened_playbook import WhichPlaybook, compiled, named_in, open_playbook, show_part
from noetl_broker.console.pages.schema_form import Filled, Input, inputs_of_workload, read_inputs, with_errors
from noetl_broker.console.pages.screen import Posted, Shown
from noetl_broker.console.services import Pooled, Rules
from noetl_broker.errors import BrokerError, DatabaseFault
from noetl_broker.playbook import Playbook
from noetl_broker.service.payload_check import payload_fault
from noetl_broker.service.typed_json import json_text
from noetl_broker.store.admin import executions
from noetl_broker.store.admin.catalog import Version
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.connect.session import translate_faults

router = APIRouter()


class StartForm(NamedTuple):
    """A start that a form asks for: a version, its compiled playbook if it has one, the typed values, and the key."""

    of: Version
    playbook: Playbook | None
    filled: Filled
    key: str


class StartRefusal(NamedTuple):
    """Why nothing started: the fields with their errors, and the errors that belong to no field."""

    inputs: list[Input]
    faults: list[str]


def inputs_of(playbook: Playbook | None) -> list[Input]:
    """The fields of a start."""
    document = {} if playbook is None else playbook.document
    found = next((document[key] for key in ("workload", "spec") if isinstance(document.get(key), dict)), None)
    return inputs_of_workload(None if playbook is None else playbook.workload_schema, found or {})


@router.get("/playbooks/start")
async def show_form(
    screen: Shown, _caller: Operator, connections: Pooled, rules: Rules, named: WhichPlaybook
) -> Response:
    """The form, with a key of its own: a second click on its button starts nothing."""
    async with connections.borrow() as connection:
        opened = await open_playbook(screen, connection, named)
    playbook, fault = await compiled(opened.of, rules)
    return show_part(
        screen,
        opened,
        "start",
        inputs=inputs_of(playbook),
        has_schema=playbook is not None and playbook.workload_schema is not None,
        faults=[] if fault is None else [fault],
        key=secrets.token_urlsafe(16),
    )


@router.post("/playbooks/start")
async def start(form: Posted, connections: Pooled, rules: Rules) -> Response:
    """Start an execution of the version that the form was made for, or show what is wrong at its fields."""
    named, key = named_in(form), form.text("key")[:64]
    async with connections.borrow() as connection:
        opened = await open_playbook(form.screen, connection, named)
        playbook, _ = await compiled(opened.of, rules)
        filled = read_inputs(form, inputs_of(playbook))
        refused: StartRefusal | int = StartRefusal(filled.inputs, [])
        if not filled.has_errors:
            refused = await _start(connection, StartForm(opened.of, playbook, filled, key))
    if isinstance(refused, int):
        return form.done(f"/executions/{refused}", f"Version {opened.of.version} of {opened.of.path} has started.")
    return show_part(
        form.screen,
        opened,
        "start",
        status=HTTPStatus.BAD_REQUEST,
        inputs=refused.inputs,
        has_schema=playbook is not None and playbook.workload_schema is not None,
        faults=refused.faults,
        key=key,
    )


async def _start(connection: Connection, wanted: StartForm) -> StartRefusal | int:
    """The id of the execution, or why there is none."""
    try:
        payload = json_text(wanted.filled.values)
        if wanted.playbook is not None:
            error = await asyncio.to_thread(payload_fault, wanted.playbook, wanted.filled.values)
            if error is not None:
                return StartRefusal(*with_errors(wanted.filled.inputs, error["places"]))
        key, of = _key_of(wanted.key, payload), wanted.of
        with translate_faults():
            return await executions.start_execution(
                connection, of.path, payload, version=of.version, idempotency_key=key
            )
    except DatabaseFault:
        raise
    except BrokerError as fault:
        return StartRefusal(wanted.filled.inputs, [str(fault)])


def _key_of(key: str, payload: str) -> str | None:
    """The idempotency key: a form starts one execution with one payload, however often it is sent."""
    return f"console {key} {hashlib.sha256(payload.encode()).hexdigest()[:16]}" if key else None

"""The form that starts a playbook: its fields are made from `workload_schema`."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from http import HTTPStatus

from fastapi import APIRouter, Response

from noetl_broker.console.access import Operator
from noetl_broker.console.pages.opened_playbook import (
    Opened,
    WhichPlaybook,
    compiled,
    named_in,
    open_playbook,
    show_part,
)
from noetl_broker.console.pages.schema_form import Input, inputs_of_workload, read_inputs, with_errors
from noetl_broker.console.pages.screen import Posted, Screen, Shown
from noetl_broker.errors import BrokerError, DatabaseFault
from noetl_broker.playbook import Playbook
from noetl_broker.service import executions as service
from noetl_broker.service.payload_check import payload_fault
from noetl_broker.service.typed_json import json_text

router = APIRouter()


def inputs_of(playbook: Playbook | None) -> list[Input]:
    """The fields of a start."""
    document = {} if playbook is None else playbook.document
    found = next((document[key] for key in ("workload", "spec") if isinstance(document.get(key), dict)), None)
    return inputs_of_workload(None if playbook is None else playbook.workload_schema, found or {})


@router.get("/playbooks/start")
async def show_form(screen: Shown, _caller: Operator, named: WhichPlaybook) -> Response:
    """The form, with a key of its own: a second click on its button starts nothing."""
    opened = await open_playbook(screen, named)
    playbook, fault = await compiled(screen, opened)
    faults = [] if fault is None else [fault]
    return _form(screen, opened, playbook, inputs_of(playbook), faults, key=secrets.token_urlsafe(16))


def _form(
    screen: Screen,
    opened: Opened,
    playbook: Playbook | None,
    inputs: Sequence[Input],
    faults: Sequence[str],
    *,
    key: str,
    status: HTTPStatus = HTTPStatus.OK,
) -> Response:
    has_schema = playbook is not None and playbook.workload_schema is not None
    values = {"inputs": inputs, "faults": faults, "has_schema": has_schema, "key": key, "status": status}
    return show_part(screen, opened, "start", **values)


@router.post("/playbooks/start")
async def start(form: Posted) -> Response:
    """Start an execution of the version that the form was made for, or show what is wrong at its fields."""
    opened, key = await open_playbook(form.screen, named_in(form)), form.text("key")
    playbook, _ = await compiled(form.screen, opened)
    filled = read_inputs(form, inputs_of(playbook))
    inputs, faults = filled.inputs, list[str]()
    try:
        if not filled.has_errors:
            once, payload = form.once(key, json_text(filled.values)), filled.values
            error = None if playbook is None else await asyncio.to_thread(payload_fault, playbook, payload)
            if error is None:
                given = {"path": opened.of.path, "version": opened.of.version, "idempotency_key": once}
                made = await form.screen.ask(service.start_unchecked, payload=payload, **given)
                said = f"Version {opened.of.version} of {opened.of.path} has started."
                return form.done(f"/executions/{made['execution_id']}", said)
            inputs, faults = with_errors(inputs, error["places"])
    except DatabaseFault:
        raise
    except BrokerError as fault:
        faults = [str(fault)]
    status = HTTPStatus.BAD_REQUEST
    return _form(form.screen, opened, playbook, inputs, faults, key=key[:64], status=status)

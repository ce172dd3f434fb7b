"""The tools of agents: actions of the service, and what to ask after each of their answers."""

from __future__ import annotations

from inspect import getdoc
from typing import Any, Final, NamedTuple

import mcp_types as types
from pydantic import TypeAdapter

from noetl_broker.console.agents.short import shorten
from noetl_broker.service import bulk, execution_actions, executions, playbooks, simulations, waits
from noetl_broker.service.action import Caller, ServiceAction
from noetl_broker.service.models.base import Paged
from noetl_broker.service.models.values import shows_payloads

ROWS: Final = 20  # of a page, where the agent names no `limit`
WHOLE: Final = "whole"  # the argument of each tool whose answer is cut
WHOLE_SCHEMA: Final = {"type": "boolean", "default": False, "description": "true: nothing of the answer is left out"}
MORE: Final = "there are more rows: call it again with cursor = data.next"
FAILED: Final = '"status":"FAILED"'
SHOW: Final = "show_execution with the execution_id says how far it is"


class Tool(NamedTuple):
    """An action as a tool; its name, its description and its arguments are those of the action.

    `following`: what to ask next, each where the JSON of the answer has a mark. `changes`: it changes something.
    `is_cut`: long texts and inner lists of its answer are cut.
    """

    action: ServiceAction[Any, Any]
    following: tuple[tuple[str, str], ...] = ()
    changes: bool = False
    is_cut: bool = True

    @property
    def name(self) -> str:
        """The name of the action."""
        return self.action.function.__name__

    def is_for(self, caller: Caller) -> bool:
        """Whether the caller has the role that it needs."""
        return self.action.roles is None or caller.role.may(self.action.roles)

    def described(self) -> types.Tool:
        """The tool as MCP lists it."""
        schema = _plain(self.action.request.model_json_schema())
        if issubclass(self.action.request, Paged):
            schema["properties"]["limit"]["default"] = ROWS
        if self.is_cut:
            schema["properties"][WHOLE] = WHOLE_SCHEMA
        return types.Tool(
            name=self.name,
            description=getdoc(self.action.function),
            input_schema=schema,
            annotations=types.ToolAnnotations(
                read_only_hint=not self.changes, destructive_hint=self.changes, open_world_hint=False
            ),
        )

    def next(self, data: str, caller: Caller) -> list[str]:
        """What the caller may ask after an answer with this JSON."""
        return [
            sentence
            for mark, sentence in self.following
            if mark in data and all(BY_NAME[word].is_for(caller) for word in sentence.split() if word in BY_NAME)
        ]

    def answer(self, found: Any, caller: Caller, *, whole: bool) -> Any:
        """The answer as JSON, without empty fields, and without values if the caller sees none."""
        adapter: TypeAdapter[Any] = TypeAdapter(self.action.answer)
        before = shows_payloads.set(caller.sees_values)
        try:
            data = adapter.dump_python(
                adapter.validate_python(found, from_attributes=True),
                mode="json",
                exclude_none=True,
                exclude_defaults=True,
            )
        finally:
            shows_payloads.reset(before)
        return data if whole or not self.is_cut else shorten(data)


def _plain(schema: Any) -> Any:
    """The schema in fewer words: an optional field is left out, not null; titles say nothing.

    `anyOf` beside `properties` goes: some models of agents refuse it, and the action checks it.
    """
    if isinstance(schema, list):
        return [_plain(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {
        key: _plain(value)
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str))
        and not (key == "default" and value is None)
        and not (key == "anyOf" and "properties" in schema)
    }
    kinds = [one for one in plain.pop("anyOf", ()) if one != {"type": "null"}]
    return kinds[0] | plain if len(kinds) == 1 else plain | ({"anyOf": kinds} if kinds else {})


_LISTED = (
    (FAILED, "explain with an execution_id says why it failed"),
    (FAILED, "act_on_many with action = retry previews a retry of many, version = latest on the latest version"),
    ("", "show_execution with an execution_id shows one step by step"),
)
_SHOWN = (
    (FAILED, "explain with the execution_id and step = data.error.step says why"),
    (FAILED, "preview_retry with the execution_id says what a retry would do"),
    ('"kind":"approval"', "list_approvals says who must decide what"),
    ('"status":"RUNNING"', "explain with the execution_id says what it waits for"),
)
_EXPLAINED = (
    ("", "explain with one step of it says more; list_events has the record"),
    ("", "list_log has what its steps printed"),
    ("noetl-broker retry", "preview_retry and retry_execution do what the command `retry` does"),
)
_FINDINGS = ('"findings":[{', "correct the findings, then call it again")

TOOLS: Final[tuple[Tool, ...]] = (
    Tool(executions.list_executions, _LISTED),
    Tool(executions.show_execution, _SHOWN),
    Tool(executions.explain, _EXPLAINED),
    Tool(executions.list_events, (("", "explain says in sentences what the events mean"),)),
    Tool(executions.list_log, (("", "explain with a step says why it ended so"),)),
    Tool(waits.list_approvals, (('"items":[{', "decide with the execution_id and the step answers one"),)),
    Tool(playbooks.list_playbooks, (("", "show_source with a path has the text"),)),
    Tool(playbooks.show_source, (("", "edit it, then validate, simulate and back_test it"),), is_cut=False),
    Tool(playbooks.validate, (_FINDINGS, ('"valid":true', "simulate runs it; back_test compares past executions"))),
    Tool(simulations.simulate, (_FINDINGS, ('"status":', "back_test compares past executions with it"))),
    Tool(
        playbooks.back_test,
        (_FINDINGS, ('"parting":', "explain with an execution_id of a group; a person registers the playbook")),
    ),
    Tool(executions.start_execution, (("", SHOW),), changes=True),
    Tool(
        execution_actions.signal_execution,
        (('"other_keys":[]', SHOW), ('"other_keys":["', "no wait took it: send_signal with one of data.other_keys")),
        changes=True,
    ),
    Tool(waits.send_signal, (("", "list_executions with status RUNNING shows who still waits"),), changes=True),
    Tool(waits.decide, (("", SHOW),), changes=True),
    Tool(
        execution_actions.preview_retry,
        (('"goes_on":true', "retry_execution does it"), ('"latest":', "version = latest retries on data.latest")),
    ),
    Tool(execution_actions.retry_execution, (("", "show_execution with data.recovered_as"),), changes=True),
    Tool(
        bulk.act_on_many,
        (
            ('"groups":[{', "call it again with preview = false to do this"),
            ('"done":[{', "list_executions shows how they went on"),
            ('"next":"', "there are more: call it again with after = data.next"),
        ),
        changes=True,
    ),
)
BY_NAME: Final = {tool.name: tool for tool in TOOLS}

"""The JSON Schema of playbooks, so that an editor can complete and check them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from noetl_broker.playbook.concurrency import LIMITS
from noetl_broker.playbook.header import API_VERSION, KIND
from noetl_broker.playbook.items import MOST_TOLERATED
from noetl_broker.playbook.iterations import CONCURRENCY
from noetl_broker.playbook.joins import NEEDS
from noetl_broker.playbook.keywords import OWN_KEYS, TYPE_KEYS
from noetl_broker.playbook.own_keys import NEEDED
from noetl_broker.playbook.plain_values import NAME_CHARS, PRIORITIES
from noetl_broker.playbook.retries import ATTEMPTS, MULTIPLIERS
from noetl_broker.playbook.throttle import THROTTLED

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def playbook_schema(extra_step_types: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Give the schema as JSON, with these step types beside the built-in ones."""
    schema = PlaybookModel.model_json_schema(by_alias=True)
    schema["$schema"] = DIALECT
    schema["title"] = "NoETL playbook"
    schema["required"] = ["apiVersion", "kind"]
    schema["anyOf"] = [{"required": ["workflow"]}, {"required": ["steps"]}]
    types = sorted({*OWN_KEYS, "workbook", *extra_step_types})
    for name in ("StepModel", "ActionModel", "IteratorTaskModel"):
        _offer_types(schema["$defs"][name], types)
    schema["$defs"]["StepModel"]["allOf"] += [
        {"if": _has_type(name), "then": rule} for name, rule in STEP_RULES.items()
    ]
    _offer_limits(schema["$defs"])
    schema["$defs"]["StepModel"]["anyOf"] = [{"required": ["step"]}, {"required": ["name"]}]
    schema["$defs"]["ActionModel"]["required"] = ["name"]
    return schema


def _offer_types(model: dict[str, Any], types: list[str]) -> None:
    """Add the types, and the keys that each type defines."""
    for word in TYPE_KEYS:
        described = model["properties"][word]["description"]
        model["properties"][word] = {"enum": types, "description": described}
    model["allOf"] = [
        {
            "if": _has_type(name),
            "then": {"properties": dict.fromkeys(sorted(OWN_KEYS[name]), True)},
        }
        for name in types
        if OWN_KEYS.get(name)
    ]


def _offer_limits(models: dict[str, Any]) -> None:
    """Add the limit of a block; a step has that of an iterator under the same word."""
    limit = {"$ref": "#/$defs/ConcurrencyModel"}
    described = "Of a block: how many of one key run at once."
    models["TaskModel"]["properties"]["concurrency"] = {**limit, "description": described}
    own = models["StepModel"]["properties"]["concurrency"]
    own["anyOf"] = [*own["anyOf"], limit]
    own["description"] += f" {described}"


def _has_type(name: str) -> dict[str, Any]:
    return {"anyOf": [{"properties": {word: {"const": name}}, "required": [word]} for word in TYPE_KEYS]}


# What a step of a type must have, and what it must not.
NO_RETRY: dict[str, Any] = {"properties": {"retry": {"type": "null"}}}
CALLS: dict[str, Any] = {"not": {"required": ["path", "workflow"]}}  # one of them, or the path of a workbook action
STEP_RULES: dict[str, dict[str, Any]] = {
    "playbook": CALLS,
    "wait": {**NO_RETRY, "oneOf": [{"required": [key]} for key in ("for", "until", "signal")]},
    "approval": NO_RETRY,
    "signal": {**NO_RETRY, "required": ["signal"]},
    "fail": NO_RETRY,
    **{
        name: {"allOf": [{"anyOf": [{"required": [key]} for key in keys]} for keys, _ in groups]}
        for name, groups in NEEDED.items()
    },
}
Condition = Annotated[str, Field(description="One expression, with or without {{ }} around it.")]
Whole = Annotated[str, Field(description="One template that gives a mapping.", pattern=r"^\s*\{\{[\s\S]*\}\}\s*$")]
InputValues = dict[str, Any] | Whole | None
Duration = Annotated[float, Field(ge=0)] | str
OnErrorWord = Literal["fail", "continue"]
Percentage = Annotated[str, Field(pattern=r"^\s*\d{1,3}(\.\d{1,6})?\s*%\s*$")]


class Model(BaseModel):
    """A mapping of the document; keys that are not named here are let through; `validate` refuses them."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)


class WithInputs(Model):
    """What can give inputs: six words for one mapping, the last ones stronger."""

    with_: InputValues = Field(None, alias="with", description="Inputs (the weakest word).")
    payload: InputValues = Field(None, description="Inputs, or the body of an http step.")
    input: InputValues = Field(None, description="Inputs.")
    params: InputValues = Field(None, description="Inputs, or the query string of an http step.")
    data: InputValues = Field(None, description="Inputs; the body of an http step, too.")
    args: InputValues | list[Any] = Field(None, description="Inputs (the strongest word).")


class TargetModel(WithInputs):
    """Where a transition leads, with inputs for the step."""

    step: str | None = Field(None, description="The name of the step.")
    name: str | None = Field(None, description="The same as `step`.")


Targets = str | TargetModel | list[str | TargetModel]


class EntryModel(TargetModel):
    """One entry of `next`: a target or `then`, a condition, and `else`."""

    when: Condition | bool | None = Field(None, description="The entry fires only if this is true.")
    condition: Condition | bool | None = Field(None, description="The same as `when`.")
    pass_: Condition | bool | None = Field(None, alias="pass", description="The same as `when`.")
    then: Targets | None = Field(None, description="Several targets.")
    else_: Targets | None = Field(
        None,
        alias="else",
        description="Targets if the condition beside it is false; alone: if no condition of the list is true.",
    )


class CatchModel(TargetModel):
    """One entry of `catch`: a target or `then`, and perhaps a condition."""

    when: Condition | bool | None = Field(None, description="The entry is taken only if this is true; finds `error`.")
    then: Targets | None = Field(None, description="Several targets.")


class RetryModel(Model):
    """When a failed action is tried again."""

    model_config = ConfigDict(extra="forbid")

    max_attempts: int = Field(3, ge=1, le=ATTEMPTS.most, description="Attempts in all.")
    initial_delay: Duration = Field(1.0, description="Before the second attempt: seconds, 90s, 15m.")
    backoff_multiplier: float = Field(
        2.0, ge=0, le=MULTIPLIERS.most, description="Each delay is the delay before it, times this."
    )
    max_delay: Duration = Field(60.0, description="The longest delay: seconds, 90s, 15m.")
    jitter: bool = Field(default=True, description="Vary each delay by half of it, up or down.")
    retry_when: Condition | None = Field(
        None, description="Try again only if true; finds error, error_type, status_code, result and attempt."
    )
    stop_when: Condition | None = Field(None, description="Do not try again if true; read before retry_when.")


class ThrottleModel(Model):
    """How many jobs of a key run at a time, or begin in a second; over all executions, playbooks and workers."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=NAME_CHARS, description="The limit; steps with the same name share it.")
    key: str | float | bool | None = Field(None, description="What it counts by, such as an account; a template.")
    concurrency: int | None = Field(None, ge=1, le=THROTTLED.most, description="Jobs of a key that run at a time.")
    rate: float | str | None = Field(None, description="Jobs of a key that begin: 10/s, 100/m, 5000/h.")
    burst: int | None = Field(
        None, ge=1, le=THROTTLED.most, description="Jobs of a key that may begin at once; default: those of 100 ms."
    )


class JoinModel(Model):
    """How many arrivals a step needs."""

    model_config = ConfigDict(extra="forbid")

    need: int = Field(ge=1, le=NEEDS.most, description="The step runs at this arrival; any is need: 1.")
    losers: Literal["run", "cancel"] = Field(
        "run", description="cancel: cancel the tokens that could have come; on `end` all tokens."
    )


class LoopModel(Model):
    """How a step is repeated over a collection."""

    collection: str | list[Any] | dict[str, Any] | None = Field(
        None, description="An expression, a list, or a mapping (its items are {key, value})."
    )
    element: str | None = Field(None, description="The name under which templates find the item.")
    mode: str | None = Field(None, description="sequential (the default), async or parallel.")
    concurrency: int | None = Field(
        None, ge=1, le=CONCURRENCY.most, description="Open items at a time in mode async; default 8."
    )
    where: Condition | None = Field(None, description="Only items for which this is true.")
    order_by: Condition | None = Field(None, description="Sort the items by this.")
    limit: Annotated[int, Field(ge=0)] | str | None = Field(None, description="No more items than this.")
    chunk: Annotated[int, Field(ge=1)] | str | None = Field(None, description="Give the items as lists of this many.")
    enumerate: bool | None = Field(None, description="Hand on {index, item}.")
    on_error: OnErrorWord | None = Field(None, description="What a failed item does to the step.")
    tolerate: Annotated[int, Field(ge=0, le=MOST_TOLERATED)] | Percentage | None = Field(
        None, description="In place of `on_error`: how many items may fail, such as 5 or 20%."
    )
    distribute: bool | None = Field(None, description="One job for each item, gathered by the broker.")


class TaskModel(WithInputs):
    """What a step, a workbook action or an iterator's task does."""

    type: str | None = Field(None, description="Who runs it and how; without a type a step is a router.")
    tool: str | None = Field(None, description="The same as `type`.")
    auth: Any = Field(None, description="The credential, by name or as a mapping.")
    save: dict[str, Any] | None = Field(None, description="Where the worker saves the result.")
    sink: dict[str, Any] | None = Field(None, description="The same as `save`.")
    retry: bool | int | RetryModel | None = Field(None, description="true: 3 attempts; false: 1; or how many.")
    on_error: OnErrorWord | None = Field(None, description="`continue`: a failure counts as done.")
    timeout: float | str | None = Field(None, description="From an attempt's first lease: seconds, 90s, a template.")
    start_timeout: float | str | None = Field(None, description="Until a worker leases the job: as timeout.")
    throttle: ThrottleModel | None = Field(None, description="The throttle of its jobs, shared by name.")
    priority: int | None = Field(
        None, ge=PRIORITIES.least, le=PRIORITIES.most, description="The priority of its jobs; default 5."
    )
    workflow: list[StepModel] | None = Field(
        None, description="A block: the steps of a child playbook, in place of its `path`; one is called `start`."
    )
    compensate: str | TaskModel | None = Field(
        None, description="The action, playbook or workbook action that undoes it if the execution fails later."
    )


class ActionModel(TaskModel):
    """A named action that steps of `type: workbook` call."""

    name: str | None = Field(None, description="The name that `task` of a step gives.")
    loop: LoopModel | None = Field(None, description="Repeat the steps that call it over a collection.")
    workflow: None = Field(None, description="A workbook action has no block: write it on the step.")


class ItemCatchModel(Model):
    """The result of an item that failed for good."""

    model_config = ConfigDict(extra="forbid")

    when: Condition | bool | None = Field(None, description="Only if this is true; reads `error` and the element.")
    result: Any = Field(description="The item counts as done with this value; null is one.")


class IteratorTaskModel(TaskModel):
    """What an iterator repeats. With `retry`, `timeout` or `catch`, each item is a job of its own."""

    catch: ItemCatchModel | list[ItemCatchModel] | None = Field(
        None, description="What a failed item counts as; the first entry whose `when` is true."
    )


class StepModel(LoopModel, TaskModel):
    """One step of the workflow."""

    step: str | None = Field(
        None, description=f"The name of the step; at most {NAME_CHARS} characters, no #, : or control ones."
    )
    name: str | None = Field(None, description="The name if there is no `step`; else the workbook action.")
    desc: str | None = Field(None, description="What the step is for.")
    description: str | None = Field(None, description="The same as `desc`.")
    next: str | EntryModel | list[str | EntryModel] | None = Field(None, description="Where to go from here.")
    catch: str | CatchModel | list[str | CatchModel] | None = Field(
        None, description="Where to go when the step failed for good: the first entry that is true is taken."
    )
    output: Any = Field(None, description="Kept in place of the whole result of the action; finds `result`.")
    next_mode: Literal["inclusive", "exclusive"] | None = Field(
        None, description="exclusive: only the first true condition fires."
    )
    join: Literal["all", "any", "each"] | JoinModel | None = Field(
        None, description="How several arriving arcs are gathered."
    )
    on_error: OnErrorWord | None = Field(
        None, description="`continue`: a failure counts as done; of an iterator, a failed item leaves null."
    )
    task: str | IteratorTaskModel | None = Field(None, description="The workbook action, or what an iterator repeats.")
    loop: LoopModel | None = Field(None, description="Repeat this step over a collection.")
    result: Any = Field(None, description="On `end`: the result of the execution.")


class ScheduleModel(Model):
    """When the playbook starts by itself: a cron text or a span."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="The name; the catalog knows the schedule as path#name.")
    cron: str | None = Field(
        None, description="Five fields: minute, hour, day, month, weekday; six with seconds first; or @daily."
    )
    every: float | str | None = Field(None, description="A span between starts in place of `cron`, such as 15m.")
    timezone: str | None = Field(None, description="The IANA time zone of `cron`, such as Europe/Berlin; default UTC.")
    payload: dict[str, Any] | None = Field(None, description="The payload; `schedule` (name and at) is added.")
    jitter: float | str | None = Field(None, description="Delay each start by a part of this; default 0.")
    catch_up: float | str | None = Field(
        None,
        description="After a time without a broker, moments that are later are skipped, with 0 all; the last of the "
        "rest starts. Default 1h.",
    )
    overlap: Literal["skip", "queue", "cancel", "allow"] | None = Field(
        None, description="If an earlier execution lives: skip (default), queue, cancel the other, allow both."
    )
    description: str | None = None


class OnSignalModel(Model):
    """Signals that start the playbook."""

    model_config = ConfigDict(extra="forbid")

    signal: str = Field(min_length=1, max_length=NAME_CHARS, description="The name of the signals.")
    when: Condition | bool | None = Field(None, description="Only signals for which this is true; reads `signal`.")


class ConcurrencyModel(Model):
    """How many executions of one key run at once."""

    model_config = ConfigDict(extra="forbid")

    key: str | float | bool | None = Field(
        None, description="What the limit counts by, usually a template; without it: all executions of the playbook."
    )
    limit: int | None = Field(None, ge=1, le=LIMITS.most, description="How many run at once; default 1.")
    on_limit: Literal["queue", "skip", "cancel_running", "fail"] | None = Field(
        None, description="What happens to one more: it waits (queue), ends, or replaces the oldest. Default queue."
    )


class OnFailureModel(Model):
    """The playbook that starts when an execution has failed."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(min_length=1, description="The path of the playbook; its latest version starts.")
    args: dict[str, Any] | None = Field(
        None, description="Its payload, beside execution_id, path, step and error; templates read `error`."
    )


class MetadataModel(Model):
    """What the playbook is called, and its limits; a name or a path is needed."""

    name: str | None = None
    path: str | None = Field(None, description="Where the catalog keeps it: folder/name.")
    version: Any = None
    description: str | None = None
    max_visits: int | None = Field(None, ge=1, description="Visits of all steps together, in one execution.")
    deadline: Duration | None = Field(None, description="An execution fails after it: seconds, 2h30m, a template.")
    priority: int | None = Field(
        None, ge=PRIORITIES.least, le=PRIORITIES.most, description="The priority of all its jobs."
    )
    schedule: ScheduleModel | list[ScheduleModel] | None = Field(
        None, description="When it starts by itself; `register` puts the schedules."
    )
    on_signal: OnSignalModel | list[OnSignalModel] | None = Field(
        None, description="Each such signal starts an execution, with `signal` in its workload."
    )
    concurrency: ConcurrencyModel | None = Field(None, description="How many executions of one key run at once.")
    on_failure: OnFailureModel | None = Field(None, description="What starts when an execution has failed.")


class PlaybookModel(Model):
    """A NoETL playbook."""

    api_version: Literal["noetl.io/v1"] = Field(API_VERSION, alias="apiVersion")
    kind: Literal["Playbook"] = KIND
    metadata: MetadataModel | None = None
    name: str | None = Field(None, description="For old files: metadata.name.")
    path: str | None = Field(None, description="For old files: metadata.path.")
    workload: dict[str, Any] | None = Field(None, description="Defaults; the payload is merged over them.")
    spec: dict[str, Any] | None = Field(None, description="The same as `workload`.")
    workload_schema: dict[str, Any] | None = Field(
        None, description="JSON Schema of the workload, without regular expressions; a start that breaks it fails."
    )
    workbook: list[ActionModel] | None = Field(None, description="Named actions.")
    workflow: list[StepModel] | None = Field(None, description="The steps; one is called `start`.")
    steps: list[StepModel] | None = Field(None, description="The same as `workflow`.")

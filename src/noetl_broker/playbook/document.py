"""The document as an author writes it, for editors: the models that the JSON Schema is generated from.

They say which keys there are, what they hold and what they mean. What needs more than one place to be seen (names that
exist, templates that compile) is checked by the readers, which also word the errors.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from noetl_broker.playbook.outline import API_VERSION, KIND

Condition = Annotated[str, Field(description="One expression, with or without {{ }} around it.")]
Whole = Annotated[str, Field(description="One template that gives a mapping.", pattern=r"^\s*\{\{[\s\S]*\}\}\s*$")]
InputValues = dict[str, Any] | Whole | None
OnErrorWord = Literal["fail", "continue"]


class Model(BaseModel):
    """A mapping of the document; keys that are not named here are let through, with a warning by `validate`."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)


class WithInputs(Model):
    """What can give inputs: six words for one mapping, the last ones stronger."""

    with_: InputValues = Field(None, alias="with", description="Inputs (the weakest word).")
    payload: InputValues = Field(None, description="Inputs, or the body of an http step.")
    input: InputValues = Field(None, description="Inputs.")
    params: InputValues = Field(None, description="Inputs, or the query string of an http step.")
    data: InputValues = Field(None, description="Inputs.")
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


class RetryModel(Model):
    """When a failed action is tried again; delays in seconds."""

    model_config = ConfigDict(extra="forbid")

    max_attempts: int = Field(3, ge=1, le=1000, description="Attempts in all.")
    initial_delay: float = Field(1.0, ge=0, description="Seconds before the second attempt.")
    backoff_multiplier: float = Field(2.0, ge=0, le=1000, description="Each delay is the one before times this.")
    max_delay: float = Field(60.0, ge=0, description="No delay is longer, in seconds.")
    jitter: bool = Field(default=True, description="Vary each delay by half of it, up or down.")
    retry_when: Condition | None = Field(
        None, description="Try again only if true; finds error, error_type, status_code, result and attempt."
    )
    stop_when: Condition | None = Field(None, description="Do not try again if true; read before retry_when.")


class LoopModel(Model):
    """How a step is repeated over a collection."""

    collection: str | list[Any] | dict[str, Any] | None = Field(
        None, description="An expression, a list, or a mapping (its items are {key, value})."
    )
    element: str | None = Field(None, description="The name under which templates find the item.")
    mode: str | None = Field(None, description="sequential (the default), async or parallel.")
    concurrency: int | None = Field(
        None, ge=1, le=1_000_000, description="Open items at a time in mode async; default 8."
    )
    where: Condition | None = Field(None, description="Only items for which this is true.")
    order_by: Condition | None = Field(None, description="Sort the items by this.")
    limit: Annotated[int, Field(ge=0)] | str | None = Field(None, description="No more items than this.")
    chunk: Annotated[int, Field(ge=1)] | str | None = Field(None, description="Hand on lists of this many items.")
    enumerate: bool | None = Field(None, description="Hand on {index, item}.")
    on_error: OnErrorWord | None = Field(None, description="What a failed item does to the step.")
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
    timeout: float | str | None = Field(None, description="Seconds from an attempt's first lease.")
    priority: int | None = Field(None, ge=-32_768, le=32_767, description="The priority of its jobs; default 5.")


class ActionModel(TaskModel):
    """A named action that steps of `type: workbook` call."""

    name: str | None = Field(None, description="The name that `task` of a step gives.")
    loop: LoopModel | None = Field(None, description="Repeat the steps that call it over a collection.")


class StepModel(LoopModel, TaskModel):
    """One step of the workflow."""

    step: str | None = Field(None, description="The name of the step; at most 255 characters, no #, : or control ones.")
    name: str | None = Field(None, description="The name where there is no `step`; else the workbook action.")
    desc: str | None = Field(None, description="What the step is for.")
    description: str | None = Field(None, description="The same as `desc`.")
    next: str | EntryModel | list[str | EntryModel] | None = Field(None, description="Where to go from here.")
    next_mode: Literal["inclusive", "exclusive"] | None = Field(
        None, description="exclusive: only the first true condition fires."
    )
    join: Literal["all", "any", "each"] | None = Field(None, description="How several arriving arcs are gathered.")
    on_error: OnErrorWord | None = Field(
        None, description="`continue`: a failure counts as done; of an iterator, a failed item leaves null."
    )
    task: str | TaskModel | None = Field(None, description="The workbook action, or what an iterator repeats.")
    loop: LoopModel | None = Field(None, description="Repeat this step over a collection.")
    result: Any = Field(None, description="On `end`: the result of the execution.")


class MetadataModel(Model):
    """What the playbook is called, and its limits; a name or a path is needed."""

    name: str | None = None
    path: str | None = Field(None, description="Where the catalog keeps it: folder/name.")
    version: Any = None
    description: str | None = None
    max_visits: int | None = Field(None, ge=1, description="Visits of steps in one execution.")
    deadline: float | None = Field(None, gt=0, description="Seconds after which an execution fails.")
    priority: int | None = Field(None, ge=-32_768, le=32_767, description="The priority of all its jobs.")


class PlaybookModel(Model):
    """A NoETL playbook."""

    api_version: Literal["noetl.io/v1"] = Field(API_VERSION, alias="apiVersion")
    kind: Literal["Playbook"] = KIND
    metadata: MetadataModel | None = None
    name: str | None = Field(None, description="For old files: metadata.name.")
    path: str | None = Field(None, description="For old files: metadata.path.")
    workload: dict[str, Any] | None = Field(None, description="Defaults; the payload is merged over them.")
    spec: dict[str, Any] | None = Field(None, description="The same as `workload`.")
    workbook: list[ActionModel] | None = Field(None, description="Named actions.")
    workflow: list[StepModel] | None = Field(None, description="The steps; one is called `start`.")
    steps: list[StepModel] | None = Field(None, description="The same as `workflow`.")

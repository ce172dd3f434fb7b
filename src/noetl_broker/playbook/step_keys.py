"""The keys of a step, of its task, and of a loop."""

from __future__ import annotations

from typing import Final

from noetl_broker.playbook.items import TOLERANCE
from noetl_broker.playbook.keys import (
    BOOL,
    BOOLEAN,
    CONDITION,
    LIST,
    MAPPING,
    POOL,
    PRIORITY,
    TEXT,
    TIME_LIMIT,
    Key,
    Keys,
    holds,
    integer,
    one_or_list,
    ref,
    whole,
    word,
)
from noetl_broker.playbook.keywords import COMPENSATE, INPUT_WORDS, THROTTLE

ONE_TEMPLATE: Final = {
    "description": "One template that gives a mapping.",
    "pattern": r"^\s*\{\{[\s\S]*\}\}\s*$",
    "type": "string",
}
INPUT_TEXTS: Final = (
    "Inputs (the weakest word).",
    "Inputs, or the body of an http step.",
    "Inputs.",
    "Inputs, or the query string of an http step.",
    "Inputs; the body of an http step, too.",
    "Inputs (the strongest word).",
)
INPUTS: Final = tuple(
    Key(one, holds(MAPPING, ONE_TEMPLATE, *([LIST] if one == "args" else [])), about)
    for one, about in zip(INPUT_WORDS, INPUT_TEXTS, strict=True)
)
ERROR_WORDS: Final = word("fail", "continue")
ON_ERROR: Final = Key("on_error", ERROR_WORDS, "`continue`: a failure counts as done.")
LIMIT: Final = "90s, or a template that gives a duration"
TIMEOUT: Final = Key(
    "timeout",
    TIME_LIMIT._replace(hint=f"write timeout: {LIMIT}"),
    "From an attempt's first lease: seconds, 90s, a template.",
)
START_TIMEOUT: Final = Key(
    "start_timeout",
    TIME_LIMIT._replace(hint=f"write start_timeout: {LIMIT}"),
    "Until a worker leases the job: as timeout.",
)
LATE_AFTER: Final = Key(
    "late_after",
    TIME_LIMIT._replace(hint=f"write late_after: {LIMIT}"),
    "A visit is late after it: an event says so, and nothing fails.",
)
JOB_PRIORITY: Final = Key("priority", PRIORITY, "The priority of its jobs; default 5.")
JOB_POOL: Final = Key("pool", POOL, "The pool of workers that run its jobs; default `default`.")
NEXT_MODE: Final = Key("next_mode", word("inclusive", "exclusive"), "exclusive: only the first true condition fires.")
TASK_KEYS: Final = (
    Key("type", holds(TEXT), "Who runs it and how; without a type a step is a router."),
    Key("tool", holds(TEXT), "The same as `type`."),
    Key("retry", holds(BOOL, {"type": "integer"}, ref("RetryModel")), "true: 3 attempts; false: 1; or how many."),
    ON_ERROR,
    TIMEOUT,
    START_TIMEOUT,
    Key(THROTTLE, holds(ref("ThrottleModel")), "The throttle of its jobs, shared by name."),
    JOB_PRIORITY,
    JOB_POOL,
    Key(
        COMPENSATE,
        holds(TEXT, ref("TaskModel")),
        "What undoes it if the execution fails later.",
    ),
)
BLOCK_LIMIT: Final = "Of a block: how many of one key run at once."
TASK: Final = Keys(
    model="TaskModel",
    about="What a step, a workbook action or an iterator's task does.",
    is_open=True,
    keys=(
        *INPUTS,
        *TASK_KEYS,
        Key("auth", holds(), "The credential, by name or as a mapping."),
        Key("save", holds(MAPPING), "Where the worker saves the result."),
        Key("sink", holds(MAPPING), "The same as `save`."),
        Key(
            "workflow",
            holds(*one_or_list(ref("StepModel"))[1:]),
            "A block: the steps of a child playbook, in place of `path`.",
        ),
    ),
)
MODE: Final = word("sequential", "async", "parallel")._replace(schemas=(TEXT,))  # the word of some types
CONCURRENCY: Final = Key("concurrency", integer(1, 1_000_000), "Open items at a time in mode async; default 8.")
LOOP_VALUES: Final = (
    Key("mode", MODE, "sequential (the default), async or parallel."),
    CONCURRENCY,
    Key("limit", whole(0), "No more items than this."),
    Key("chunk", whole(1), "Give the items as lists of this many."),
    Key("enumerate", BOOLEAN, "Hand on {index, item}."),
    Key("on_error", ERROR_WORDS, "What a failed item does to the step."),
    Key("tolerate", TOLERANCE, "How many items may fail, such as 5 or 20%."),
    Key("distribute", BOOLEAN, "One job for each item, gathered by the broker."),
)
LOOP_CONDITIONS: Final = (
    Key("where", CONDITION, "Only items for which this is true."),
    Key("order_by", CONDITION, "Sort the items by this."),
)
LOOP: Final = Keys(
    model="LoopModel",
    about="How a step is repeated over a collection.",
    word="loop",
    is_open=True,
    others=("task",),
    keys=(
        Key(
            "collection",
            holds(TEXT, LIST, MAPPING),
            "The items: an expression, a list or a mapping.",
        ),
        Key("element", holds(TEXT), "The name under which templates find the item."),
        *LOOP_CONDITIONS,
        *LOOP_VALUES,
    ),
)
ACTION: Final = Keys(
    model="ActionModel",
    about="A named action that steps of `type: workbook` call.",
    is_open=True,
    keys=(
        *TASK.keys,
        Key("name", holds(TEXT), "The name that `task` of a step gives."),
        Key("loop", holds(ref(LOOP.model)), "Repeat the steps that call it over a collection."),
        Key("workflow", holds(), "A workbook action has no block: write it on the step."),
    ),
)
ITEM_TASK: Final = Keys(
    model="IteratorTaskModel",
    about="What an iterator repeats. With `retry`, `timeout` or `catch`, each item is a job of its own.",
    is_open=True,
    keys=(
        *TASK.keys,
        Key(
            "catch",
            holds(*one_or_list(ref("ItemCatchModel"))),
            "What a failed item counts as.",
        ),
    ),
)
STEP_KEYS: Final = (
    Key("step", holds(TEXT), "The name of the step."),
    Key("name", holds(TEXT), "The name if there is no `step`; else the workbook action."),
    Key("desc", holds(TEXT), "What the step is for."),
    Key("description", holds(TEXT), "The same as `desc`."),
    Key("next", holds(*one_or_list(TEXT, ref("EntryModel"))), "Where to go from here."),
    Key(
        "catch",
        holds(*one_or_list(TEXT, ref("CatchModel"))),
        "Where to go when the step failed for good.",
    ),
    Key("output", holds(), "Kept in place of the whole result."),
    NEXT_MODE,
    LATE_AFTER,
    Key(
        "join",
        holds({"enum": ["all", "any", "each"], "type": "string"}, ref("JoinModel")),
        "How several arriving arcs are gathered.",
    ),
    ON_ERROR,
    Key("task", holds(TEXT, ref(ITEM_TASK.model)), "The workbook action, or what an iterator repeats."),
    Key("loop", holds(ref(LOOP.model)), "Repeat this step over a collection."),
    Key("result", holds(), "On `end`: the result of the execution."),
)
STEP: Final = Keys(
    model="StepModel",
    about="One step of the workflow.",
    is_open=True,
    keys=(
        *TASK.keys,
        *LOOP.keys,
        Key(
            CONCURRENCY.name,
            holds(*CONCURRENCY.form.schemas, ref("ConcurrencyModel")),
            f"{CONCURRENCY.about} {BLOCK_LIMIT}",
        ),
        *STEP_KEYS,
    ),
)
# Keys of a step that the broker reads; they are not fields of the task.
BROKER_KEYS: Final = frozenset(key.name for key in (*TASK_KEYS, *STEP_KEYS))
# A job has these keys as written. `loop` is not among them: it would repeat the job.
FORWARDED_KEYS: Final = BROKER_KEYS - {
    *("step", "name", "type", "tool", "next", "loop", "catch", "output"),
    *(LATE_AFTER.name, COMPENSATE, THROTTLE, JOB_POOL.name),
}

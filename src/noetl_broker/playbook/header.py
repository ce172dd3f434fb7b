"""Reads the top of a document: its required keys, its metadata, and the names of its steps and actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from noetl_broker.node_ids import FORBIDDEN_IN_STEPS, UNDO_SUFFIX
from noetl_broker.playbook.diagnostics import Location, json_type_name
from noetl_broker.playbook.keys import (
    LIST,
    MAPPING,
    NAME,
    NAME_CHARS,
    POOL,
    PRIORITY,
    TEXT,
    Key,
    Keys,
    holds,
    integer,
    of_mapping,
    one_or_list,
    ref,
    seconds,
)
from noetl_broker.playbook.keywords import START
from noetl_broker.playbook.model import Raw
from noetl_broker.playbook.reader import Reading, TemplateSite, WrittenBlock
from noetl_broker.playbook.tags import SCHEMA as TAGS
from noetl_broker.playbook.value_schema import check_schema
from noetl_broker.playbook.work_budget import weight_of
from noetl_broker.template import Tree

API_VERSION: Final = "noetl.io/v1"
LANGUAGES: Final = "noetl.io/v"  # how the versions of NoETL's language begin
KIND: Final = "Playbook"
OBJECT: Final = "object"  # the type of every workload
SITE = TemplateSite(step=None, role="workload")
MAX_VISITS = Key("max_visits", integer(1, 2_147_483_647), "Visits of all steps together, in one execution.")
DEADLINE = Key(
    "deadline",
    seconds(0.001, 31_536_000)._replace(templates="text"),
    "An execution fails after it: seconds, 2h30m, a template.",
)
LATE_AFTER = Key(
    "late_after",
    DEADLINE.form,
    "An execution is late after it: an event says so, and nothing fails.",
)
BUCKET = Key("bucket", NAME, "Only for buckets: the home of its executions.")
JOBS_PRIORITY = Key("priority", PRIORITY, "The priority of all its jobs.")
JOBS_POOL = Key("pool", POOL, "The pool of workers of all its jobs; default `default`.")
METADATA = Keys(
    model="MetadataModel",
    about="What the playbook is called, and its limits; a name or a path is needed.",
    word="metadata",
    is_open=True,
    others=("labels", "annotations", "author", "owner"),
    keys=(
        Key("name", holds(TEXT), "The name; also the path, if there is none."),
        Key("path", holds(TEXT), "Where the catalog keeps it: folder/name."),
        Key("version", holds(), "For people: the catalog counts versions itself."),
        Key("description", holds(TEXT), "For people."),
        MAX_VISITS,
        DEADLINE,
        LATE_AFTER,
        JOBS_PRIORITY,
        JOBS_POOL,
        BUCKET,
        Key(
            "schedule",
            holds(*one_or_list(ref("ScheduleModel"))),
            "When it starts by itself; `register` puts the schedules.",
        ),
        Key(
            "on_signal",
            holds(*one_or_list(ref("OnSignalModel"))),
            "Signals of which each starts an execution.",
        ),
        Key("concurrency", holds(ref("ConcurrencyModel")), "How many executions of one key run at once."),
        Key("on_failure", holds(ref("OnFailureModel")), "What starts when an execution has failed."),
        Key("tags", holds(TAGS, LIST, TEXT), "By what lists find its executions; values may be templates."),
        Key("on_late", holds(ref("OnLateModel")), "What starts when an execution or a step is late."),
    ),
)
STEPS = holds(*one_or_list(ref("StepModel"))[1:])
ROOT = Keys(
    model="PlaybookModel",
    about="A NoETL playbook.",
    is_open=True,
    others=("description", "version"),
    keys=(
        Key("apiVersion", holds({"const": API_VERSION, "type": "string"}), "The language.", default=API_VERSION),
        Key("kind", holds({"const": KIND, "type": "string"}), "What the document is.", default=KIND),
        Key("metadata", holds(ref(METADATA.model)), "Its name, and when and how often it runs."),
        Key("name", holds(TEXT), "For old files: metadata.name."),
        Key("path", holds(TEXT), "For old files: metadata.path."),
        Key("workload", holds(MAPPING), "Defaults; the payload is merged over them."),
        Key("spec", holds(MAPPING), "The same as `workload`."),
        Key(
            "workload_schema",
            holds(MAPPING),
            "JSON Schema of the workload.",
        ),
        Key("workbook", holds(*one_or_list(ref("ActionModel"))[1:]), "Named actions."),
        Key("workflow", STEPS, "The steps; one is called `start`."),
        Key("steps", STEPS, "The same as `workflow`."),
    ),
)
KEPT_IN_BLOCKS = frozenset({"apiVersion", "kind", "workbook"})
KEYS_OF_A_STEP: Final = ("next", "next_mode", "join", "result")


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenStep:
    """A step as written; `index` counts the steps that could be read, from 0."""

    name: str
    index: int
    raw: Raw
    location: Location


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """The head of a document: name, path, limits, and the locations of its parts."""

    name: str
    path: str
    steps: tuple[WrittenStep, ...]
    workload: Raw
    workload_location: Location
    workload_schema: Raw | None
    max_visits: int | None
    deadline: float | Tree | None
    late_after: float | Tree | None
    priority: int | None
    pool: str | Tree | None
    bucket: str | None
    metadata: Raw
    limit_location: Location = ("metadata", "concurrency")
    document: Raw


def read_outline(reading: Reading, document: Any) -> Outline | None:
    """Read the head, and add all names to the reading; None if there is no workflow or it has another language."""
    report = reading.report
    if not isinstance(document, dict):
        report.error("wrong-type", (), f"the document is {json_type_name(document)}", "a playbook is a mapping of keys")
        return None
    version = document.get("apiVersion")
    if isinstance(version, str) and version.startswith(LANGUAGES) and version != API_VERSION:
        message = f"the language {version} is not read, only {API_VERSION}"
        hint = f"rewrite the playbook as {API_VERSION}: its keys are others"
        report.error("wrong-value", ("apiVersion",), message, hint)
        return None
    ROOT.refuse_unknown(reading, document, ())
    _require(reading, document, "apiVersion", API_VERSION)
    _require(reading, document, "kind", KIND)
    metadata = _metadata(reading, document)
    name, path = _identity(reading, document, metadata)
    reading.path = path
    workload, workload_location = _part(reading, document, ("workload", "spec"), dict)
    reading.actions = _actions(reading, document)
    workflow, location = _part(reading, document, ("workflow", "steps"), list)
    if workflow is None:
        if "workflow" not in document and "steps" not in document:
            report.error(
                "missing-key", (), "the playbook has no `workflow`", "write workflow: [{step: start, next: …}]"
            )
        return None
    steps = read_workflow(reading, workflow, location)
    source = of_mapping(metadata, ("metadata",))
    return Outline(
        name=name,
        path=path,
        steps=steps,
        workload=workload or {},
        workload_location=workload_location,
        workload_schema=_workload_schema(reading, document),
        max_visits=MAX_VISITS.read(reading, source, SITE),
        deadline=DEADLINE.read(reading, source, SITE),
        late_after=LATE_AFTER.read(reading, source, SITE),
        priority=JOBS_PRIORITY.read(reading, source, SITE),
        pool=JOBS_POOL.read(reading, source, SITE),
        bucket=BUCKET.read(reading, source, SITE),
        metadata=metadata,
        document=document,
    )


def read_workflow(reading: Reading, workflow: list[Any], location: Location) -> tuple[WrittenStep, ...]:
    """Read the names of steps, and add them to the reading; there must be a `start`."""
    steps = _steps(reading, workflow, location)
    reading.steps = {step.name: step.index for step in steps}
    if START not in reading.steps:
        message = "the workflow has no step `start`"
        reading.report.error("no-start", location, message, "add {step: start, next: …}", key=True)
    return steps


def read_block_outline(reading: Reading, outer: Outline, step: str, block: WrittenBlock) -> Outline:
    """Give the head of a block: it has the workbook, the limits and the name of its playbook."""
    metadata = {"name": f"{outer.name}#{step}", "path": reading.path}
    if block.concurrency is not None:
        metadata["concurrency"] = block.concurrency
    document = {key: value for key, value in outer.document.items() if key in KEPT_IN_BLOCKS}
    return Outline(
        name=metadata["name"],
        path=reading.path,
        steps=read_workflow(reading, block.workflow, block.location),
        workload={},
        workload_location=block.location,
        workload_schema=None,
        max_visits=outer.max_visits,
        deadline=None,
        late_after=None,
        priority=outer.priority,
        pool=outer.pool,
        bucket=outer.bucket,
        metadata=metadata,
        limit_location=block.limit_location,
        document=document | {"metadata": metadata, "workflow": block.workflow},
    )


def _require(reading: Reading, document: Raw, key: str, wanted: str) -> None:
    value = document.get(key)
    if value == wanted:
        return
    hint = f"write {key}: {wanted}"
    if value is None:
        reading.report.error("missing-key", (), f"the playbook has no `{key}`", hint)
    else:
        shown = value if isinstance(value, str) else json_type_name(value)
        reading.report.error("wrong-value", (key,), f"`{key}` is {shown}, not {wanted}", hint)


def _metadata(reading: Reading, document: Raw) -> Raw:
    value, location = _part(reading, document, ("metadata",), dict)
    METADATA.refuse_unknown(reading, value or {}, location)
    return value or {}


def _identity(reading: Reading, document: Raw, metadata: Raw) -> tuple[str, str]:
    found: dict[str, str] = {}
    for key in ("name", "path"):
        for location, holder in ((("metadata", key), metadata), ((key,), document)):
            value = holder.get(key)
            if value is None or key in found:
                continue
            if isinstance(value, str) and value.strip():
                found[key] = value.strip()
                _check_length(reading, found[key], location, f"the `{key}`")
            else:
                shown = "empty" if isinstance(value, str) else json_type_name(value)
                reading.report.error("wrong-type", location, f"`{key}` is {shown}", f"write {key}: a name")
                found[key] = "?"
    if not found:
        reading.report.error(
            "missing-key",
            ("metadata",),
            "the playbook has neither `metadata.name` nor `metadata.path`",
            "write metadata: {name: …, path: folder/name}",
            key=True,
        )
        return "?", "?"
    path = found.get("path") or found["name"]
    return found.get("name") or path.rpartition("/")[2], path


def _part(reading: Reading, document: Raw, words: tuple[str, ...], kind: type) -> tuple[Any, Location]:
    """Give the part of the document under one of these words; report an error and give None for another type."""
    given = [word for word in words if document.get(word) is not None]
    if not given:
        for word in words:
            if word in document and kind is list:
                reading.report.error("wrong-type", (word,), f"`{word}` is null", "write a list of steps")
        return None, (words[0],)
    if len(given) > 1:
        reading.report.error("duplicate-key", (given[1],), f"`{given[1]}` repeats `{given[0]}`", "keep one", key=True)
    word, value = given[0], document[given[0]]
    if isinstance(value, kind):
        return value, (word,)
    wanted = "a list" if kind is list else "a mapping"
    reading.report.error("wrong-type", (word,), f"`{word}` is {json_type_name(value)}, not {wanted}", f"write {wanted}")
    return None, (word,)


def _workload_schema(reading: Reading, document: Raw) -> Raw | None:
    """Read the JSON Schema of the workload; report its faults and give None if it has any."""
    schema, location = _part(reading, document, ("workload_schema",), dict)
    if schema is None:
        return None
    reading.work.spend(weight_of(schema))
    faults = check_schema(schema)
    for fault in faults:
        reading.report.error("bad-schema", (*location, *fault.location), fault.message, fault.hint, key=fault.of_key)
    types = schema.get("type", OBJECT)
    if not faults and OBJECT not in (types if isinstance(types, list) else [types]):
        message, hint = f"the workload is an {OBJECT}, and `type` is {types!r:.60}", f"write type: {OBJECT}"
        reading.report.error("bad-schema", (*location, "type"), message, hint)
        return None
    found: Raw | None = None if faults else schema
    return found


def _actions(reading: Reading, document: Raw) -> dict[str, tuple[Raw, Location]]:
    workbook, location = _part(reading, document, ("workbook",), list)
    actions: dict[str, tuple[Raw, Location]] = {}
    for index, raw in enumerate(workbook or ()):
        where = (*location, index)
        name = _named(reading, raw, where, ("name", "step", "task"), "an action of the workbook")
        if name is None:
            continue
        if name in actions:
            reading.report.error("duplicate-action", where, f"the workbook has two actions `{name}`", "rename one")
        else:
            actions[name] = (raw, where)
            _warn_of_step_keys(reading, name, raw, where)
    return actions


def _warn_of_step_keys(reading: Reading, name: str, raw: Raw, location: Location) -> None:
    """Warn of keys of steps on a workbook action."""
    for key in KEYS_OF_A_STEP:
        if raw.get(key) is not None:
            message = f"`{key}` of the workbook action `{name}` is not read"
            reading.report.warning(
                "unused-key", (*location, key), message, "write it on the step that calls it", key=True
            )


def _steps(reading: Reading, workflow: list[Any], location: Location) -> tuple[WrittenStep, ...]:
    steps: dict[str, WrittenStep] = {}
    for index, raw in enumerate(workflow):
        where = (*location, index)
        name = _named(reading, raw, where, ("step", "name"), "a step")
        if name is None:
            reading.broken = True
            continue
        key = "step" if "step" in raw else "name"
        if name in steps:
            first, _ = reading.report.positions.where(steps[name].location)
            message = f"there are two steps `{name}`, the first on line {first}"
            reading.report.error("duplicate-step", (*where, key), message, "rename one of them")
            continue
        _check_name(reading, name, (*where, key))
        steps[name] = WrittenStep(name=name, index=len(steps), raw=raw, location=where)
    return tuple(steps.values())


def _named(reading: Reading, raw: Any, location: Location, words: tuple[str, ...], what: str) -> str | None:
    if not isinstance(raw, dict):
        reading.report.error(
            "wrong-type", location, f"{what} is {json_type_name(raw)}, not a mapping", f"write {words[0]}: name"
        )
        return None
    for word in words:
        value = raw.get(word)
        if value is None:
            continue
        if isinstance(value, str) and value.strip():
            _check_length(reading, value, (*location, word), f"the name of {what}")
            return value
        shown = "empty" if isinstance(value, str) else json_type_name(value)
        reading.report.error("wrong-type", (*location, word), f"the name of {what} is {shown}", f"write {word}: name")
        return None
    reading.report.error("missing-key", location, f"{what} has no `{words[0]}`", f"write {words[0]}: name")
    return None


def _check_length(reading: Reading, name: str, location: Location, what: str) -> None:
    if len(name) > NAME_CHARS:
        message = f"{what} has {len(name)} characters; it may have {NAME_CHARS}"
        reading.report.error("long-name", location, message, "shorten it, and write the rest in `desc`")


def _check_name(reading: Reading, name: str, location: Location) -> None:
    bad = [sign for sign in name if sign in FORBIDDEN_IN_STEPS or not sign.isprintable()]
    if bad:
        reading.report.error(
            "bad-name", location, f"the step name {name!r} has the character {bad[0]!r}", "use letters, digits and _"
        )
    elif name.endswith(UNDO_SUFFIX):
        reading.report.error(
            "bad-name", location, f"the step name {name!r} ends in {UNDO_SUFFIX!r}", "choose another name"
        )
    elif not name.isidentifier():
        reading.report.warning(
            "bad-name",
            location,
            f"the step name `{name}` is not an identifier, so templates read it only as results['{name}']",
            "use letters, digits and _",
        )

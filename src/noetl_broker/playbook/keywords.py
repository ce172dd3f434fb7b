"""The keys and words of a playbook as tables: step types with their own keys, keys of every step, aliases.

A type's own keys win over input words: `params` of an `http` step is its query string, `params` of a `python` step is
inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from noetl_broker.playbook.kinds import KINDS_BY_TYPE
from noetl_broker.template import WORKLOAD_WORDS

START, END = "start", "end"
COMPENSATE = "compensate"
THROTTLE = "throttle"

# Aliases of a step's inputs, the weakest first.
INPUT_WORDS = ("with", "payload", "input", "params", "data", "args")

CONTROL_TYPES = frozenset({"start", "end", "route", "router", "noop"})
BROKER_TYPES = frozenset(KINDS_BY_TYPE)
SIGNAL = "signal"  # the word for a signal in conditions, and in the workload of what it starts

_CODE = ("code", "code_b64", "script")
SQL_TEXTS = ("command", "command_b64", "commands", "commands_b64", "sql", "sql_b64", "query", *_CODE)
_SQL = (*SQL_TEXTS, "parameters")
_AUTH = ("auth", "credential", "credentials")

# The keys that each type defines itself. A type of people's own workers may have any key.
OWN_KEYS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        name: frozenset(keys)
        for name, keys in {
            "start": (),
            "end": (),
            "route": (),
            "router": (),
            "noop": (),
            "python": (*_CODE, *_AUTH, "env", "libs"),
            "http": (
                *("url", "endpoint", "method", "headers", "params", "payload", "body", "timeout", "verify_ssl"),
                *("follow_redirects", *_AUTH),
            ),
            "postgres": (*_SQL, *_AUTH, "connection", "database", "host", "port", "user", "password", "schema"),
            "duckdb": (*_SQL, *_AUTH, "database", "extensions"),
            "snowflake": (*_SQL, *_AUTH, "account", "user", "password", "warehouse", "database", "schema", "role"),
            "transfer": (*_AUTH, "source", "target", "chunk_size", "mode", "direction"),
            "secrets": (*_AUTH, "provider", "project_id", "secret_name", "secret_version", "names"),
            "save": (*_AUTH, "storage", "table", "mode", "key", "data", "statement", "params"),
            "sleep": ("seconds", "duration"),
            "container": (*_AUTH, "image", "command", "env", "script", "namespace", "resources", "volumes"),
            "playbook": ("path", "version", "return_step", "workflow", "concurrency"),
            "iterator": (),
            "wait": ("for", "until", "signal", "key", "when", "since"),
            "approval": ("title", "details", "form", "assignees"),
            "signal": ("signal", "key", "payload"),
            "fail": ("error",),
        }.items()
    }
)
ACTION_TYPES = frozenset(OWN_KEYS) - CONTROL_TYPES - BROKER_TYPES

# Input words that may be a list; a list belongs to the type (the arguments of a container).
LIST_KEYS: Mapping[str, frozenset[str]] = MappingProxyType({"container": frozenset({"args"})})

SQL_TYPES = frozenset({"postgres", "duckdb", "snowflake"})
HTTP_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
SAVE_MODES: Mapping[str, str] = MappingProxyType(  # each word, with what it does
    {"insert": "insert", "append": "insert", "upsert": "upsert", "merge": "upsert"}
)
PROGRAM_TYPES = SQL_TYPES | {"python"}

# Input words that the tool of a type also reads itself: the body of a request, the values of a statement.
TOOL_WORDS: Mapping[str, frozenset[str]] = MappingProxyType(
    {"http": frozenset({"data"}), **dict.fromkeys(sorted(SQL_TYPES), frozenset({"params"}))}
)
CODE_KEYS = ("code", "code_b64", "script")

# The broker never renders these keys: program text and base64.
PLAIN_KEYS = frozenset({"code", "code_b64", "command_b64", "commands_b64", "sql_b64"})

# Program text is base64-encoded in a job, so that no quoting is lost.
ENCODED_KEYS = {"code": "code_b64", "command": "command_b64", "commands": "commands_b64", "sql": "command_b64"}

SAVE_KEYS = ("save", "sink")
TYPE_KEYS = ("type", "tool")

# Keys of a step that the broker reads; they are not fields of the task.
BROKER_KEYS = frozenset(
    {"step", "name", "task", "desc", "description", "type", "tool", "next", "retry", "join", "next_mode", "on_error"}
    | {"timeout", "start_timeout", "priority", "result", "loop", "catch", "output", COMPENSATE, THROTTLE}
)

# A job has these keys as written. `loop` is not among them: it would repeat the job.
FORWARDED_KEYS = BROKER_KEYS - {
    *("step", "name", "type", "tool", "next", "loop", "catch", "output", COMPENSATE, THROTTLE)
}

# Keys of another dialect: registration refuses them. A version that others registered has them in its jobs, as written.
IGNORED_KEYS = frozenset({"return", "vars", "assert", "after", "as", "pass"})

LOOP_NAME = "_loop"
ITERATION_KEYS = frozenset(
    {"collection", "element", "task", "mode", "concurrency", "where", "order_by", "limit", "chunk", "enumerate"}
    | {"on_error", "distribute", "tolerate"}
)

ENTRY_WORDS = ("when", "condition", "pass")
CATCH_KEYS = frozenset({"step", "name", "then", *ENTRY_WORDS, *INPUT_WORDS, "desc", "description"})
ERROR = "error"  # the word for the error in a `catch`
ERROR_KEYS = ("type", "message", "status_code")  # of the `error` of a `fail` step
ENTRY_KEYS = frozenset({"step", "name", "then", "else", *ENTRY_WORDS, *INPUT_WORDS, "desc", "description"})
TARGET_KEYS = frozenset({"step", "name", "desc", "description", *INPUT_WORDS})

RETRY_KEYS = (
    *("max_attempts", "initial_delay", "backoff_multiplier", "max_delay", "jitter"),
    *("retry_when", "stop_when"),
)

ROOT_KEYS = frozenset(
    {"apiVersion", "kind", "metadata", "name", "path", "description", "version", "workload", "spec", "workbook"}
    | {"workflow", "steps", "workload_schema"}
)
METADATA_KEYS = frozenset(
    {"name", "path", "version", "description", "tags", "labels", "annotations", "author", "owner"}
    | {"max_visits", "deadline", "priority", "schedule", "on_signal", "on_failure", "concurrency"}
)

# Names that every template finds.
SCOPE_WORDS = frozenset({"execution_id", "result", "this", "args", "results", "_loop", *WORKLOAD_WORDS})
FUNCTIONS = frozenset({"range", "now", "uuid"})
# The words of a retry's conditions that are no mappings, each with a description.
PLAIN_RETRY_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "error": "a text, the message of the error",
        "error_type": "a text",
        "status_code": "a number",
        "attempt": "a number",
    }
)
RETRY_WORDS = frozenset({*PLAIN_RETRY_WORDS, "result"})

# Worker-side words in a `save`: the data to save, and the values of a `statement`.
SAVED_WORDS = frozenset({"data", "params"})


def words_of_item(element: str, item: object, index: int, count: int) -> dict[str, object]:
    """The names that only the templates of one item can read: the element, and `_loop`."""
    return {element: item, LOOP_NAME: {"index": index, "count": count, "item": item}}

"""The words of a playbook, as tables: step types with their own keys, the keys of every step, aliases.

A step's keys are the common ones, the words for inputs, and those that its type defines itself. A type's own keys win:
`params` of an `http` step is its query string and stays untouched, while `params` of a `python` step is inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from noetl_broker.template import WORKLOAD_WORDS

START, END = "start", "end"

# Aliases of a step's inputs, the weakest first.
INPUT_WORDS = ("with", "payload", "input", "params", "data", "args")

CONTROL_TYPES = frozenset({"start", "end", "route", "router", "noop"})
BROKER_TYPES = frozenset({"playbook", "iterator"})

_CODE = ("code", "code_b64", "script")
_SQL = ("command", "command_b64", "commands", "commands_b64", "sql", "sql_b64", "query", "parameters", *_CODE)
_AUTH = ("auth", "credential", "credentials")

# The keys that each type defines itself. A type of the setting `extra_step_types` may have any key.
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
            "postgres": (*_SQL, *_AUTH, "database", "host", "port", "user", "password", "schema"),
            "duckdb": (*_SQL, *_AUTH, "database", "extensions"),
            "snowflake": (*_SQL, *_AUTH, "account", "user", "password", "warehouse", "database", "schema", "role"),
            "transfer": (*_AUTH, "source", "target", "chunk_size", "mode", "direction"),
            "secrets": (*_AUTH, "provider", "project_id", "secret_name", "secret_version", "names"),
            "save": (*_AUTH, "storage", "table", "mode", "key", "data", "statement", "params"),
            "container": (*_AUTH, "image", "command", "env", "script", "namespace", "resources", "volumes"),
            "playbook": ("path", "version", "return_step"),
            "iterator": (),
        }.items()
    }
)
ACTION_TYPES = frozenset(OWN_KEYS) - CONTROL_TYPES - BROKER_TYPES

# Types whose word for inputs may also be a list, which then is the type's own (a container's argument vector).
LIST_KEYS: Mapping[str, frozenset[str]] = MappingProxyType({"container": frozenset({"args"})})

SQL_TYPES = frozenset({"postgres", "duckdb", "snowflake"})
PROGRAM_TYPES = SQL_TYPES | {"python"}

# Words for inputs that a type's tool also reads itself: the body of a request, the values of a statement.
TOOL_WORDS: Mapping[str, frozenset[str]] = MappingProxyType(
    {"http": frozenset({"data"}), **dict.fromkeys(sorted(SQL_TYPES), frozenset({"params"}))}
)
CODE_KEYS = ("code", "code_b64", "script")

# Never rendered by the broker: program text, and what is base64 already.
PLAIN_KEYS = frozenset({"code", "code_b64", "command_b64", "commands_b64", "sql_b64"})

# Source text travels base64-encoded, so that no quoting is lost on the way to a worker in another language.
ENCODED_KEYS = {"code": "code_b64", "command": "command_b64", "commands": "commands_b64", "sql": "command_b64"}

SAVE_KEYS = ("save", "sink")
TYPE_KEYS = ("type", "tool")

# Keys of a step that the broker itself reads; they are not the task's fields.
BROKER_KEYS = frozenset(
    {"step", "name", "task", "desc", "description", "type", "tool", "next", "retry", "join", "next_mode", "on_error"}
    | {"timeout", "priority", "result", "loop"}
)

# What of them a job tells its worker all the same, as it is written: all but what is in the job under another name, and
# `loop`, which makes whoever reads it iterate.
TOLD_KEYS = BROKER_KEYS - {"step", "name", "type", "tool", "next", "loop"}

# Keys of newer dialects about what happens after the task: handed on as they are, and not acted on.
AFTERWARDS_KEYS = frozenset({"return", "vars", "assert", "after", "as", "pass"})

ITERATION_KEYS = frozenset(
    {"collection", "element", "task", "mode", "concurrency", "where", "order_by", "limit", "chunk", "enumerate"}
    | {"on_error", "distribute"}
)

ENTRY_WORDS = ("when", "condition", "pass")
ENTRY_KEYS = frozenset({"step", "name", "then", "else", *ENTRY_WORDS, *INPUT_WORDS, "desc", "description"})
TARGET_KEYS = frozenset({"step", "name", "desc", "description", *INPUT_WORDS})

RETRY_KEYS = (
    *("max_attempts", "initial_delay", "backoff_multiplier", "max_delay", "jitter"),
    *("retry_when", "stop_when"),
)

ROOT_KEYS = frozenset(
    {"apiVersion", "kind", "metadata", "name", "path", "description", "version", "workload", "spec", "workbook"}
    | {"workflow", "steps"}
)
METADATA_KEYS = frozenset(
    {"name", "path", "version", "description", "tags", "labels", "annotations", "author", "owner"}
    | {"max_visits", "deadline", "priority"}
)

# Names that a template finds without any step or workload key (spec: section 3).
SCOPE_WORDS = frozenset({"execution_id", "result", "this", "args", "results", "_loop", *WORKLOAD_WORDS})
FUNCTIONS = frozenset({"range", "now", "uuid"})
# What a condition of a retry finds beside; of those that are no mappings, what they are.
PLAIN_RETRY_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "error": "a text, the message of the error",
        "error_type": "a text",
        "status_code": "a number",
        "attempt": "a number",
    }
)
RETRY_WORDS = frozenset({*PLAIN_RETRY_WORDS, "result"})

# Inside `save`, these are the worker's too: what it is about to save, and the values of a `statement`.
SAVED_WORDS = frozenset({"data", "params"})

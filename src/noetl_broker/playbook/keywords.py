"""The keys and words of a playbook as tables: step types with their own keys, keys of every step, aliases."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from noetl_broker.playbook.kinds import KINDS_BY_TYPE
from noetl_broker.template import WORKLOAD_WORDS

START, END = "start", "end"
COMPENSATE = "compensate"
DEFAULT_POOL = "default"  # of workers and jobs that name none
THROTTLE = "throttle"

# Aliases of a step's inputs, the weakest first.
INPUT_WORDS = ("with", "payload", "input", "params", "data", "args")

CONTROL_TYPES = frozenset({"start", "end", "route", "router", "noop"})
BROKER_TYPES = frozenset(KINDS_BY_TYPE)
SIGNAL = "signal"  # the word for a signal in conditions, and in the workload of what it starts

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
WITH_RESULT = "with_result"  # the word of `commit`: what is written commits with the completion of the job
TYPE_KEYS = ("type", "tool")

# Keys of another dialect: registration refuses them. A version that others registered has them in its jobs, as written.
IGNORED_KEYS = frozenset({"return", "vars", "assert", "after", "as", "pass"})

LOOP_NAME = "_loop"

ENTRY_WORDS = ("when", "condition", "pass")
ERROR = "error"  # the word for the error in a `catch`

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

"""The types of steps, each with the keys that it defines itself.

A type's own keys win over input words: `params` of an `http` step is its query string, `params` of a `python` step is
inputs. A type of people's own workers may have any key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from noetl_broker.playbook import approval, signals, wait
from noetl_broker.playbook.keys import A_MAPPING, A_TEXT, BOOLEAN, DURATION, Form, Key, holds, that
from noetl_broker.playbook.keywords import (
    BROKER_TYPES,
    CODE_KEYS,
    CONTROL_TYPES,
    ERROR,
    HTTP_METHODS,
    INPUT_WORDS,
    SAVE_KEYS,
    SAVE_MODES,
    WITH_RESULT,
)


class TypeKeys(NamedTuple):
    """The own keys of a type.

    Of each group of `needs` a task has one key; the text is an example for the first. `meaningless` are keys of other
    steps that are errors on this one, with the code `code`.
    """

    keys: tuple[Key, ...] = ()
    needs: tuple[tuple[tuple[str, ...], str], ...] = ()
    meaningless: tuple[str, ...] = ()
    code: str = ""


def plain(*names: str) -> tuple[Key, ...]:
    """Declare keys whose values are not checked at registration."""
    return tuple(Key(name, holds()) for name in names)


def one_of(*words: str) -> Form:
    """Give the form of a word, in any case."""
    known = that(lambda value: isinstance(value, str) and value.strip().lower() in {one.lower() for one in words})
    return Form(f"one of {', '.join(words)}", known, ({"enum": [*words]},))


SQL_TEXTS: Final = ("command", "command_b64", "commands", "commands_b64", "sql", "sql_b64", "query", *CODE_KEYS)
_AUTH: Final = plain("auth", "credential", "credentials")
_SQL: Final = (*plain(*SQL_TEXTS, "parameters"), *_AUTH)
_COMMIT: Final = Key("commit", one_of(WITH_RESULT))
_SQL_NEEDS: Final = ((SQL_TEXTS, "select …"),)
TYPES: Final[Mapping[str, TypeKeys]] = {
    **dict.fromkeys(sorted(CONTROL_TYPES), TypeKeys()),
    "python": TypeKeys((*plain(*CODE_KEYS, "env", "libs"), *_AUTH)),
    "http": TypeKeys(
        (
            Key("url", A_TEXT),
            Key("endpoint", A_TEXT),
            Key("method", one_of(*HTTP_METHODS)),
            Key("headers", A_MAPPING),
            Key("verify_ssl", BOOLEAN),
            Key("follow_redirects", BOOLEAN),
            *plain("params", "payload", "body", "timeout"),
            *_AUTH,
        ),
        ((("url", "endpoint"), "https://…"),),
    ),
    "postgres": TypeKeys(
        (*_SQL, _COMMIT, *plain("connection", "database", "host", "port", "user", "password", "schema")), _SQL_NEEDS
    ),
    "duckdb": TypeKeys((*_SQL, *plain("database", "extensions")), _SQL_NEEDS),
    "snowflake": TypeKeys(
        (*_SQL, *plain("account", "user", "password", "warehouse", "database", "schema", "role")), _SQL_NEEDS
    ),
    "transfer": TypeKeys(
        (*_AUTH, *plain("source", "target", "chunk_size", "mode", "direction")),
        ((("source",), "{…}"), (("target",), "{…}")),
    ),
    "secrets": TypeKeys(
        (Key("secret_name", A_TEXT), *_AUTH, *plain("provider", "project_id", "secret_version", "names")),
        ((("secret_name", "names"), "NAME"),),
    ),
    "save": TypeKeys(
        (
            Key("table", A_TEXT),
            Key("mode", one_of(*SAVE_MODES)),
            _COMMIT,
            *_AUTH,
            *plain("storage", "key", "data", "statement", "params"),
        ),
        ((("data", "statement", *INPUT_WORDS, *SAVE_KEYS), "{column: value}"),),
    ),
    "sleep": TypeKeys(
        (Key("seconds", DURATION), Key("duration", DURATION)), ((("seconds", "duration", *INPUT_WORDS), "5"),)
    ),
    "container": TypeKeys(
        (Key("image", A_TEXT), *_AUTH, *plain("command", "env", "script", "namespace", "resources", "volumes")),
        ((("image",), "name:tag"),),
    ),
    "playbook": TypeKeys(plain("path", "version", "return_step", "workflow", "concurrency")),
    "iterator": TypeKeys(),
    "wait": TypeKeys((*wait.OF_TIME, *wait.OF_SIGNALS), meaningless=("retry",), code="bad-wait"),
    "approval": TypeKeys(approval.KEYS, meaningless=("retry",), code="bad-approval"),
    "signal": TypeKeys(signals.SIGNAL_KEYS, meaningless=("retry", "timeout"), code="bad-wait"),
    "fail": TypeKeys(plain(ERROR), meaningless=("retry", "timeout"), code="bad-fail"),
}
OWN_KEYS: Final[Mapping[str, frozenset[str]]] = {
    name: frozenset(key.name for key in one.keys) for name, one in TYPES.items()
}
# The own keys of the types that workers run, whose values are checked at registration; the others when they compile.
CHECKED_KEYS: Final[Mapping[str, tuple[Key, ...]]] = {
    name: tuple(key for key in one.keys if key.form.wanted and name not in BROKER_TYPES) for name, one in TYPES.items()
}
ACTION_TYPES: Final = frozenset(OWN_KEYS) - CONTROL_TYPES - BROKER_TYPES

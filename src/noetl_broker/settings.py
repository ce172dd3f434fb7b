"""All settings in one class: meaning, unit, bounds and default.

The first source with a value wins: command line, environment (`NOETL_BROKER_` and the name in capitals), `--config`
file (YAML or TOML), default. Empty values are ignored: an empty variable, a null or empty text in the file. Only the
command line reads settings; it passes values down. If nothing names a database, the nearest `.noetl/` of `dev` does.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from ipaddress import ip_network
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from noetl_broker.dev_folder import find_dsn_file
from noetl_broker.errors import OperatorFault
from noetl_broker.store.connect.dsn import Database, node_addresses
from noetl_broker.store.connect.schema_name import DEFAULT_SCHEMA
from noetl_broker.template.durations import parse_duration

PREFIX = "NOETL_BROKER_"
HIDDEN = "**********"
SECRETS = ("dsn", "dsns", "dsn_file")
A_DSN = re.compile(r"://|password\s*=", re.IGNORECASE)

# A job's type is an identifier, never a part of a statement.
StepType = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,62}$")]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,62}$")]


def _network(text: str) -> str:
    if ip_network(text).prefixlen == 0:
        raise ValueError("everybody is in it; name the addresses of your proxies")
    return text


Network = Annotated[str, AfterValidator(_network)]


def _days(text: str) -> str:
    if parse_duration(text) < parse_duration("1d"):
        raise ValueError("it is less than a day; write it as 90d or 52w")
    return text


Days = Annotated[str, AfterValidator(_days)]


def _no_dsn(value: Any) -> Any:
    """Refuse a DSN given as a path: an error about that file would show its password."""
    if isinstance(value, str) and A_DSN.search(value):
        message = "it is no path but a DSN; name the file that holds it, or give it as dsn"
        raise PydanticCustomError("dsn_as_path", message)
    return value


with warnings.catch_warnings():
    warnings.filterwarnings("ignore", 'Field name "schema"')  # of Settings.schema

    class Settings(BaseSettings):
        """The settings of all commands."""

        model_config = SettingsConfigDict(
            env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, hide_input_in_errors=True
        )

        dsn: SecretStr | None = Field(
            None, description="connection string of the database; without it the PG* variables apply"
        )
        dsns: tuple[Annotated[SecretStr, Field(min_length=1)], ...] = Field(
            (), description="databases that one `run` serves, in place of `dsn`"
        )
        schema: str = Field(  # type: ignore[assignment] # pydantic's method of that name is deprecated, and nobody calls it
            DEFAULT_SCHEMA, description="schema of the broker's tables; names such as `NAME_archive` follow from it"
        )
        schemas: tuple[str, ...] = Field((), description="schemas that one `run` serves, in place of `schema`")
        nodes: tuple[str, ...] = Field(
            (), description="addresses of nodes that Citus calls otherwise, each as `10.0.0.5:5432=db1:5432`"
        )
        dsn_file: Annotated[Path | None, BeforeValidator(_no_dsn)] = Field(
            None,
            description="file with the DSN (a secret), if no other setting gives one; else that of the nearest .noetl/",
        )
        lanes: int | None = Field(
            None,
            ge=1,
            le=32,
            description="transactions of one process at a time; without it 3, of several processes 2 each, a bucket 1",
        )
        batch_size: int = Field(200, ge=1, le=200, description="most events in one transaction")
        notify: Literal["gated", "always", "off"] = Field("gated", description="when writers notify the broker")
        sweep_seconds: float = Field(
            5.0, ge=0.1, le=60, description="seconds between polls of the inbox without a notification"
        )
        reap_seconds: float = Field(1.0, ge=0.05, le=60, description="seconds between polls for expired leases")
        max_lost_leases: int = Field(5, ge=0, le=1000, description="lost leases after which a step fails")
        missing_event_seconds: float = Field(
            30.0,
            ge=1,
            le=3600,
            description="seconds to wait for the event of a job that a NoETL server has ended",
        )
        foreign_lease_grace_seconds: float = Field(
            900.0,
            ge=0,
            le=86_400,
            description="seconds after which a lease from a NoETL server is lost",
        )
        drain_seconds: float = Field(10.0, ge=0.1, le=300, description="seconds that a stop waits for running turns")
        max_gathered_bytes: int = Field(
            64 << 20, ge=1024, le=240 << 20, description="bytes of all results of one iterator, uncompressed"
        )
        health_host: str = Field("127.0.0.1", min_length=1, description="address of the health port; 0.0.0.0 is all")
        health_port: int = Field(9464, ge=0, le=65_535, description="port of /live, /ready and /metrics; 0 is none")
        console_host: str = Field(
            "127.0.0.1", min_length=1, description="address of the console; any but a loopback needs a token"
        )
        console_port: int = Field(8080, ge=0, le=65_535, description="port of the console; 0 is any free one")
        console_trusted_header: HeaderName | None = Field(
            None, description="header in which a proxy names the person who asks the console"
        )
        console_trusted_proxies: tuple[Network, ...] = Field(
            (), description="addresses or networks of the proxies that may send this header: 10.1.2.3, 10.1.2.0/24"
        )
        console_trusted_operators: frozenset[str] = Field(
            frozenset(), description="names in this header that are operators; names in no list are viewers"
        )
        metrics_paths: tuple[str, ...] = Field(
            (), description="playbooks with metrics of their own, such as `orders/*`; at most 100 paths become labels"
        )
        console_trusted_authors: frozenset[str] = Field(frozenset(), description="names in this header: authors")
        console_trusted_approvers: frozenset[str] = Field(frozenset(), description="names in this header: approvers")
        console_trusted_producers: frozenset[str] = Field(frozenset(), description="names in this header: producers")
        verify_seconds: float = Field(
            60.0,
            ge=0,
            le=86_400,
            description="seconds between checks of the invariants of recent changes; 0 is never",
        )
        traces: Literal["off", "otlp"] = Field(
            "off", description="whether spans are sent; OTEL_EXPORTER_OTLP_* say where"
        )
        period_days: int = Field(
            30, ge=1, le=3660, description="days in one period of partitions, from the next period on"
        )
        keep: Days | None = Field(None, description="how long ended executions are kept, as `90d`; without it for ever")
        keep_keys: Days = Field(
            "365d", description="how long an idempotency key lives at least; longer if its execution is kept"
        )
        max_visits: int = Field(10_000, ge=1, le=1_000_000, description="visits of steps in one execution")
        max_nesting: int = Field(32, ge=1, le=1000, description="levels of child executions")
        max_open_jobs: int = Field(10_000, ge=1, le=1_000_000, description="open jobs of one execution")
        max_turns: int = Field(
            1_000_000, ge=100, le=10_000_000, description="turns of one execution, one for each event"
        )
        max_fan_out: int = Field(1_000, ge=1, le=100_000, description="transitions of one turn")
        max_payload_keys: int = Field(100_000, ge=100, le=10_000_000, description="keys of all mappings in a payload")
        max_signals: int = Field(1_000, ge=1, le=100_000, description="signals that an execution keeps for later waits")
        default_max_attempts: int = Field(1, ge=1, le=100, description="attempts of a step without a `retry`")
        undefined_when: Literal["error", "false"] = Field(
            "error", description="what an undefined name in a `when` does"
        )
        retry_owner: Literal["broker", "worker"] = Field(
            "broker",
            description="who decides about retries; beside a NoETL worker it is the worker",
        )
        template_max_source_chars: int = Field(
            65_536, ge=256, le=1 << 20, description="characters of one template's source"
        )
        template_max_output_chars: int = Field(
            1 << 20,
            ge=1024,
            le=16 << 20,
            description="characters of a text that a template makes, or of all texts in one value",
        )
        template_max_steps: int = Field(
            500_000, ge=1000, le=10_000_000, description="steps of one template evaluation, at most 0.1 µs each"
        )
        preload: tuple[str, ...] = Field(
            (), description="modules that a worker imports once, for all its `python` steps"
        )
        pass_env: tuple[str, ...] = Field(
            (),
            description="variables of a worker's environment that jobs may read, beside PATH, HOME, LANG, TZ and such",
        )
        idle_connection_seconds: float = Field(
            30.0, ge=0, le=3600, description="seconds that a worker keeps an unused connection of a step; 0 keeps none"
        )
        extra_step_types: frozenset[StepType] = Field(
            frozenset(), description="further names that `type` accepts at registration"
        )
        max_document_bytes: int = Field(1 << 20, ge=1024, le=64 << 20, description="bytes of one playbook")
        log_level: Literal["debug", "info", "warning", "error"] = Field(
            "info", description="lowest level that is logged"
        )
        log_format: Literal["console", "json"] = Field("console", description="format of log lines")

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings' signature
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            """The environment wins over the file, whose values `load_settings` passes as initial values."""
            del settings_cls
            return env_settings, init_settings


def load_settings(config: Path | None = None) -> Settings:
    """The settings from file and environment; raises OperatorFault with each wrong value and its place."""
    from_file = _read(config) if config is not None else {}
    try:
        return Settings(**from_file)
    except SettingsError as error:
        raise OperatorFault(_no_list(str(error), dict(os.environ))) from None
    except ValidationError as error:
        raise OperatorFault("; ".join(_complaints(error, from_file, config))) from error


def _no_list(error: str, environ: dict[str, str]) -> str:
    """The complaint about a variable that should hold a JSON list; the library's error names the setting."""
    found = re.search(r'field "(\w+)"', error)
    if found is None:
        return f"a setting in the environment cannot be read: {error}; lists are JSON there"
    name = found[1]
    value = next((text for key, text in environ.items() if key.upper() == PREFIX + name.upper()), "")
    if name in SECRETS:
        return f"the variable {PREFIX}{name.upper()} holds no JSON list: write for example '[\"postgresql://…\"]'"
    meant = json.dumps(re.findall(r"[^\s,\[\]\"']+", value))
    return f"the variable {PREFIX}{name.upper()} holds {value!r:.80}, which is no JSON list: write '{meant}'"


def with_dsn(settings: Settings) -> Settings:
    """The settings with the DSN from `dsn_file`, if no other setting gives one; raises OperatorFault.

    A systemd credential or a container secret is such a file. Without one, it is that of the nearest `.noetl/`.
    """
    if settings.dsn is not None:
        return settings
    file = settings.dsn_file or find_dsn_file(os.environ)
    if file is None:
        return settings
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorFault(f"the setting dsn_file names a file that cannot be read: {error}") from error
    if not text:
        raise OperatorFault(f"the file {file} of the setting dsn_file is empty; write the DSN into it")
    return settings.model_copy(update={"dsn": SecretStr(text), "dsn_file": file})


def databases_of(
    settings: Settings, given_dsns: Sequence[str], given_schemas: Sequence[str], *, several: bool
) -> tuple[Database, ...]:
    """Give the databases that the command line and the settings name; `several`: the command serves several.

    One schema counts for all databases, and several schemas may be in one database. Raises OperatorFault if there are
    several of both, and their numbers differ.
    """
    secrets = settings.dsns if several else ()
    dsns: Sequence[str | None] = given_dsns or tuple(dsn.get_secret_value() for dsn in secrets)
    if not dsns:
        dsns = (settings.dsn.get_secret_value() if settings.dsn is not None else None,)
    schemas = given_schemas or (settings.schemas if several else ()) or (settings.schema,)
    if len(dsns) > 1 and len(schemas) > 1 and len(dsns) != len(schemas):
        raise OperatorFault(
            f"{len(dsns)} databases and {len(schemas)} schemas are given: name one schema for all databases, or one for"
            " each in the same order"
        )
    pairs = zip(cycle(dsns), schemas, strict=False) if len(dsns) == 1 else zip(dsns, cycle(schemas), strict=False)
    nodes = node_addresses(settings.nodes)
    return tuple(Database(dsn=dsn, schema=schema, nodes=nodes) for dsn, schema in pairs)


def explain_settings(settings: Settings, from_file: dict[str, Any], environ: dict[str, str]) -> list[dict[str, Any]]:
    """Each setting with its value (secrets hidden), its source and its description."""
    rows = []
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        source = "default"
        if PREFIX + name.upper() in {key.upper() for key, text in environ.items() if text}:
            source = f"environment {PREFIX}{name.upper()}"
        elif name in from_file:
            source = "file"
        elif name == "dsn" and value is not None:
            source = f"file {settings.dsn_file}"
        elif name == "dsn_file" and value is not None:
            source = "noetl-broker dev"
        if isinstance(value, SecretStr):
            value = HIDDEN
        elif name == "dsns":
            value = [HIDDEN for _ in value]
        rows.append(
            {
                "name": name,
                "value": sorted(value)
                if isinstance(value, frozenset)
                else str(value)
                if isinstance(value, Path)
                else value,
                "source": source,
                "description": field.description,
            }
        )
    return rows


def _read(config: Path) -> dict[str, Any]:
    try:
        text = config.read_text(encoding="utf-8")
        found = tomllib.loads(text) if config.suffix == ".toml" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorFault(f"the file {config} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise OperatorFault(f"the file {config} is not valid: {error}") from error
    except yaml.YAMLError as error:
        raise OperatorFault(f"the file {config} is not valid: {_without_text(error)}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise OperatorFault(f"the file {config} must be a mapping of settings, it is a {type(found).__name__}")
    # An unknown name is an error even if its value is empty.
    by_name = {str(key): value for key, value in found.items()}
    return {
        name: value for name, value in by_name.items() if value not in (None, "") or name not in Settings.model_fields
    }


def _without_text(error: yaml.YAMLError) -> str:
    """The problem and its place, without the line that YAML's message shows: it may contain the DSN."""
    mark = getattr(error, "problem_mark", None)
    where = f" on line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
    return f"{getattr(error, 'problem', None) or 'it is not YAML'}{where}"


def _complaints(error: ValidationError, from_file: dict[str, Any], config: Path | None) -> list[str]:
    lines = []
    for problem in error.errors():
        name = str(problem["loc"][0]) if problem["loc"] else "?"
        where = f"in {config}" if name in from_file else f"in the environment ({PREFIX}{name.upper()})"
        meant = _meant(name, problem)
        # An unknown name may be a misspelled secret.
        is_secret = name in SECRETS or problem["type"] == "extra_forbidden"
        shown = "" if is_secret else f" {problem['input']!r:.80}"
        lines.append(f"setting {name}{shown} {where}: {meant or problem['msg']}")
    return lines


def _meant(name: str, problem: ErrorDetails) -> str | None:
    """A suggestion for a misspelled name or word; None to use the library's message."""
    if problem["type"] == "extra_forbidden":
        near = get_close_matches(name, Settings.model_fields, n=1)
        return f"there is no such setting; did you mean {near[0]}?" if near else "there is no such setting"
    if problem["type"] == "literal_error":
        words = str(problem.get("ctx", {}).get("expected", ""))
        near = get_close_matches(str(problem["input"]), re.findall(r"'(\w+)'", words), n=1)
        return f"{problem['msg']}; did you mean {near[0]}?" if near else None
    return None


def file_values(config: Path | None) -> dict[str, Any]:
    """The values of the file, for the command `config`."""
    return _read(config) if config is not None else {}

"""Every setting in one class: what it means, its unit, its bounds, and where it may come from.

In this order, the first wins: the command line, the environment (`NOETL_BROKER_` and the name in capitals), the file
given with `--config` (YAML or TOML), the default. What is empty there says nothing: a variable without text, and in the
file a null or a text without letters. Seen by the command line alone; values are passed down.
"""

from __future__ import annotations

import re
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from noetl_broker.errors import OperatorFault

PREFIX = "NOETL_BROKER_"
HIDDEN = "**********"
SECRETS = ("dsn", "dsns", "dsn_file")
A_DSN = re.compile(r"://|password\s*=", re.IGNORECASE)

# What the name of a type may be: a job's type is an identifier, never a piece of a statement.
StepType = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,62}$")]


def _no_dsn(value: Any) -> Any:
    """Refuse a DSN in the place of a path, before its password is told as the name of a file."""
    if isinstance(value, str) and A_DSN.search(value):
        message = "it is no path but a DSN; name the file that holds it, or give it as dsn"
        raise PydanticCustomError("dsn_as_path", message)
    return value


class Settings(BaseSettings):
    """The settings of all commands."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    dsn: SecretStr | None = Field(None, description="where the database is; without it the PG* variables say")
    dsns: tuple[Annotated[SecretStr, Field(min_length=1)], ...] = Field(
        (), description="databases that one `run` serves, in place of `dsn`"
    )
    dsn_file: Annotated[Path | None, BeforeValidator(_no_dsn)] = Field(
        None, description="file with the DSN, where no other setting gives one: a secret"
    )
    lanes: int | None = Field(
        None,
        ge=1,
        le=32,
        description="transactions that one process has under way at a time; without it 3, of several processes 2 each",
    )
    batch_size: int = Field(200, ge=1, le=200, description="events that one transaction takes at most")
    notify: Literal["gated", "always", "off"] = Field("gated", description="when writers ring the bell")
    sweep_seconds: float = Field(
        5.0, ge=0.1, le=60, description="seconds after which the inbox is looked at in any case"
    )
    reap_seconds: float = Field(1.0, ge=0.05, le=60, description="seconds between looks for leases that ran out")
    max_lost_leases: int = Field(5, ge=0, le=1000, description="lost leases after which a step fails")
    missing_event_seconds: float = Field(
        30.0, ge=1, le=3600, description="seconds that the event of a job is waited for which a NoETL server has ended"
    )
    foreign_lease_grace_seconds: float = Field(
        900.0, ge=0, le=86_400, description="seconds after which a lease that a NoETL server gave is lost in any case"
    )
    drain_seconds: float = Field(10.0, ge=0.1, le=300, description="seconds that a stop waits for turns under way")
    max_gathered_bytes: int = Field(
        64 << 20, ge=1024, le=240 << 20, description="bytes of all results of one iterator together, uncompressed"
    )
    health_host: str = Field("127.0.0.1", min_length=1, description="address of the health port; 0.0.0.0 is all")
    health_port: int = Field(9464, ge=0, le=65_535, description="port of /live, /ready and /metrics; 0 is none")
    verify_seconds: float = Field(
        60.0, ge=0, le=86_400, description="seconds between looks at the invariants of what changed lately; 0 is never"
    )
    traces: Literal["off", "otlp"] = Field(
        "off", description="whether spans are sent, to where OTEL_EXPORTER_OTLP_* say"
    )
    period_days: int = Field(30, ge=1, le=3660, description="days of history that share partitions, from the next on")
    max_visits: int = Field(10_000, ge=1, le=1_000_000, description="visits of steps in one execution")
    max_nesting: int = Field(32, ge=1, le=1000, description="playbooks that start playbooks, one below the other")
    max_open_jobs: int = Field(10_000, ge=1, le=1_000_000, description="open jobs of one execution")
    max_turns: int = Field(1_000_000, ge=100, le=10_000_000, description="turns of one execution, one for each event")
    max_fan_out: int = Field(1_000, ge=1, le=100_000, description="transitions that one turn takes")
    max_payload_keys: int = Field(
        100_000, ge=100, le=10_000_000, description="keys of a payload, of all mappings in it together"
    )
    default_max_attempts: int = Field(1, ge=1, le=100, description="attempts of a step without a `retry`")
    undefined_when: Literal["error", "false"] = Field("error", description="what an undefined name in a `when` does")
    retry_owner: Literal["broker", "worker"] = Field(
        "broker", description="who decides whether a failed action is tried again: beside a NoETL worker, the worker"
    )
    template_max_source_chars: int = Field(
        65_536, ge=256, le=1 << 20, description="characters of one template, as it is written"
    )
    template_max_output_chars: int = Field(
        1 << 20, ge=1024, le=16 << 20, description="characters of a text that a template makes, or of all in one value"
    )
    template_max_steps: int = Field(
        500_000, ge=1000, le=10_000_000, description="steps of one evaluation of a template, 0.1 µs or less each"
    )
    extra_step_types: frozenset[StepType] = Field(frozenset(), description="further names that `type` may have")
    max_document_bytes: int = Field(1 << 20, ge=1024, le=64 << 20, description="bytes of one playbook")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="the least that is logged")
    log_format: Literal["console", "json"] = Field("console", description="how log lines look")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings' signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over what a file says (which `load_settings` passes as initial values)."""
        del settings_cls
        return env_settings, init_settings


def load_settings(config: Path | None = None) -> Settings:
    """The settings from file and environment; raises OperatorFault with each value that is wrong, and its place."""
    from_file = _read(config) if config is not None else {}
    try:
        return Settings(**from_file)
    except SettingsError as error:
        raise OperatorFault(f"a setting in the environment cannot be read: {error}; lists are JSON there") from error
    except ValidationError as error:
        raise OperatorFault("; ".join(_complaints(error, from_file, config))) from error


def with_dsn(settings: Settings) -> Settings:
    """Take the DSN from its file, where only that gives one; raises OperatorFault where it cannot be read.

    So a credential of systemd, or a secret of a container, needs no variable.
    """
    if settings.dsn is not None or settings.dsn_file is None:
        return settings
    try:
        text = settings.dsn_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorFault(f"the setting dsn_file names a file that cannot be read: {error}") from error
    if not text:
        raise OperatorFault(f"the file {settings.dsn_file} of the setting dsn_file is empty; write the DSN into it")
    return settings.model_copy(update={"dsn": SecretStr(text)})


def explain_settings(settings: Settings, from_file: dict[str, Any], environ: dict[str, str]) -> list[dict[str, Any]]:
    """Each setting with its value (secrets hidden), where it came from, and what it means."""
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
    # A name that we do not know is told of, whatever it says.
    said = {str(key): value for key, value in found.items()}
    return {name: value for name, value in said.items() if value not in (None, "") or name not in Settings.model_fields}


def _without_text(error: yaml.YAMLError) -> str:
    """Say what is wrong and where; YAML's own words show the line, which may be the one with the DSN."""
    mark = getattr(error, "problem_mark", None)
    where = f" on line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
    return f"{getattr(error, 'problem', None) or 'it is not YAML'}{where}"


def _complaints(error: ValidationError, from_file: dict[str, Any], config: Path | None) -> list[str]:
    lines = []
    for problem in error.errors():
        name = str(problem["loc"][0]) if problem["loc"] else "?"
        where = f"in {config}" if name in from_file else f"in the environment ({PREFIX}{name.upper()})"
        meant = _meant(name, problem)
        # A name that we do not know may be a mistyped one of a secret.
        is_secret = name in SECRETS or problem["type"] == "extra_forbidden"
        shown = "" if is_secret else f" {problem['input']!r:.80}"
        lines.append(f"setting {name}{shown} {where}: {meant or problem['msg']}")
    return lines


def _meant(name: str, problem: ErrorDetails) -> str | None:
    """Say what was probably meant by a name or a word; None where the library's own words serve."""
    if problem["type"] == "extra_forbidden":
        near = get_close_matches(name, Settings.model_fields, n=1)
        return f"there is no such setting; did you mean {near[0]}?" if near else "there is no such setting"
    if problem["type"] == "literal_error":
        words = str(problem.get("ctx", {}).get("expected", ""))
        near = get_close_matches(str(problem["input"]), re.findall(r"'(\w+)'", words), n=1)
        return f"{problem['msg']}; did you mean {near[0]}?" if near else None
    return None


def file_values(config: Path | None) -> dict[str, Any]:
    """What the file says, for `config` to show."""
    return _read(config) if config is not None else {}

"""Every setting in one class: what it means, its unit, its bounds, and where it may come from.

In this order, the first wins: the command line, the environment (`NOETL_BROKER_` and the name in capitals), the file
given with `--config` (YAML or TOML), the default. Seen by the command line alone; values are passed down.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from noetl_broker.errors import OperatorFault

PREFIX = "NOETL_BROKER_"

# What the name of a type may be: a job's type is an identifier, never a piece of a statement.
StepType = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,62}$")]


class Settings(BaseSettings):
    """The settings of all commands."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    dsn: SecretStr | None = Field(None, description="where the database is; without it the PG* variables say")
    lanes: int = Field(2, ge=1, le=32, description="transactions that one process has under way at a time")
    batch_size: int = Field(200, ge=1, le=200, description="events that one transaction takes at most")
    notify: Literal["gated", "always", "off"] = Field("gated", description="when writers ring the bell")
    sweep_seconds: float = Field(
        5.0, ge=0.1, le=60, description="seconds after which the inbox is looked at in any case"
    )
    reap_seconds: float = Field(1.0, ge=0.05, le=60, description="seconds between looks for leases that ran out")
    max_lost_leases: int = Field(5, ge=0, le=1000, description="lost leases after which a step fails")
    drain_seconds: float = Field(10.0, ge=0.1, le=300, description="seconds that a stop waits for turns under way")
    max_gathered_bytes: int = Field(
        64 << 20, ge=1024, le=256 << 20, description="bytes of all results of one iterator together, as stored"
    )
    health_host: str = Field("127.0.0.1", min_length=1, description="address of the health port; 0.0.0.0 is all")
    health_port: int = Field(9464, ge=0, le=65_535, description="port of /live, /ready and /metrics; 0 is none")
    verify_seconds: float = Field(
        60.0, ge=0, le=86_400, description="seconds between looks at the invariants of what changed lately; 0 is never"
    )
    traces: Literal["off", "otlp"] = Field(
        "off", description="whether spans are sent, to where OTEL_EXPORTER_OTLP_* say"
    )
    max_visits: int = Field(10_000, ge=1, le=1_000_000, description="visits of steps in one execution")
    max_nesting: int = Field(32, ge=1, le=1000, description="playbooks that start playbooks, one below the other")
    max_open_jobs: int = Field(10_000, ge=1, le=1_000_000, description="open jobs of one execution")
    max_turns: int = Field(100_000, ge=100, le=10_000_000, description="turns of one execution, one for each event")
    max_fan_out: int = Field(1_000, ge=1, le=100_000, description="transitions that one turn takes")
    default_max_attempts: int = Field(1, ge=1, le=100, description="attempts of a step without a `retry`")
    undefined_when: Literal["error", "false"] = Field("error", description="what an undefined name in a `when` does")
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


def explain_settings(settings: Settings, from_file: dict[str, Any], environ: dict[str, str]) -> list[dict[str, Any]]:
    """Each setting with its value (secrets hidden), where it came from, and what it means."""
    rows = []
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        source = "default"
        if PREFIX + name.upper() in {key.upper() for key in environ}:
            source = f"environment {PREFIX}{name.upper()}"
        elif name in from_file:
            source = "file"
        if isinstance(value, SecretStr):
            value = "**********"
        rows.append(
            {
                "name": name,
                "value": sorted(value) if isinstance(value, frozenset) else value,
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
    return {str(key): value for key, value in found.items()}


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
        shown = "" if name == "dsn" else f" {problem['input']!r:.80}"
        lines.append(f"setting {name}{shown} {where}: {problem['msg']}")
    return lines


def file_values(config: Path | None) -> dict[str, Any]:
    """What the file says, for `config` to show."""
    return _read(config) if config is not None else {}

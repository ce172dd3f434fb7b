"""Reads `metadata.schedule`: when a playbook starts by itself.

Registration refuses a bad one. Compiling does not read it: playbooks that are registered already keep running.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from math import inf
from typing import Any, Final

from noetl_broker.errors import PlaybookFault
from noetl_broker.playbook.cron import LONGEST_SPAN, SHORTEST_SPAN, TimingError, read_cron, read_zone
from noetl_broker.playbook.diagnostics import Location, PlaybookRules, Report, json_type_name
from noetl_broker.playbook.keys import MAPPING, NAME_CHARS, NUMBER, TEXT, Form, Key, Keys, entries_of, holds, word
from noetl_broker.playbook.reader import Reading, TemplateSite
from noetl_broker.playbook.work_budget import Work
from noetl_broker.playbook.yaml_loader import Document
from noetl_broker.template.durations import DURATION_FORMS, parse_duration

KEY: Final[Location] = ("metadata", "schedule")
CODE: Final = "bad-schedule"
WORKLOAD_KEY: Final = "schedule"  # of the payload: the schedule's name and the moment
MOST_SCHEDULES: Final = 100
OVERLAP: Final = ("skip", "queue", "cancel", "allow")  # the first one is the default
SITE: Final = TemplateSite(step=None, role="workload")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredSchedule:
    """One schedule of a playbook; exactly one of `cron` and `every`."""

    name: str
    cron: str | None = None
    every: timedelta | None = None
    timezone: str = "UTC"
    payload: Mapping[str, Any] = field(default_factory=dict)
    jitter: timedelta = timedelta(0)
    catch_up: timedelta = timedelta(hours=1)
    overlap: str = OVERLAP[0]


def _parse_name(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or "#" in value:
        raise ValueError(f"the name of a schedule is {value!r:.60}; write a text without # such as nightly")
    if len(value) > NAME_CHARS:
        raise ValueError(f"the name has {len(value)} characters, and it may have {NAME_CHARS}; shorten it")
    return value


def _parse_cron(value: Any) -> str:
    if not isinstance(value, str):
        raise TimingError(f"`cron` is {json_type_name(value)}; write a text in quotes")
    return read_cron(value).text


def _parse_zone(value: Any) -> str:
    if not isinstance(value, str):
        raise TimingError(f"`timezone` is {json_type_name(value)}; write a text in quotes")
    read_zone(value)
    return value


def _parse_payload(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"`payload` is {json_type_name(value)}; write a mapping: {{city: Paris}}")  # noqa: TRY004
    if WORKLOAD_KEY in value:
        raise ValueError(f"the payload has a key `{WORKLOAD_KEY}`, which the broker sets; rename it")
    return value


def _span(least: timedelta, most: timedelta) -> Form:
    def parse(value: Any) -> timedelta:
        found = timedelta(seconds=parse_duration(value))
        if not least <= found <= most:
            raise ValueError(value)
        return found

    wanted = f"a duration of at most {most.days} days" + (f" and at least {least.seconds} s" if least else "")
    return Form(wanted, parse, (NUMBER, TEXT), f"write {DURATION_FORMS}")


KEYS: Final = Keys(
    model="ScheduleModel",
    about="When the playbook starts by itself: a cron text or a span.",
    word="schedule",
    example='{name: nightly, cron: "0 2 * * *"}, or a list',
    code=CODE,
    keys=(
        Key(
            "name",
            Form("", _parse_name, (TEXT,)),
            "The name; the catalog knows the schedule as path#name.",
            required="nightly",
        ),
        Key(
            "cron",
            Form("", _parse_cron, (TEXT,)),
            "Minute, hour, day, month, weekday; or @daily.",
        ),
        Key("every", _span(SHORTEST_SPAN, LONGEST_SPAN), "A span between starts in place of `cron`, such as 15m."),
        Key(
            "timezone",
            Form("", _parse_zone, (TEXT,)),
            "The time zone of `cron`, such as Europe/Berlin; default UTC.",
        ),
        Key("payload", Form("", _parse_payload, (MAPPING,)), "The payload; `schedule` (name and at) is added."),
        Key("jitter", _span(timedelta(0), timedelta(days=366)), "Delay each start by a part of this; default 0."),
        Key(
            "catch_up",
            _span(timedelta(0), timedelta(days=3660)),
            "How late a moment may start after a time without a broker; default 1h.",
        ),
        Key(
            "overlap",
            word(*OVERLAP),
            "What to do if an earlier execution lives; default skip.",
        ),
        Key("description", holds(TEXT), "For people."),
    ),
)


def declared_schedules(document: Mapping[str, Any], path: str) -> tuple[DeclaredSchedule, ...]:
    """The schedules of a playbook. Raises PlaybookFault with the first error."""
    rules = PlaybookRules()
    reading = Reading(report=Report(file=path, positions=Document()), rules=rules, work=Work(rules.most_work, inf))
    schedules = read_schedules(reading, document)
    for found in reading.report.errors:
        raise PlaybookFault(f"{path}: {found.path}: {found.message} ({found.hint})")
    return schedules


def declares_schedule(document: Mapping[str, Any]) -> bool:
    """Whether a playbook has schedules, good or bad."""
    metadata = document.get("metadata")
    return isinstance(metadata, dict) and metadata.get("schedule") is not None


def read_schedules(reading: Reading, document: Mapping[str, Any]) -> tuple[DeclaredSchedule, ...]:
    """The schedules of a playbook; errors are in the report."""
    written = document["metadata"]["schedule"] if declares_schedule(document) else []
    entries = entries_of(written, KEY)
    if len(entries) > MOST_SCHEDULES:
        message = f"the playbook has {len(entries)} schedules; it may have {MOST_SCHEDULES}"
        reading.report.error(CODE, KEY, message, "write other playbooks")
        return ()
    found: dict[str, DeclaredSchedule] = {}
    for entry, location in entries:
        keys = KEYS.read_mapping(reading, entry, location, SITE)
        if keys is None:
            continue
        _check_timing(reading, entry, location)
        name = keys.setdefault("name", "")
        if name in found:
            message = f"there are two schedules `{name}`"
            reading.report.error(CODE, (*location, "name"), message, "rename one of them")
        keys.pop("description", None)
        found[name] = DeclaredSchedule(**keys)
    return tuple(found.values())


def _check_timing(reading: Reading, entry: Mapping[str, Any], location: Location) -> None:
    """Report a schedule without exactly one timing, and a time zone of a span."""
    cron, every = entry.get("cron"), entry.get("every")
    if (cron is None) == (every is None):
        what = "neither `cron` nor" if cron is None else "both `cron` and"
        hint = 'write one of them: cron: "0 2 * * *", or every: 15m'
        reading.report.error(CODE, location, f"a schedule has {what} `every`", hint)
    elif cron is None and entry.get("timezone") is not None:
        message = "`every` counts seconds, so a time zone has no meaning"
        reading.report.error(CODE, (*location, "timezone"), message, "remove it")

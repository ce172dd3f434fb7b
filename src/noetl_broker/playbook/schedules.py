"""Reads `metadata.schedule`: when a playbook starts by itself.

Registration refuses a bad one. Compiling does not read it: playbooks that are registered already keep running.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from noetl_broker.errors import PlaybookFault
from noetl_broker.playbook.cron import TimingError, read_cron, read_every
from noetl_broker.playbook.diagnostics import Location, did_you_mean, json_type_name, path_text
from noetl_broker.playbook.durations import DURATION_FORMS, parse_duration
from noetl_broker.playbook.plain_values import NAME_CHARS

Refuse = Callable[[Location, str, str], None]  # takes the location, what is wrong, and what to write instead

KEY: Final[Location] = ("metadata", "schedule")
WORKLOAD_KEY: Final = "schedule"  # of the payload: the schedule's name and the moment
SCHEDULE_KEYS: Final = ("name", "cron", "every", "timezone", "payload", "jitter", "catch_up", "overlap", "description")
MOST_SCHEDULES: Final = 100
OVERLAP: Final = ("skip", "queue", "cancel", "allow")  # the first one is the default
LONGEST_JITTER, LONGEST_CATCH_UP = timedelta(days=366), timedelta(days=3660)


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


def declared_schedules(document: Mapping[str, Any], path: str) -> tuple[DeclaredSchedule, ...]:
    """The schedules of a playbook. Raises PlaybookFault with the first error."""

    def refuse(location: Location, message: str, hint: str) -> None:
        raise PlaybookFault(f"{path}: {path_text(location)}: {message} ({hint})")

    return read_schedules(document, refuse)


def declares_schedule(document: Mapping[str, Any]) -> bool:
    """Whether a playbook has schedules, good or bad."""
    metadata = document.get("metadata")
    return isinstance(metadata, dict) and metadata.get("schedule") is not None


def read_schedules(document: Mapping[str, Any], refuse: Refuse) -> tuple[DeclaredSchedule, ...]:
    """The schedules of a playbook; each error goes to `refuse`, and leaves its schedule out."""
    if not declares_schedule(document):
        return ()
    written = document["metadata"]["schedule"]
    entries: list[tuple[Location, Any]] = [(KEY, written)] if isinstance(written, dict) else []
    if isinstance(written, list):
        entries = [((*KEY, index), entry) for index, entry in enumerate(written)]
    elif not entries:
        refuse(KEY, f"`schedule` is {json_type_name(written)}", 'write {name: nightly, cron: "0 2 * * *"}, or a list')
    if len(entries) > MOST_SCHEDULES:
        refuse(KEY, f"the playbook has {len(entries)} schedules; it may have {MOST_SCHEDULES}", "write other playbooks")
        return ()
    found: dict[str, DeclaredSchedule] = {}
    for location, entry in entries:
        schedule = _ScheduleReader(location, entry, refuse).read()
        if schedule is not None and schedule.name in found:
            refuse((*location, "name"), f"there are two schedules `{schedule.name}`", "rename one of them")
        elif schedule is not None:
            found[schedule.name] = schedule
    return tuple(found.values())


class _ScheduleReader:
    """One schedule while it is read."""

    def __init__(self, location: Location, raw: Any, refuse: Refuse) -> None:
        self._location = location
        self._raw = raw
        self._refuse_at = refuse
        self._is_good = True

    def read(self) -> DeclaredSchedule | None:
        """The schedule; None if something is wrong with it."""
        if not isinstance(self._raw, dict):
            self._refuse("", f"a schedule is {json_type_name(self._raw)}", 'write {name: nightly, cron: "0 2 * * *"}')
            return None
        for key in self._raw:
            if key not in SCHEDULE_KEYS:
                self._refuse(str(key), f"unknown key `{key}` in a schedule", did_you_mean(str(key), SCHEDULE_KEYS))
        name = self._name()
        cron, every = self._timing()
        schedule = DeclaredSchedule(
            name=name,
            cron=cron,
            every=every,
            timezone=str(self._raw.get("timezone") or "UTC"),
            payload=self._payload(),
            jitter=self._span("jitter", LONGEST_JITTER) or timedelta(0),
            catch_up=self._catch_up(),
            overlap=self._overlap(),
        )
        return schedule if self._is_good else None

    def _refuse(self, key: str, message: str, hint: str) -> None:
        self._is_good = False
        self._refuse_at((*self._location, key) if key else self._location, message, hint)

    def _name(self) -> str:
        name = self._raw.get("name")
        if name is None:
            self._refuse("", "a schedule has no `name`", "write name: nightly")
        elif not isinstance(name, str) or not name.strip() or not name.isprintable() or "#" in name:
            self._refuse("name", f"the name of a schedule is {name!r:.60}", "write a text without # such as nightly")
        elif len(name) > NAME_CHARS:
            self._refuse("name", f"the name has {len(name)} characters; it may have {NAME_CHARS}", "shorten it")
        else:
            return name
        return ""

    def _timing(self) -> tuple[str | None, timedelta | None]:
        cron, zone = self._raw.get("cron"), self._raw.get("timezone")
        if (cron is None) == (self._raw.get("every") is None):
            what = "neither `cron` nor" if cron is None else "both `cron` and"
            self._refuse("", f"a schedule has {what} `every`", 'write one of them: cron: "0 2 * * *", or every: 15m')
            return None, None
        if cron is None:
            if zone is not None:
                self._refuse("timezone", "`every` counts seconds, so a time zone has no meaning", "remove it")
            return None, self._every()
        for key, value in (("cron", cron), ("timezone", zone)):
            if not isinstance(value, str) and value is not None:
                self._refuse(key, f"`{key}` is {json_type_name(value)}", "write a text in quotes")
                return None, None
        try:
            return read_cron(cron, "UTC" if zone is None else zone).text, None
        except TimingError as error:
            message, _, hint = str(error).partition("; ")
            self._refuse("timezone" if message.startswith("there is no time zone") else "cron", message, hint)
            return None, None

    def _every(self) -> timedelta | None:
        span = self._span("every", timedelta.max)
        try:
            return None if span is None else read_every(span, datetime.min.replace(tzinfo=UTC)).span
        except TimingError as error:
            self._refuse("every", str(error), "write a span such as 15m")
            return None

    def _span(self, key: str, longest: timedelta) -> timedelta | None:
        value = self._raw.get(key)
        if value is None:
            return None
        try:
            span = timedelta(seconds=parse_duration(value))
        except ValueError:
            self._refuse(key, f"`{key}` is {value!r:.60}, not a duration", f"write {DURATION_FORMS}")
            return None
        if span > longest:
            self._refuse(key, f"`{key}` is {value!r:.60}", f"write a duration of at most {longest.days} days")
        return span

    def _catch_up(self) -> timedelta:
        span = self._span("catch_up", LONGEST_CATCH_UP)
        return timedelta(hours=1) if span is None else span

    def _payload(self) -> Mapping[str, Any]:
        payload = self._raw.get("payload")
        if payload is None:
            return {}
        if not isinstance(payload, dict):
            self._refuse("payload", f"`payload` is {json_type_name(payload)}", "write a mapping: {city: Paris}")
            return {}
        if WORKLOAD_KEY in payload:
            self._refuse("payload", "the payload has a key `schedule`, which the broker sets", "rename it")
        return payload

    def _overlap(self) -> str:
        overlap = self._raw.get("overlap")
        if overlap is None:
            return OVERLAP[0]
        if isinstance(overlap, str) and overlap in OVERLAP:
            return overlap
        self._refuse("overlap", f"`overlap` is {overlap!r:.40}", f"write one of: {', '.join(OVERLAP)}")
        return OVERLAP[0]

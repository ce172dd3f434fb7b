"""`metadata.schedule`: what is read, what is refused, and that compiling does not read it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from noetl_broker.errors import PlaybookFault
from noetl_broker.playbook import PlaybookRules, compile_playbook
from noetl_broker.playbook.schedules import DeclaredSchedule, declared_schedules
from tests.playbook.documents import document_findings

HEAD = """\
apiVersion: noetl.io/v1
kind: Playbook
metadata:
  name: report
  schedule: {schedule}
workflow: [{{step: start, next: end}}, {{step: end, result: "{{{{ schedule.at }}}}"}}]
"""
SPAN = "a duration of at most 3660 days"
DURATIONS = "(write a number of seconds, 90s, 15m, 2h30m, 3d, 2w or P3DT12H)"
EXAMPLE = '(write schedule: {name: nightly, cron: "0 2 * * *"}, or a list)'


def source(schedule: str) -> str:
    """A playbook with this schedule, in YAML on one line."""
    return HEAD.format(schedule=schedule)


def findings(schedule: str) -> list[str]:
    """The findings of a playbook with this schedule, without their positions."""
    return [found.split(" ", 2)[2] for found in document_findings(source(schedule))]


def declared(schedule: str) -> tuple[DeclaredSchedule, ...]:
    """The schedules of such a playbook."""
    playbook = compile_playbook(source(schedule), rules=PlaybookRules())
    return declared_schedules(playbook.document, playbook.path)


def test_a_playbook_declares_one_schedule_or_a_list() -> None:
    """With all keys, and with the least."""
    one = (
        '{name: nightly, cron: "0  2 * * *", timezone: Europe/Berlin, payload: {city: Paris}, jitter: 5m, catch_up: 2h}'
    )
    nightly = DeclaredSchedule(
        name="nightly",
        cron="0 2 * * *",
        timezone="Europe/Berlin",
        payload={"city": "Paris"},
        jitter=timedelta(minutes=5),
        catch_up=timedelta(hours=2),
    )
    assert declared(one) == (nightly,)
    assert declared(f"[{one}, {{name: often, every: 90, overlap: allow}}]") == (
        nightly, DeclaredSchedule(name="often", every=timedelta(seconds=90), overlap="allow"),
    )  # fmt: skip


def test_a_good_schedule_has_no_finding_and_gives_templates_its_name() -> None:
    """`schedule` is a key of the workload then."""
    assert findings("{name: nightly, cron: '@daily'}") == []


@pytest.mark.parametrize(
    "schedule, expected",
    [
        ("nightly", f"schedule: `schedule` is a string, not a mapping {EXAMPLE}"),
        ("[1]", f"schedule[0]: `schedule` is a number, not a mapping {EXAMPLE}"),
        ("{cron: '@daily'}", "schedule: `schedule` has no `name` (write name: nightly)"),
        (
            "{name: 'a#b', cron: '@daily'}",
            "schedule.name: the name of a schedule is 'a#b' (write a text without # such as nightly)",
        ),
        (
            "{name: a}",
            'schedule: a schedule has neither `cron` nor `every` (write one of them: cron: "0 2 * * *", or every: 15m)',
        ),
        (
            "{name: a, cron: '@daily', every: 1h}",
            'schedule: a schedule has both `cron` and `every` (write one of them: cron: "0 2 * * *", or every: 15m)',
        ),
        (
            "{name: a, cron: '61 * * * *'}",
            (
                "schedule.cron: the cron text '61 * * * *' is wrong: bad minute (write five fields (minute hour day "
                "month weekday), six with seconds first, or @daily)"
            ),
        ),
        (
            "{name: a, cron: '@daily', timezone: Nowhere}",
            (
                "schedule.timezone: there is no time zone 'Nowhere' (write an IANA name, such as Europe/Berlin)"
            ),
        ),
        ("{name: a, cron: 5}", "schedule.cron: `cron` is a number (write a text in quotes)"),
        (
            "{name: a, every: 1h, timezone: Europe/Berlin}",
            "schedule.timezone: `every` counts seconds, so a time zone has no meaning (remove it)",
        ),
        (
            "{name: a, every: soon}",
            f"schedule.every: `every` is 'soon', not {SPAN} and at least 1 s {DURATIONS}",
        ),
        (
            "{name: a, every: 0}",
            f"schedule.every: `every` is 0, not {SPAN} and at least 1 s {DURATIONS}",
        ),
        (
            "{name: a, every: 1h, jitter: 99w}",
            f"schedule.jitter: `jitter` is '99w', not a duration of at most 366 days {DURATIONS}",
        ),
        (
            "{name: a, every: 1h, payload: [1]}",
            "schedule.payload: `payload` is a list (write a mapping: {city: Paris})",
        ),
        (
            "{name: a, every: 1h, payload: {schedule: 1}}",
            "schedule.payload: the payload has a key `schedule`, which the broker sets (rename it)",
        ),
        (
            "{name: a, every: 1h, overlap: 3}",
            "schedule.overlap: `overlap` is 3, not one of skip, queue, cancel, allow (the default is skip)",
        ),
        ("{name: a, every: 1h, corn: x}", "schedule.corn: unknown key `corn` in `schedule` (did you mean `cron`?)"),
        (
            "[{name: a, every: 1h}, {name: a, every: 2h}]",
            "schedule[1].name: there are two schedules `a` (rename one of them)",
        ),
    ],
)  # fmt: skip
def test_a_bad_schedule_is_refused(schedule: str, expected: str) -> None:
    """With its place, what is wrong, and what to write."""
    assert findings(schedule) == [f"bad-schedule metadata.{expected}"]


def test_too_many_schedules_are_refused() -> None:
    """A hundred are allowed."""
    many = ", ".join(f"{{name: s{number}, every: 1h}}" for number in range(101))
    assert findings(f"[{many}]") == [
        "bad-schedule metadata.schedule: the playbook has 101 schedules; it may have 100 (write other playbooks)"
    ]


def test_a_registered_playbook_with_a_bad_schedule_still_compiles() -> None:
    """The key had no meaning when it was registered. Putting its schedules fails."""
    playbook = compile_playbook(source("whenever"), rules=PlaybookRules())
    with pytest.raises(PlaybookFault, match=r"report: metadata.schedule: `schedule` is a string"):
        declared_schedules(playbook.document, playbook.path)

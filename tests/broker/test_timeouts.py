"""The time limit of a step: seconds, a duration, or a template that gives one."""

from __future__ import annotations

import pytest

from noetl_broker.broker.model.decision import Decision
from noetl_broker.history.story import play_story, play_turns, read_events
from tests.playbook.documents import findings_of
from tests.stories import playbook

STEP = "workflow: [{{step: start, next: {{step: a, args: {{n: 7}}}}}}, {{step: a, {0}}}]"
FORMS = "a number of seconds, 90s, 15m, 2h30m, 3d, 2w or P3DT12H, from 0.001 s to 365 days"


def decided(body: str, start: str = "> execution_start") -> Decision:
    """Return what the first turn decides."""
    return next(iter(play_turns(playbook(body), read_events(start))))[1]


@pytest.mark.parametrize(
    "timeout, seconds",
    [
        ("90", 90.0),
        ("90s", 90.0),
        ("2h30m", 9000.0),
        ('"{{ n }}m"', 420.0),
        ('"{{ n * 10 }}"', 70.0),
        ('"{{ workload.limit }}"', 5400.0),
        ("PT1M", 60.0),
    ],
)
@pytest.mark.parametrize("kind", ["type: python, code: x", "type: playbook, path: p", "type: sleep"])
def test_a_job_has_the_seconds_of_its_timeout(kind: str, timeout: str, seconds: float) -> None:
    """Of an action and of a child; a template sees the inputs and the workload."""
    body = "workload: {limit: 1.5h}\n" + STEP.format(f"{kind}, timeout: {timeout}")
    [job] = decided(body).jobs
    assert job.timeout == seconds
    if "path" not in kind:
        assert job.action["timeout"] == seconds


def test_an_iterator_and_its_items_have_timeouts() -> None:
    """The item's template sees its element. A task with a time limit is one job for each item."""
    body = """
    workflow:
    - {step: start, next: each}
    - step: each
      type: iterator
      collection: [1, 2]
      element: n
      timeout: "{{ 2 }}m"
      mode: async
      task: {type: python, code: x, timeout: "{{ n }}h"}
    """
    jobs = decided(body).jobs
    assert [(job.item_index, job.timeout) for job in jobs] == [(None, 120.0), (0, 3600.0), (1, 7200.0)]


@pytest.mark.parametrize(
    "value, shown",
    [("'soon'", '"soon"'), ("0", "0"), ("[1]", "[1]"), ("none", "null"), ("'400d'", '"400d"'), ("true", "true")],
)
def test_a_bad_timeout_fails_its_step(value: str, shown: str) -> None:
    """With the value and the forms; there is no job."""
    body = STEP.format(f'type: python, code: x, timeout: "{{{{ {value} }}}}"')
    story = play_story(playbook(body), "> execution_start")
    assert f"`timeout` must be {FORMS}, it is {shown}" in story.replace('\\"', '"')
    assert "job " not in story


@pytest.mark.parametrize("value", ["soon", "0", "true", "[1]", "400d"])
def test_a_bad_timeout_is_refused_at_registration(value: str) -> None:
    """If it is no template."""
    [found] = findings_of(STEP.format(f"type: python, code: x, timeout: {value}"))
    assert "error bad-value workflow[1].timeout: `timeout` is " in found
    assert f"not {FORMS} (write timeout: 90s, or a template that gives a duration)" in found

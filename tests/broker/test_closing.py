"""What is left for the worker of the next step takes along the values of the inputs that it reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from noetl_broker.broker.model import Job
from noetl_broker.broker.story import play_turns, read_events
from tests.stories import assert_story, playbook

BODY = """
workload: {d: "{{ env.D }}", big: 1}
workflow:
  - {step: start, next: [{step: ask, args: %s}]}
  - {step: ask, type: http, url: x, next: [{step: tell, args: %s}]}
  - {step: tell, type: http, url: y, args: {city: Oslo}}
"""


def test_a_transitions_input_sees_the_inputs_of_the_step_that_it_leaves() -> None:
    """And not the next step's of that name."""
    assert_story(
        BODY % ("{city: Rome}", '{line: "{{ city }} {{ env.T }}", city: "{{ args.city }} {{ d }}"}'),
        r"""
        > execution_start
            event step_started ask
            job   ask {"city": "Rome"}
        > action_completed ask 1
            event step_completed ask
            event step_started tell
            job   tell {"line": "{{ (\"Rome\") }} {{ env.T }}", "city": "{{ ({\"city\": \"Rome\"}).city }} {{ d }}"}
        """,
    )


@pytest.mark.parametrize(
    "came, given, payload, reason",
    [
        ('{t: "{{ workload.d }}"}', '{line: "{{ t }} {{ env.T }}"}', {}, "only a worker can finish `t`"),
        ('{t: "{{ workload.d }}"}', '{line: "{{ args.t }} {{ env.T }}"}', {}, "only a worker can finish `args.t`"),
        (
            '{t: "{{ big }}"}',
            '{line: "{{ t }} {{ env.T }}"}',
            {"big": "x" * 70_000},
            (
                "it is left for a worker, and the values that it reads (t) are too long to travel in it:"
                " hand the values on under their own names, and join them in the step"
            ),
        ),
    ],
)
def test_what_cannot_take_along_what_it_reads_fails_the_step(
    came: str, given: str, payload: dict[str, Any], reason: str
) -> None:
    """The one that is left: its inputs are there no more."""
    story = f"> execution_start {json.dumps(payload)}\n> action_completed ask 1"
    *_, (_, decision, _) = play_turns(playbook(BODY % (came, given)), read_events(story))
    failed = decision.events[0]
    assert (failed.type, failed.step) == ("step_failed", "ask")
    assert failed.error is not None
    assert (failed.error["message"], failed.error["at"]) == (reason, "workflow[1].next[0].args.line")


TASK = """
workflow:
  - {step: start, next: each}
  - step: each
    type: iterator
    args: {base: "%s", other: o}
    collection: [1]
    element: it
    distribute: true
    task: {type: http, url: x, args: {base: "{{ base }}{{ other }}{{ it }}{{ env.T }}"}}
"""


def items_of(base: str) -> tuple[list[Job], list[str]]:
    """The jobs of the items where the step's `base` is this, and the errors."""
    [(_, decision, _)] = play_turns(playbook(TASK % base), read_events("> execution_start"))
    errors = [event.error["message"] for event in decision.events if event.error]
    return [job for job in decision.jobs if not job.delegated], errors


def test_an_input_of_an_item_takes_along_the_one_that_it_hides() -> None:
    """And no other: those its worker has."""
    [job], errors = items_of("root")
    assert job.action["args"] == {"base": '{{ ("root") }}{{ other }}{{ it }}{{ env.T }}', "other": "o"}
    assert not errors


def test_an_input_of_an_item_cannot_hide_one_that_is_left_itself() -> None:
    """The broker does not know its value, and the worker would not get it."""
    jobs, errors = items_of("{{ env.B }}")
    assert not jobs
    assert errors[0] == "only a worker can finish `base`"

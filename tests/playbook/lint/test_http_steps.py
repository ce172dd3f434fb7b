"""Inputs of http steps that the reference worker does not send, and that no template reads."""

from __future__ import annotations

import pytest

from tests.playbook.documents import findings_of_programs

STEP = """
workload: {{amount: 5, x: 1}}
workbook:
  - {{name: pay, type: http, url: u, args: {{amount: 1}}}}
workflow:
  - {{step: start, next: {{step: call{arriving}}}}}
  - {{step: call, {keys}, next: {{step: end, args: {{y: "{{{{ x }}}}"}}}}}}
  - {{step: end}}
"""


@pytest.mark.parametrize(
    "keys, place",
    [
        ("type: http, url: u, method: POST, args: {amount: 5}", "args"),
        ('type: http, url: "{{ workload.amount }}", input: {amount: 5, size: 1}', "input"),
        ('tool: http, url: u, with: {amount: "{{ amount }}"}', "with"),
        ("type: http, url: u, compensate: {type: http, url: u, args: {amount: 1}}", "compensate.args"),
        ("type: iterator, collection: [1], element: e, task: {type: http, url: u, args: {amount: 1}}", "task.args"),
        ("type: http, url: u, loop: {collection: [1], element: e}, args: {amount: 1}", "args"),
    ],
)
def test_inputs_that_are_not_sent_are_warned_of(keys: str, place: str) -> None:
    """At their word, with the words that are sent."""
    [found] = findings_of_programs(STEP.format(keys=keys, arriving=""))
    word = place.rpartition(".")[2]
    assert found.partition(" ")[2] == (
        f"warning unused-input workflow[1].{place}: the reference worker does not send `{word}`, and no template of "
        "`call` reads amount (write data for a body, with method: POST, or params for the query)"
    )


@pytest.mark.parametrize(
    "keys, arriving",
    [
        ("type: http, url: u, args: {}", ""),
        ('type: http, url: "{{ amount }}", args: {amount: 5}', ""),
        ('type: http, url: "{{ args.amount }}", args: {amount: 5}', ""),
        ('type: http, url: "u/{{ secret.key }}{{ amount }}", args: {amount: 5}', ""),
        ('type: http, url: u, retry: {max_attempts: 2, retry_when: "amount > 3"}, args: {amount: 5}', ""),
        ('type: http, url: u, compensate: {type: http, url: "{{ amount }}"}, args: {amount: 5}', ""),
        ('type: http, url: u, save: {storage: event_log, data: "{{ amount }}"}, args: {amount: 5}', ""),
        ("type: http, url: u, args: {x: 5}", ""),  # `next` reads it
        ("type: http, url: u, method: POST, payload: [1], args: {amount: 5}", ""),
        ("type: http, url: u, params: {q: 1}, args: {amount: 5}", ""),
        ("type: http, url: u, args: {amount: 5}", ", data: {b: 1}"),
        ("type: http, url: u", ", args: {amount: 5}"),
        ('type: http, url: u, args: "{{ workload }}"', ""),
        ("type: workbook, task: pay", ""),
    ],
)
def test_inputs_that_may_be_used_are_not_warned_of(keys: str, arriving: str) -> None:
    """A template reads them, a body or a query is sent beside them, or they come from elsewhere."""
    found = findings_of_programs(STEP.format(keys=keys, arriving=arriving))
    assert [line for line in found if "reference worker" in line] == []

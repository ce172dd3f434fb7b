"""Registration refuses unknown keys, and missing or wrong keys of a step's type. A registered version still runs."""

from __future__ import annotations

import pytest

from tests.playbook.documents import compiled, findings

METHODS = "not one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
BODY = "{extra}workflow: [{{step: start, next: a}}, {{step: a, {keys}}}, {{step: end}}]\n"


def errors_of(keys: str, extra: str = "") -> list[str]:
    """Return the errors of a playbook with a step of these keys, which compiles all the same."""
    body = BODY.format(keys=keys, extra=extra)
    compiled(body)
    found = [finding for finding in findings(body) if finding.severity == "error"]
    return [f"{finding.code} {_place(finding.path)}: {finding.message} ({finding.hint})" for finding in found]


def _place(path: str) -> str:
    """Return a path within the step, or within its workbook action."""
    return path.removeprefix("workflow[1]").removeprefix("workbook[0]").removeprefix(".")


@pytest.mark.parametrize(
    "keys, expected",
    [
        ("type: http", "missing-key : the http step `a` has no `url` (write url: https://…)"),
        ("type: postgres, auth: x", "missing-key : the postgres step `a` has no `command` (write command: select …)"),
        ("type: duckdb, query: null", "missing-key : the duckdb step `a` has no `command` (write command: select …)"),
        ("type: secrets", "missing-key : the secrets step `a` has no `secret_name` (write secret_name: NAME)"),
        ("type: sleep", "missing-key : the sleep step `a` has no `seconds` (write seconds: 5)"),
        ("type: container", "missing-key : the container step `a` has no `image` (write image: name:tag)"),
        ("type: transfer, source: {}", "missing-key : the transfer step `a` has no `target` (write target: {…})"),
        ("type: save, table: t", "missing-key : the save step `a` has no `data` (write data: {column: value})"),
        (
            "type: http, url: u, method: PSOT",
            f"bad-value method: `method` is 'PSOT', {METHODS} (did you mean `POST`",
        ),
        ("type: http, url: u, method: [GET]", "bad-value method: `method` is a list, not one of GET, H"),
        ("type: http, url: 7", "bad-value url: `url` is 7, not a text (write a text)"),
        ("type: http, url: u, headers: x", "bad-value headers: `headers` is 'x', not a mapping (write a mapping)"),
        (
            "type: http, url: u, follow_redirects: no",
            "bad-value follow_redirects: `follow_redirects` is 'no', not true or false (write true or false)",
        ),
        (
            "type: save, table: t, data: {a: 1}, mode: upsret",
            "bad-value mode: `mode` is 'upsret', not one of insert, ",
        ),
        (
            "type: sleep, seconds: soon",
            "bad-value seconds: `seconds` is 'soon', not a duration (write a number of seconds, 90s",
        ),
        ("type: http, ulr: u, url: u", "unknown-key ulr: unknown key `ulr` on the http step `a` (did you mean `url`?)"),
        ("type: http, url: u, json: {}", "unknown-key json: unknown key `json` on the http step `a` (did you mean `da"),
        (
            "type: http, url: u, vars: {}",
            "unknown-key vars: unknown key `vars` on the http step `a` (remove it: it belongs to another dialect)",
        ),
        ("type: http, url: u, zebra: 1", "unknown-key zebra: unknown key `zebra` on the http step `a` (remove it, or "),
        ("next: {step: end, zebra: 1}", "unknown-key next.zebra: unknown key `zebra` in `next` (known are: "),
    ],
)
def test_registration_refuses_wrong_keys_of_a_step(keys: str, expected: str) -> None:
    """Each error has a remedy. What the catalog has already is not refused for it."""
    [found] = errors_of(keys)
    assert found.startswith(expected)


@pytest.mark.parametrize(
    "keys, place",
    [
        ("type: iterator, collection: [1], element: n, task: {type: http, method: PUSH}", "task"),
        ("type: http, url: u, loop: {collection: [1], element: n}, method: PUSH", ""),
        ("type: http, url: u, compensate: {type: http, method: PUSH}", "compensate"),
    ],
)
def test_every_task_of_a_step_is_checked(keys: str, place: str) -> None:
    """The task of an iterator, a repeated step, and the undo of a step."""
    errors = errors_of(keys)
    assert [error.startswith(f"bad-value {place}{'.' if place else ''}method: ") for error in errors[-1:]] == [True]
    assert len(errors) == (2 if place else 1)  # only the step has a `url`


def test_a_key_may_stand_on_the_step_or_on_its_workbook_action() -> None:
    """The keys of both are one task."""
    workbook = "workbook: [{name: get, type: http, METHOD}]\n"
    assert errors_of("type: workbook, task: get, url: u", workbook.replace("METHOD", "method: PUT")) == []
    [wrong] = errors_of("type: workbook, task: get, url: u", workbook.replace("METHOD", "method: PSOT"))
    assert wrong.startswith("bad-value method: ")


@pytest.mark.parametrize(
    "keys",
    [
        "type: http, endpoint: u, method: post, headers: '{{ workload }}', verify_ssl: '{{ true }}'",
        "type: http, url: '{{ workload }}', method: '{{ workload.m }}'",
        "type: postgres, commands: [select 1]",
        "type: postgres, sql: select 1",
        "type: snowflake, command_b64: c2VsZWN0IDE=",
        "type: sleep, args: {seconds: 1}",
        "type: sleep, duration: 2m",
        "type: save, statement: select 1",
        "type: save, storage: event_log, args: {a: 1}",
    ],
)
def test_right_keys_of_a_step_are_accepted(keys: str) -> None:
    """In each of their forms; a template is checked when it is rendered."""
    assert errors_of(keys) == []


def test_an_unknown_key_at_the_root_is_refused() -> None:
    """Misspelt or not."""
    [found] = errors_of("next: end", "keychain: []\n")
    assert found.startswith("unknown-key keychain: unknown key `keychain` in a playbook (known are: ")

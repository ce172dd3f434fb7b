"""The declared keys: the first and the last value of each range, nulls, templates, and where a key may stand."""

from __future__ import annotations

import pytest

from tests.playbook.documents import compiled, document_findings

HTTP = "type: http, url: u"
ITERATOR = "type: iterator, collection: [1], element: n, task: {type: http, url: u}"
# The keys of a step with a value for `$`; what may be there, and what is refused.
STEPS = {
    f"{HTTP}, retry: {{max_attempts: $}}": ("1 1000", "0 1001 x '{{ x }}' true"),
    f"{HTTP}, retry: {{initial_delay: $}}": ("0 31536000 365d", "-1 31536001 '{{ x }}' x"),
    f"{HTTP}, retry: {{max_delay: $}}": ("0 31536000", "-1 31536001"),
    f"{HTTP}, retry: {{backoff_multiplier: $}}": ("0 1.5 1000", "-1 1001 '{{ x }}'"),
    f"{HTTP}, retry: {{jitter: $}}": ("true false null", "0 no"),
    f"{HTTP}, retry: {{retry_when: $}}": ("'{{ attempt > 1 }}'", "null"),
    f"{HTTP}, retry: {{stop_when: $}}": ("'{{ attempt > 1 }}'", "null"),
    f"{HTTP}, throttle: {{name: t, concurrency: $}}": ("1 1000000", "0 1000001 '{{ x }}'"),
    f"{HTTP}, throttle: {{name: t, rate: 1, burst: $}}": ("1 1000000", "0 1000001"),
    f"{HTTP}, throttle: {{name: t, rate: $}}": ("1 10/s 1000000", "0 1000001 10/x"),
    f"{HTTP}, throttle: {{rate: 1, name: $}}": ("t", "'{{ x }}' '' null"),
    f"{HTTP}, throttle: {{name: t, rate: 1, key: $}}": ("a 5 true '{{ workload.a }}' null", "[1] {}"),
    f"{HTTP}, join: {{need: $}}": ("1", "0 10001 '{{ x }}'"),
    f"{HTTP}, priority: $": ("-32768 32767", "-32769 32768 '{{ x }}'"),
    "type: python, code: 'result = 1', timeout: $": ("1 0.001 365d '{{ workload.a }}'", "0 31536001 x"),
    f"{HTTP}, start_timeout: $": ("0.001 365d '{{ workload.a }}'", "0 31536001 x"),
    f"{HTTP}, on_error: $": ("fail continue", "stop 5"),
    f"{HTTP}, next_mode: $": ("inclusive exclusive", "first"),
    f"{HTTP}, method: $": ("get PUT '{{ workload.a }}'", "got 5"),
    f"{HTTP}, loop: {{collection: [1], element: n, mode: async, concurrency: $}}": ("1 1000000", "0 1000001"),
    f"{ITERATOR}, limit: $": ("0 5 '{{ workload.a }}'", "-1 x"),
    f"{ITERATOR}, chunk: $": ("1 '{{ workload.a }}'", "0"),
    f"{ITERATOR}, enumerate: $": ("true", "1"),
    f"{ITERATOR}, tolerate: $": ("0 1000000 100%", "-1 1000001 101%"),
    "type: python, code: 'result = 1', libs: $": ("{a: b}", ""),
    "type: secrets, names: $": ("[a]", ""),
    "type: wait, for: $": ("0 3d '{{ workload.a }}'", "x -1 ['{{ x }}']"),
    "type: wait, until: $": ("'2030-01-01T00:00:00Z' '{{ workload.a }}'", "3d"),
    "type: wait, signal: s, since: $": ("3d '{{ workload.a }}'", "x"),
    "type: wait, signal: s, timeout: $": ("3d '{{ workload.a }}'", "x"),
    "type: wait, signal: $": ("s [a,b] ['{{workload.a}}']", "5 [] [1]"),
    "type: wait, for: 3d, retry: $": ("null", "3"),
    "type: approval, title: $": ("t 5 '{{ workload.a }}'", "[t] {}"),
    "type: signal, signal: s, key: $": (f"k 5 true '{{{{ workload.a }}}}{'k' * 1025}'", f"null [1] {'k' * 1025}"),
    "type: fail, timeout: $": ("null", "5"),
}
METADATA = {
    "max_visits: $": ("1 2147483647", "0 2147483648"),
    "deadline: $": ("0.001 365d '{{ workload.a }}'", "0 31536001 x"),
    "priority: $": ("-32768 32767", "-32769 32768"),
    "labels: $": ("{a: b}", ""),
    "concurrency: {key: '{{ workload.a }}', limit: $}": ("1 10000", "0 10001"),
    "concurrency: {key: $}": ("'{{ workload.a }}'", "null '' [1]"),
    "concurrency: {on_limit: $}": ("queue skip cancel_running fail", "wait"),
    "on_signal: {signal: s, when: $}": ("'{{ signal.key }}' null", "'{{ workload.a }}'"),
    "on_failure: {path: $}": ("p", "p#s '{{ x }}' 5"),
    "schedule: {name: n, every: $}": ("1 3660d", "0.5 3661d x"),
    "schedule: {name: n, every: 1h, jitter: $}": ("0 366d", "367d -1"),
    "schedule: {name: n, every: 1h, catch_up: $}": ("0 3660d", "3661d -1"),
    "schedule: {name: n, every: 1h, overlap: $}": ("skip allow", "wait"),
}


def values_of(text: str) -> list[str]:
    """Return the values of a text: words, and what stands in quotes, braces or brackets."""
    found: list[str] = []
    for part in text.split(" "):
        is_open = found and any(found[-1].count(one) != found[-1].count(other) for one, other in ("{}", "[]"))
        if found and (is_open or found[-1].count("'") % 2):
            found[-1] += f" {part}"
        elif part:
            found.append(part)
    return found


def rows(table: dict[str, tuple[str, str]]) -> list[tuple[str, str, bool]]:
    """Return each value of a table: where it stands, and whether it is right."""
    return [
        (keys, value, right)
        for keys, texts in table.items()
        for text, right in zip(texts, (True, False), strict=True)
        for value in values_of(text)
    ]


def has_error(metadata: str, step: str) -> bool:
    """Return whether a playbook has an error."""
    source = (
        f"{{apiVersion: noetl.io/v1, kind: Playbook, metadata: {{name: w, {metadata}}}, workload: {{a: 1}}, "
        f"workflow: [{{step: start, next: a}}, {{step: a, {step}}}]}}"
    )
    return any(" error " in found for found in document_findings(source))


@pytest.mark.parametrize("keys, value, right", rows(STEPS))
def test_a_key_of_a_step_holds_what_is_declared(keys: str, value: str, right: bool) -> None:
    """Both ends of each range, and what is beside them."""
    assert has_error("path: w", keys.replace("$", value)) is not right


@pytest.mark.parametrize("keys, value, right", rows(METADATA))
def test_a_key_of_the_metadata_holds_what_is_declared(keys: str, value: str, right: bool) -> None:
    """Both ends of each range, and what is beside them."""
    assert has_error(keys.replace("$", value), HTTP) is not right


@pytest.mark.parametrize(
    "entry", ["{step: b, when: '{{ 1 }}'}", "{step: b, condition: '{{ 1 }}'}", "{step: b, pass: '{{ 1 }}'}"]
)
def test_an_entry_of_a_catch_has_a_condition_under_three_words(entry: str) -> None:
    """As one of `next`."""
    assert not has_error("path: w", f"{HTTP}, catch: {entry}}}, {{step: b, type: noop")


def test_a_job_has_the_keys_that_its_worker_reads() -> None:
    """Not those that name the step, and not those that only the broker reads."""
    kept = "retry: 2, on_error: continue, timeout: 5s, start_timeout: 5s, priority: 1, join: all, next_mode: exclusive"
    dropped = "throttle: {name: t, rate: 1}, compensate: {type: http, url: u}, catch: end, output: 1, next: end"
    step = f"{{step: a, {kept}, {dropped}, type: python, code: x, desc: d}}"
    plain = compiled(f"workflow: [{{step: start, next: a}}, {step}, {{step: end}}]").steps["a"].plain
    named = {part.split(": ")[0] for part in kept.split(", ")}
    assert plain.keys() == {*named, "desc", "code"}


def test_keys_that_nobody_reads_are_allowed() -> None:
    """At the top, and in the metadata."""
    head = "{apiVersion: noetl.io/v1, kind: Playbook, description: d, version: 1"
    metadata = "{name: w, tags: [a], labels: {a: b}, annotations: {a: b}, author: a, owner: o, version: 2}"
    assert document_findings(f"{head}, metadata: {metadata}, workflow: [{{step: start}}]}}") == []


def test_a_limit_that_is_no_mapping_has_a_wrong_type() -> None:
    """Its code is not that of its values."""
    codes = [
        document_findings(
            f"{{apiVersion: noetl.io/v1, kind: Playbook, metadata: {{name: w, concurrency: {value}}}, "
            "workflow: [{step: start}]}"
        )[0].split()[2]
        for value in ("7", "{limit: x}")
    ]
    assert codes == ["wrong-type", "bad-value"]

"""Reads `catch`, `output` and steps of type `fail`."""

from __future__ import annotations

import pytest

from tests.playbook.documents import compiled, findings_of

STEP = """
    workflow:
      - {step: start, next: c}
      - {step: c, %s}
      - {step: a, type: http, url: x}
    """


@pytest.mark.parametrize(
    "step, says",
    [
        ("type: http, url: x, catch: {step: b}", "there is no step `b`"),
        ("type: http, url: x, catch: {step: start}", "`catch` of step `c` leads back to `start`"),
        ('type: http, url: x, catch: {when: "error.x", then: [a], else: [a]}', "an entry of `catch` has an `else`"),
        ('type: http, url: x, catch: {when: "error.x"}', "an entry of `catch` has no target"),
        ('type: http, url: x, catch: {step: a, when: "error..x"}', "bad `when`"),
        ('type: http, url: x, catch: {step: a, args: {e: "{{ eror.type }}"}}', "the template names `eror`"),
        ('type: http, url: x, next: {step: a, args: {e: "{{ error.type }}"}}', "the template names `error`"),
        ("type: iterator, collection: [1], element: n, task: {type: http, url: x}, output: 1", "has no meaning"),
        ("type: iterator, collection: [1], element: n, task: {type: http, url: x, output: 1}", "has no meaning"),
        ("type: iterator, collection: [1], element: n, task: {type: fail}", "repeats a step of type `fail`"),
        ("type: fail, error: {typ: x}", "unknown key `typ` in `error`"),
        ("type: fail, error: [1]", "`error` is a list, not a mapping"),
        ("type: fail, retry: 3", "`retry` of the fail step `c` has no meaning"),
        ("output: 1, next: a", "`output` of step `c` is not read"),
    ],
)
def test_what_cannot_be_read_is_reported(step: str, says: str) -> None:
    """With its place."""
    assert [line for line in findings_of(STEP % step) if says in line] != []


def test_the_arcs_of_a_catch_follow_those_of_the_next() -> None:
    """They are arcs of the graph: the step `a` is reached, and joins what arrives."""
    playbook = compiled(STEP % "type: http, url: x, next: a, catch: [{step: a}]")
    assert [(arc.source, arc.target, arc.entry, arc.branch) for arc in playbook.arcs] == [
        ("start", "c", 0, "plain"),
        ("c", "a", 0, "plain"),
        ("c", "a", 0, "catch"),
    ]
    assert playbook.steps["a"].join == "all"

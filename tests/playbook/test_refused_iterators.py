"""Errors of iterators."""

from __future__ import annotations

import pytest

from tests.playbook.documents import findings_of

ITERATOR = "type: iterator, %s, element: n, task: {type: http, url: u}"


def test_the_task_of_an_iterator_is_no_iterator() -> None:
    """Nested iterators need a child playbook."""
    source = """
    workflow:
      - {step: start, next: [a, b]}
      - {step: a, type: iterator, collection: [1], element: n, task: {type: http, url: x, loop: {collection: n}}}
      - {step: b, type: iterator, collection: [1], element: n, task: {type: iterator, collection: n, element: m}}
    """
    hint = "put the inner iterator into a block: task: {workflow: [{step: start, next: …}, …]}"
    assert findings_of(source) == [
        f"{place} error bad-iterator {path}: the iterator `{name}` has a task that iterates itself ({hint})"
        for place, path, name in (("4:66", "workflow[1].task", "a"), ("5:66", "workflow[2].task", "b"))
    ]


@pytest.mark.parametrize(
    "key, value, why",
    [
        ("limit", "-1", "`limit` is -1, not a whole number of at least 0"),
        ("limit", "true", "`limit` is true, not a whole number of at least 0"),
        ("limit", "'2'", "`limit` is '2', not a whole number of at least 0"),
        ("limit", "1.5", "`limit` is 1.5, not a whole number of at least 0"),
        ("chunk", "0", "`chunk` is 0, not a whole number of at least 1"),
        ("chunk", "x", "`chunk` is 'x', not a whole number of at least 1"),
        ("limit", "'{{ x + }}'", "the template `{{ x + }}` does not compile"),
        ("limit", "0", ""),
        ("chunk", "'{{ workload.size }}'", ""),
        ("chunk", "null", ""),
    ],
)
@pytest.mark.parametrize("task", ["type: http, url: u", "type: playbook, path: p"])
def test_limit_and_chunk_must_be_whole_numbers(task: str, key: str, value: str, why: str) -> None:
    """Or templates. Each is reported once, for any runner of the items."""
    found = findings_of(f"""
    workload: {{size: 2}}
    workflow: [{{step: start, {task}, loop: {{collection: [1], element: n, {key}: {value}}}}}]
    """)
    assert [why in line and f" workflow[0].loop.{key}: " in line for line in found] == [True] * bool(why)


@pytest.mark.parametrize(
    "keys, why",
    [
        ("collection: '{% for %}'", "collection: bad `collection`: "),
        ("collection: x +", "collection: bad `collection`: "),
        ("collection: '{{ x | nothing }}'", "collection: bad `collection`: "),
        ("collection: [1], where: n >", "where: bad `where`: "),
        ("collection: [1], order_by: '{{ n > }}'", "order_by: bad `order_by`: "),
    ],
)
@pytest.mark.parametrize("form", ["type: http, url: u, loop: {%s, element: n}", ITERATOR])
def test_a_wrong_expression_is_reported_once(form: str, keys: str, why: str) -> None:
    """As the author wrote it, not as a template of the job."""
    [line] = findings_of(f"workflow: [{{step: start, {form % keys}}}]")
    assert why in line


@pytest.mark.parametrize("step_type", ["wait", "approval", "signal"])
def test_a_step_that_waits_is_not_repeated(step_type: str) -> None:
    """Neither as the task of an iterator nor by a loop: each item needs an execution of its own."""
    source = f"""
    workflow:
      - {{step: start, next: [a, b]}}
      - {{step: a, type: iterator, collection: [1], element: n, task: {{type: {step_type}, for: 1d, signal: s}}}}
      - {{step: b, type: {step_type}, loop: {{collection: [1], element: n}}}}
    """
    found = [line.partition(": ")[2] for line in findings_of(source) if "repeats" in line]
    hint = "(put the step into a block: task: {workflow: [{step: start, next: …}, …]})"
    assert found == [f"the iterator `{name}` repeats a step of type `{step_type}` {hint}" for name in ("a", "b")]


def test_retry_stands_in_the_task_of_an_iterator() -> None:
    """There it is read. On the step it does nothing, because an iterator is not started again."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: iterator, collection: [1], element: n, retry: 2, task: {type: http, url: u, retry: 3}}
    """
    [found] = findings_of(source)
    assert "`retry` of the iterator `a` does nothing: an iterator is not started again (write it in the `task`" in found

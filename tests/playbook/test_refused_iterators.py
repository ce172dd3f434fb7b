"""Errors of iterators."""

from __future__ import annotations

import pytest

from tests.playbook.documents import findings_of

ITERATOR = "type: iterator, %s, element: n, task: {type: http, url: u}"


def test_an_iterator_without_collection_element_or_task_is_refused() -> None:
    """Each missing key is reported."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: iterator}
    """
    assert findings_of(source) == [
        (
            '4:5 error bad-iterator workflow[1]: the iterator `a` has no `collection` (write collection: "{{ '
            'workload.items }}")'
        ),
        "4:5 error bad-iterator workflow[1]: the iterator `a` has no `element` (write element: item)",
        (
            "4:5 error bad-iterator workflow[1].task: the iterator `a` has no `task` (write task: {type: "
            "playbook, path: …} or another type)"
        ),
    ]


def test_a_loop_without_a_collection_is_refused() -> None:
    """It has no items."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: http, url: x, loop: {element: city}}
    """
    assert findings_of(source) == [
        (
            "4:41 error bad-iterator workflow[1].loop: the iterator `a` has no `collection` (write "
            'collection: "{{ workload.items }}")'
        ),
    ]


def test_a_loop_that_is_not_a_mapping_is_refused() -> None:
    """A number is no loop."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: http, url: x, loop: 3}
    """
    assert findings_of(source) == [
        (
            "4:41 error bad-iterator workflow[1].loop: the iterator `a` has a `loop` that is a number (write "
            "loop: {collection: …, element: …})"
        ),
    ]


def test_a_loop_on_a_router_is_refused() -> None:
    """It has no task."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, loop: {collection: [1], element: n}}
    """
    assert findings_of(source) == [
        "4:21 error bad-iterator workflow[1].loop: the iterator `a` has no `task` (give the step a type)",
    ]


def test_the_task_of_an_iterator_is_an_action_or_a_playbook() -> None:
    """A task without a type is refused."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: iterator, collection: [1], element: n, task: {desc: nothing}}
    """
    assert findings_of(source) == [
        (
            "4:66 error bad-iterator workflow[1].task: the iterator `a` has a task that is neither an action "
            "nor a playbook (write task: {type: …})"
        ),
    ]


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


def test_bad_values_of_an_iterator_are_refused() -> None:
    """Each is reported."""
    source = """
    workflow:
      - {step: start, next: a}
      - step: a
        type: iterator
        collection: 5
        element: "1x"
        mode: fast
        concurrency: 0
        on_error: stop
        where: "{{ a }} b"
        enumerate: 1
        task: {type: playbook, path: p}
    """
    assert findings_of(source) == [
        (
            "6:17 error bad-iterator workflow[1].collection: the iterator `a` has a `collection` that is a "
            'number (write a list or "{{ expression }}")'
        ),
        (
            "7:14 error bad-iterator workflow[1].element: the iterator `a` has the `element` '1x', which is "
            "not a name (write element: item)"
        ),
        (
            "8:11 error bad-iterator workflow[1].mode: `mode` is fast, not one of sequential, async, "
            "parallel (the default is sequential)"
        ),
        (
            "9:18 error bad-iterator workflow[1].concurrency: `concurrency` is 0, not an integer from 1 to "
            "1000000 (write an integer from 1 to 1000000)"
        ),
        (
            "10:15 error bad-iterator workflow[1].on_error: `on_error` is stop, not one of fail, continue "
            "(the default is fail)"
        ),
        (
            "11:12 error bad-iterator workflow[1].where: bad `where`: a condition is one expression: text "
            'outside the braces is not allowed (write where: "{{ expression }}")'
        ),
        ("12:16 error bad-iterator workflow[1].enumerate: `enumerate` is 1, not true or false (write true or false)"),
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


@pytest.mark.parametrize(
    "keys, finding",
    [
        ("tolerate: 120%", "bad-iterator workflow[1].tolerate: `tolerate` of the iterator `a` is '120%', not a number"),
        ("tolerate: true", "bad-iterator workflow[1].tolerate: `tolerate` of the iterator `a` is True, not a number"),
        ("tolerate: 5, on_error: continue", "bad-iterator workflow[1].on_error: the iterator `a` has `on_error` and"),
        ("tolerate: 2.5%", None),
        ("tolerate: 0", None),
    ],
)
def test_tolerate_is_a_number_or_a_percentage_and_replaces_on_error(keys: str, finding: str | None) -> None:
    """A percentage is text."""
    source = f"""
    workflow:
      - {{step: start, next: a}}
      - {{step: a, type: iterator, collection: [1], element: n, {keys}, task: {{type: http, url: u}}}}
    """
    found = findings_of(source)
    assert len(found) == (finding is not None)
    assert (finding or "") in "".join(found)


@pytest.mark.parametrize(
    "entry, finding",
    [
        (
            "{when: true}",
            "workflow[1].task.catch: an entry of `catch` in the task of the iterator `a` has no `result`",
        ),
        ("[5]", "workflow[1].task.catch[0]: an entry of `catch` in the task of the iterator `a` is a number"),
        (
            "{step: b, result: 1}",
            "workflow[1].task.catch.step: `step` in the `catch` of the task of the iterator `a`",
        ),
        ("{result: 1, when: 'a b'}", "bad-catch workflow[1].task.catch.when: bad `when`"),
        ("{result: 1, wen: x}", "unknown-key workflow[1].task.catch.wen: unknown key `wen` in `catch`"),
        ("[{result: 1}, {result: 2}]", "dead-catch workflow[1].task.catch[1]: this catch can never be taken: entry 1"),
    ],
)
def test_the_catch_of_a_task_gives_results(entry: str, finding: str) -> None:
    """It leads to no step."""
    source = f"""
    workflow:
      - {{step: start, next: a}}
      - {{step: a, type: iterator, collection: [1], element: n, task: {{type: http, url: u, catch: {entry}}}}}
    """
    [found] = findings_of(source)
    assert finding in found


def test_retry_stands_in_the_task_of_an_iterator() -> None:
    """There it is read. On the step it does nothing, because an iterator is not started again."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: iterator, collection: [1], element: n, retry: 2, task: {type: http, url: u, retry: 3}}
    """
    [found] = findings_of(source)
    assert "`retry` of the iterator `a` does nothing: an iterator is not started again (write it in the `task`" in found

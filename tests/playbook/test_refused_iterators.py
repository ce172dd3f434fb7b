"""What is refused on an iterator."""

from __future__ import annotations

import pytest

from tests.playbook.documents import told

ITERATOR = "type: iterator, %s, element: n, task: {type: http, url: u}"


def test_an_iterator_has_a_collection_an_element_and_a_task() -> None:
    """Each that is missing is told."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: iterator}
    """
    assert told(source) == [
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


def test_a_loop_has_a_collection() -> None:
    """A loop over nothing is refused."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: http, url: x, loop: {element: city}}
    """
    assert told(source) == [
        (
            "4:41 error bad-iterator workflow[1].loop: the iterator `a` has no `collection` (write "
            'collection: "{{ workload.items }}")'
        ),
    ]


def test_a_loop_is_a_mapping() -> None:
    """A number of turns is no loop."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: http, url: x, loop: 3}
    """
    assert told(source) == [
        (
            "4:41 error bad-iterator workflow[1].loop: the iterator `a` has a `loop` that is a number (write "
            "loop: {collection: …, element: …})"
        ),
    ]


def test_a_loop_repeats_something() -> None:
    """A router has nothing to repeat."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, loop: {collection: [1], element: n}}
    """
    assert told(source) == [
        "4:21 error bad-iterator workflow[1].loop: the iterator `a` has no `task` (give the step a type)",
    ]


def test_an_iterators_task_is_an_action_or_a_playbook() -> None:
    """A task without a type does nothing."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: iterator, collection: [1], element: n, task: {desc: nothing}}
    """
    assert told(source) == [
        (
            "4:66 error bad-iterator workflow[1].task: the iterator `a` has a task that is neither an action "
            "nor a playbook (write task: {type: …})"
        ),
    ]


def test_an_iterators_task_does_not_iterate_itself() -> None:
    """Iterators are nested by way of a playbook."""
    source = """
    workflow:
      - {step: start, next: [a, b]}
      - {step: a, type: iterator, collection: [1], element: n, task: {type: http, url: x, loop: {collection: n}}}
      - {step: b, type: iterator, collection: [1], element: n, task: {type: iterator, collection: n, element: m}}
    """
    hint = "put the inner iterator into a playbook of its own, and write task: {type: playbook, path: …}"
    assert told(source) == [
        f"{place} error bad-iterator {path}: the iterator `{name}` has a task that iterates itself ({hint})"
        for place, path, name in (("4:66", "workflow[1].task", "a"), ("5:66", "workflow[2].task", "b"))
    ]


def test_the_keys_of_an_iterator_have_bounds_and_words() -> None:
    """Each wrong key is told."""
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
    assert told(source) == [
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
def test_how_many_items_is_a_whole_number(task: str, key: str, value: str, why: str) -> None:
    """Or a template, which may give one; told once, whoever iterates."""
    found = told(f"""
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
def test_an_expression_that_is_none_is_told_once(form: str, keys: str, why: str) -> None:
    """As it is written, and not as the template that a worker would get."""
    [line] = told(f"workflow: [{{step: start, {form % keys}}}]")
    assert why in line

"""The items of an iterator that the broker runs: filtered, sorted, limited and named."""

from __future__ import annotations

import json

import pytest

from noetl_broker.broker.model.effects import ChildStarted, ItemsChosen
from noetl_broker.broker.model.values import JSON
from noetl_broker.history.story import play_turns, read_events
from tests.stories import playbook

EACH = """
workload: {{cities: [Rome, Oslo, Bonn], by_name: {{b: 2, a: 1}}, none: null, few: 2}}
workflow:
- {{step: start, next: [{{step: each, args: {{most: 2}}}}]}}
- step: each
  type: iterator
  mode: async
  element: n
  {keys}
  task: {{{task}, args: {{it: "{{{{ {expression} }}}}"}}}}
"""


def first_turn(keys: str, expression: str = "n") -> tuple[list[JSON], str | None]:
    """Return the inputs of the children and the message of a failed step. `|` separates `keys`."""
    compiled = playbook(
        EACH.format(keys=keys.replace(" | ", "\n  "), expression=expression, task="type: playbook, path: p")
    )
    [(_, decision, _)] = play_turns(compiled, read_events("> execution_start"))
    failed = [event.error["message"] for event in decision.events if event.type == "step_failed"]
    return [child.payload["it"] for child in decision.of(ChildStarted)], failed[0] if failed else None


# Keys of the iterator, and its items.
CHOSEN: list[tuple[str, JSON]] = [
    ('collection: "{{ workload.cities }}"', ["Rome", "Oslo", "Bonn"]),
    ("collection: cities", ["Rome", "Oslo", "Bonn"]),
    ("collection: range(3)", [0, 1, 2]),
    ('collection: ["{{ few }}", two, [3], {four: "{{ most }}"}]', [2, "two", [3], {"four": 2}]),
    ("collection: by_name", [{"key": "a", "value": 1}, {"key": "b", "value": 2}]),  # as jsonb keeps them
    ("collection: {a: '{{ few }}'}", [{"key": "a", "value": 2}]),
    ("collection: {zz: 1, b: '{{ few }}'}", [{"key": "zz", "value": 1}, {"key": "b", "value": 2}]),  # as it is written
    ("""collection: '{{ {"zz": 1, "b": few} }}'""", [{"key": "zz", "value": 1}, {"key": "b", "value": 2}]),
    ("collection: []", []),
    ("collection: {}", []),
    ("collection: [3, 1, 2] | where: n > 1", [3, 2]),
    ("collection: [3, 1, 2] | where: false", []),
    ("collection: [3, 1, 2] | where: '{{ n != most }}'", [3, 1]),
    ("collection: [no, yes, ''] | where: n", ["yes"]),
    ("collection: [3, 1, 2] | where: none", []),
    ("collection: [3, 1, 2] | where: '{{ workload.none }}'", []),
    ("collection: [3, 1, 2] | where: null | order_by: null", [3, 1, 2]),
    ("collection: [a, b, c] | where: _loop.index != 1", ["a", "c"]),
    ("collection: [a, b, c] | where: _loop.index == _loop.count - 1 and _loop.item == n", ["c"]),
    ("collection: [3, 1, 2] | order_by: n", [1, 2, 3]),
    ("collection: [3, 1, 2] | order_by: -n", [3, 2, 1]),
    ("collection: [bb, a, cc, d] | order_by: n|length", ["a", "d", "bb", "cc"]),
    ("collection: by_name | order_by: n.key", [{"key": "a", "value": 1}, {"key": "b", "value": 2}]),
    ("collection: [3, 1, 2, 0] | order_by: '[n % 2, n]'", [0, 2, 1, 3]),
    ("collection: [3, 1, 2] | where: n > 1 | order_by: _loop.index * -1", [2, 3]),
    ("collection: [3] | order_by: none", [3]),
    ("collection: [3, 1, 2] | limit: 2", [3, 1]),
    ("collection: [3, 1, 2] | limit: 0", []),
    ("collection: [3, 1, 2] | limit: 9", [3, 1, 2]),
    ("collection: [3, 1, 2] | limit: '{{ few }}'", [3, 1]),
    ("collection: [3, 1, 2] | limit: '{{ most - 1 }}'", [3]),
    ("collection: [3, 1, 2] | limit: '{{ none }}'", [3, 1, 2]),
    ("collection: [3, 1, 2] | chunk: 2", [[3, 1], [2]]),
    ("collection: [] | chunk: 2", []),
    ("collection: [3, 1] | enumerate: true", [{"item": 3, "index": 0}, {"item": 1, "index": 1}]),
    ("collection: [5, 9, 1] | order_by: n | limit: 1 | enumerate: true | chunk: 1", [[{"item": 1, "index": 0}]]),
]


@pytest.mark.parametrize("keys, items", CHOSEN)
def test_items_are_filtered_ordered_limited_and_chunked(keys: str, items: JSON) -> None:
    """In the order `where`, `order_by`, `limit`, `enumerate`, `chunk`. The sort is stable."""
    assert json.dumps(first_turn(keys)) == json.dumps((items, None))


# An input has the name of the element.
ENTERED_WITH = """
workflow:
- {{step: start, next: [{{step: each, args: {{x: 9, _loop: none}}}}]}}
- {{step: each, type: http, loop: {{collection: [3, 1, 2], element: x, {keys}}}}}
"""
ABOUT_ITEMS: list[tuple[str, JSON]] = [
    ("where: x > 1", [3, 2]),
    ("where: x == _loop.item and args.x == 9", [3, 1, 2]),
    ("where: _loop.index > 0", [1, 2]),
    ("order_by: x", [1, 2, 3]),
    ("limit: '{{ x - 8 }}'", [3]),
]


@pytest.mark.parametrize("keys, items", ABOUT_ITEMS)
def test_the_element_hides_an_input_of_its_name_in_where_and_order_by(keys: str, items: JSON) -> None:
    """`args` still has the input. Other expressions read the input."""
    compiled = playbook(ENTERED_WITH.format(keys=f"distribute: true, {keys}"))
    [(_, decision, _)] = play_turns(compiled, read_events("> execution_start"))
    assert [chosen.values for chosen in decision.of(ItemsChosen)] == [items]


# Keys of the iterator that fail the step, and the message.
WRONG = [
    ("collection: none", "`collection` must be a list or a mapping, it is null"),
    ("collection: '''abc'''", '`collection` must be a list or a mapping, it is "abc"'),
    ("collection: few", "`collection` must be a list or a mapping, it is 2"),
    ("collection: workload.nothing", "`workload.nothing` is undefined: there is no such key in a mapping"),
    ("collection: [1] | where: n.x.y", "`n.x` is undefined: there is no such key in a number"),
    ("collection: [1, a] | order_by: n", "`order_by` gives values that have no order: a number and a string"),
    ("collection: [1, 2] | order_by: none", "`order_by` gives values that have no order: null"),
    ("collection: [1] | limit: '{{ -1 }}'", "`limit` must be a whole number of at least 0, it is -1"),
    ("collection: [1] | limit: '{{ 1.5 }}'", "`limit` must be a whole number of at least 0, it is 1.5"),
    ("collection: [1] | limit: '{{ true }}'", "`limit` must be a whole number of at least 0, it is true"),
    ("collection: [1] | limit: '{{ few|string }}'", '`limit` must be a whole number of at least 0, it is "2"'),
    ("collection: [1] | chunk: '{{ 0 }}'", "`chunk` must be a whole number of at least 1, it is 0"),
    ("collection: [1] | chunk: '{{ 10 // 0 }}'", "it divides by zero"),
]


@pytest.mark.parametrize("keys, message", WRONG)
def test_bad_values_of_an_iterator_fail_the_step(keys: str, message: str) -> None:
    """No item starts. The error has the value. `on_error: continue` covers items only."""
    for on_error in ("fail", "continue"):
        children, error = first_turn(f"{keys} | on_error: {on_error}")
        assert (children, message in (error or "")) == ([], True), error


@pytest.mark.parametrize(
    "expression, first",
    [
        ("n", "Rome"),
        ("_loop", {"index": 0, "count": 3, "item": "Rome"}),
        ("[most, workload.few, few, execution_id]", [2, 2, 2, 1]),
        ("args", {"most": 2}),
        ("result | default('nothing before it')", "nothing before it"),
        ("each | default('no result yet')", "no result yet"),
        ("n ~ uuid()", "Romeb8074a1d-784a-5143-b52c-c4eead8a8555"),
    ],
)
def test_a_template_of_the_task_reads_the_item_and_the_usual_names(expression: str, first: JSON) -> None:
    """The inputs of the step, the element, `_loop`, the workload, and words of the turn."""
    assert first_turn("collection: cities", expression)[0][0] == first

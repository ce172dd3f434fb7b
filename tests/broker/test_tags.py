"""`metadata.tags`: an execution begins with the tags of its start, and those that its playbook gives."""

from __future__ import annotations

import pytest

from noetl_broker.broker.model.effects import ExecutionBegun
from noetl_broker.broker.model.event import Event
from noetl_broker.history.story import play_turns
from tests.stories import assert_story, playbook

ONE = """
workload: {customer: 7, region: eu}
workflow:
- {step: start, next: a}
- {step: a, type: http, url: x}
"""
TAGS = 'tags: {customer: "{{ workload.customer }}", region: "{{ workload.region }}", kind: order}'
PARENT = {"parent": {"depth": 1, "attempt": 1}}
MANY = {f"t{number:02}": "x" for number in range(16)}


def test_the_tags_of_a_playbook_are_templates_over_the_workload() -> None:
    """A number becomes its JSON text."""
    assert_story(
        ONE,
        """
        > execution_start {"region": "us"}
            event step_started a
            job   a
            tags  {"customer": "7", "region": "us", "kind": "order"}
        """,
        metadata=TAGS,
    )


@pytest.mark.parametrize(
    "meta,tags,note",
    [
        (
            {"tags": {"region": "us", "batch": "3"}},
            {"region": "us", "batch": "3", "customer": "7", "kind": "order"},
            "",
        ),
        (
            {"tags": {"region": "us", "batch": "3"}} | PARENT,
            {"customer": "7", "region": "eu", "kind": "order", "batch": "3"},
            "",
        ),
        ({"tags": MANY}, MANY, "customer (an execution has at most 16), region"),
        (
            {"tags": MANY} | PARENT,
            {"customer": "7", "region": "eu", "kind": "order"} | dict([*MANY.items()][:13]),
            "t13 (an execution has at most 16), t14",
        ),
        ({"tags": {"Bad": "x", "list": ["y"]}}, {"customer": "7", "region": "eu", "kind": "order"}, ""),
        ({"tags": "none"}, {"customer": "7", "region": "eu", "kind": "order"}, ""),
    ],
    ids=["start", "child", "many-of-start", "many-of-parent", "no-tags", "no-object"],
)
def test_a_start_wins_over_the_playbook_and_a_child_over_its_parent(
    meta: dict[str, object], tags: dict[str, str], note: str
) -> None:
    """What is too much is left out, with a note."""
    [(_, decision, _)] = play_turns(playbook(ONE, metadata=TAGS), [Event("execution_start", meta=meta)])
    [begun] = decision.of(ExecutionBegun)
    assert (begun.tags, [*(begun.tags or {})]) == (tags, [*tags])
    assert decision.note is None if not note else note in (decision.note or "")


def test_a_tag_that_fails_is_left_out_with_a_note() -> None:
    """A null gives no tag, and no note. The execution runs."""
    metadata = 'tags: {a: "{{ nothing }}", b: "{{ none }}", c: "{{ [1] }}", d: true, e: "{{ \'x\' * 300 }}"}'
    metadata = metadata.replace("{{ 'x' * 300 }}", "{{ workload.long }}")
    start = Event("execution_start", context={"workload": {"long": "x" * 300}})
    [(_, decision, _)] = play_turns(playbook(ONE, metadata=metadata), [start])
    [begun] = decision.of(ExecutionBegun)
    assert (begun.tags, len(decision.jobs)) == ({"d": "true"}, 1)
    assert [name for name in "abcde" if f" {name} (" in (decision.note or "")] == ["a", "c", "e"]


def test_a_playbook_without_tags_writes_none() -> None:
    """Those of the start are in the row already. A list of words is for people."""
    for metadata in ("", "tags: [a, b]"):
        [(_, decision, _)] = play_turns(
            playbook(ONE, metadata=metadata), [Event("execution_start", meta={"tags": {"a": "b"}})]
        )
        assert [begun.tags for begun in decision.of(ExecutionBegun)] == [None]

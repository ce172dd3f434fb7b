"""Inputs and workload: what is rendered, when, and what wins."""

from __future__ import annotations

import pytest

from noetl_broker.broker.model.effects import ExecutionBegun
from noetl_broker.broker.model.values import JSON
from noetl_broker.history.story import play_turns, read_events
from tests.stories import assert_story, playbook


def test_an_own_key_that_a_transition_overrides_is_not_rendered() -> None:
    """A rendered value is never rendered again."""
    assert_story(
        """
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: [{step: b, args: {v: "{{ result }}"}}]}
        - {step: b, type: python, code: x, args: {v: "{{ a.nope + 1 }}"}}
        """,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a "{{ not rendered again }}"
            event step_completed a
            event step_started b
            job   b {"v": "{{ not rendered again }}"}
        """,
    )


def test_a_default_that_the_payload_replaces_is_not_rendered() -> None:
    """So it cannot fail."""
    assert_story(
        """
        workload: {a: "{{ nope }}", b: {c: 1}}
        workflow:
        - {step: start, next: [{step: s, args: {a: "{{ workload.a }}", b: "{{ b }}"}}]}
        - {step: s, type: python, code: x}
        """,
        """
        > execution_start {"a": 1, "b": null}
            event step_started s
            job   s {"a": 1, "b": null}
        """,
    )


@pytest.mark.parametrize(
    "payload, made",
    [
        ('{"db": {"host": "x"}, "two": 2}', {"host": "x", "port": 1, "near": {"a": 0, "b": [2, 3]}}),
        ('{"db": {"host": null, "near": {"b": 7}}}', {"host": None, "port": 1, "near": {"a": 0, "b": 7}}),
        ('{"db": {"host": [], "near": {"b": {"c": 7}}}}', {"host": [], "port": 1, "near": {"a": 0, "b": {"c": 7}}}),
        ('{"db": {"host": "x", "near": "y"}}', {"host": "x", "port": 1, "near": "y"}),
        ('{"db": "x", "h": 0}', "x"),
        (
            '{"db": {"host": {"b": 2}}, "h": {"a": 1}, "two": 2}',
            {"host": {"a": 1, "b": 2}, "port": 1, "near": {"a": 0, "b": [2, 3]}},
        ),
        ('{"db": {"host": {"b": 2}}, "two": 2}', None),
        ('{"db": {"port": 2}, "two": 2}', None),
        ("{}", None),
    ],
)
def test_a_nested_default_that_the_payload_replaces_is_not_rendered(payload: str, made: JSON) -> None:
    """A default for a mapping of the payload is rendered and merged."""
    body = """
    workload: {db: {host: "{{ workload.h }}", port: 1, near: {a: 0, b: ["{{ two }}", 3]}}}
    workflow: [{step: start, next: s}, {step: s, type: python, code: x}]
    """
    [(_, decision, _)] = play_turns(playbook(body), read_events(f"> execution_start {payload}"))
    assert [begun.workload["db"] for begun in decision.of(ExecutionBegun)] == ([] if made is None else [made])


def test_workload_defaults_are_rendered_once_and_the_payload_never() -> None:
    """Defaults read the payload and earlier defaults. Mappings merge at every level."""
    assert_story(
        """
        workload: {a: "{{ b }}", c: {d: 1, e: 2}, f: "{{ a }}-{{ c.d }}", g: 1}
        workflow:
        - {step: start, next: [{step: s, args: {c: "{{ workload.c }}", f: "{{ f }}", b: "{{ b }}"}}]}
        - {step: s, type: python, code: x}
        """,
        """
        > execution_start {"b": "{{ raw }}", "c": {"d": 5}}
            event step_started s
            job   s {"c": {"d": 5, "e": 2}, "f": "{{ raw }}-5", "b": "{{ raw }}"}
        """,
    )


def test_a_default_may_read_the_whole_workload_before_it() -> None:
    """The payload and earlier defaults at any depth, not itself."""
    assert_story(
        """
        workload: {a: 1, all: "{{ workload }}", b: {c: ["{{ work }}"]}}
        workflow:
        - {step: start, next: [{step: s, args: {all: "{{ all }}", b: "{{ b.c[0].a }}"}}]}
        - {step: s, type: python, code: x}
        """,
        """
        > execution_start {"p": 2}
            event step_started s
            job   s {"all": {"a": 1, "p": 2}, "b": 1}
        """,
    )


@pytest.mark.parametrize("own", ["", ", args: [a, b]", ", args: [a, b], data: {own: 1}", ", data: {own: 1}"])
def test_steps_after_a_container_read_its_inputs_beside_its_argument_list(own: str) -> None:
    """With inputs of the transition. `retry_when` reads them too."""
    body = f"""
    workflow:
    - {{step: start, next: [{{step: c, args: {{x: 1}}}}]}}
    - step: c
      type: container
      image: i{own.replace(", ", chr(10) + "      ")}
      retry: {{max_attempts: 2, initial_delay: 1, jitter: false, retry_when: "{{{{ x == 1 }}}}"}}
      next: [{{when: "{{{{ x == 1 and args.x == 1 }}}}", step: d, args: {{seen: "{{{{ args }}}}"}}}}]
    - {{step: d, type: python, code: x}}
    """
    story = ["> execution_start", '> action_failed c {"message": "no"}', "> action_completed c 1"]
    [_, (_, failed, _), (_, done, _)] = play_turns(playbook(body), read_events("\n".join(story)))
    assert [event.type for event in failed.events] == ["action_retry"]
    [job] = done.jobs
    assert job.action["args"] == {"seen": {"x": 1, "own": 1} if "own" in own else {"x": 1}}

"""Inputs and workload: what is rendered, when, and what wins."""

from tests.stories import assert_story


def test_an_own_key_that_a_transition_overrides_is_not_rendered() -> None:
    """And a rendered value is never rendered again."""
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
    """It is no default then, and cannot fail."""
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


def test_workload_defaults_are_rendered_once_and_the_payload_never() -> None:
    """Defaults see the payload and the defaults before them; mappings merge all the way down."""
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

"""Errors of `next`."""

from __future__ import annotations

from tests.playbook.documents import findings_of


def test_an_unknown_target_is_refused() -> None:
    """The hint has the nearest step."""
    source = """
    workflow:
      - {step: start, next: fetsh}
      - {step: fetch, next: end}
      - {step: end}
    """
    assert findings_of(source) == [
        "3:25 error unknown-step workflow[0].next: there is no step `fetsh` (did you mean `fetch`?)",
    ]


def test_a_transition_to_start_is_refused() -> None:
    """A loop goes back to the step after `start`."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, next: start}
    """
    assert findings_of(source) == [
        (
            "4:21 error next-to-start workflow[1].next: `next` of step `a` leads back to `start` (lead to "
            "the step after `start`)"
        ),
    ]


def test_a_next_of_end_is_refused() -> None:
    """No step follows `end`."""
    source = """
    workflow:
      - {step: start, next: end}
      - {step: end, next: other}
      - {step: other}
    """
    assert findings_of(source) == [
        "4:23 error end-with-next workflow[1].next: `end` has a `next` (remove it, or rename the step)",
    ]


def test_an_else_without_a_condition_is_refused() -> None:
    """It could never fire."""
    source = """
    workflow:
      - step: start
        next:
          - else: [a]
      - {step: a}
    """
    assert findings_of(source) == [
        (
            "5:9 error only-else workflow[0].next[0].else: `next` of step `start` has an `else` but no "
            'condition (add an entry with a condition: {when: "{{ … }}", step: …})'
        ),
    ]


def test_an_else_beside_an_unconditional_target_is_refused() -> None:
    """The target always fires."""
    source = """
    workflow:
      - step: start
        next: {step: a, else: [b]}
      - {step: a}
      - {step: b}
    """
    assert findings_of(source) == [
        (
            "4:27 error bad-next workflow[0].next.else: `else` has no condition beside it "
            "(add `when`, or make it its own entry)"
        ),
    ]


def test_entries_and_targets_of_a_wrong_shape_are_refused() -> None:
    """Each has its reason."""
    source = """
    workflow:
      - step: start
        next:
          - 3
          - {}
          - {step: a, then: [a]}
          - {then: []}
          - {step: 3}
          - {then: [{step: a, when: "{{ 1 }}"}]}
          - ""
      - {step: a}
    """
    assert findings_of(source) == [
        "5:9 error bad-next workflow[0].next[0]: an entry of `next` is a number (write {step: name})",
        "6:9 error bad-next workflow[0].next[1]: an entry of `next` has no target (add step: name)",
        (
            "7:25 error bad-next workflow[0].next[2].then: an entry has both a target and `then` (put all "
            "targets under `then`)"
        ),
        "8:9 error bad-next workflow[0].next[3]: an entry of `next` has no target (add step: name)",
        (
            "9:16 error bad-next workflow[0].next[4].step: a target of `next` is a number (write a step's "
            "name, or {step: name})"
        ),
        (
            "10:33 error bad-next workflow[0].next[5].then[0].when: a target has no `when` of its own (make "
            "it an entry of `next`)"
        ),
        ("11:9 error bad-next workflow[0].next[6]: a target of `next` is empty (write a step's name, or {step: name})"),
    ]


def test_a_condition_with_text_outside_its_braces_is_refused() -> None:
    """It would be a text that is always true."""
    source = """
    workflow:
      - step: start
        next: {when: "{{ x }} and", step: a}
      - {step: a}
    """
    assert findings_of(source) == [
        (
            "4:18 error bad-when workflow[0].next.when: bad `when`: a condition is one expression: text "
            'outside the braces is not allowed (write when: "{{ expression }}")'
        ),
    ]


def test_a_null_condition_is_refused() -> None:
    """Null is usually a mistake."""
    source = """
    workflow:
      - step: start
        next: {when: null, step: a}
      - {step: a}
    """
    assert findings_of(source) == [
        (
            "4:18 error bad-when workflow[0].next.when: bad `when`: a condition is one expression, not null "
            '(write when: "{{ expression }}")'
        ),
    ]


def test_an_empty_condition_is_refused() -> None:
    """It is no expression."""
    source = """
    workflow:
      - step: start
        next: {when: "", step: a}
      - {step: a}
    """
    assert findings_of(source) == [
        (
            "4:18 error bad-when workflow[0].next.when: bad `when`: a condition is empty: write an "
            'expression (write when: "{{ expression }}")'
        ),
    ]


def test_a_transition_that_reads_a_word_of_the_worker_is_refused() -> None:
    """The broker evaluates conditions."""
    source = """
    workflow:
      - step: start
        next: {when: "{{ env.HOME == 'x' }}", step: a}
      - {step: a}
    """
    assert findings_of(source) == [
        (
            "4:18 error bad-when workflow[0].next.when: bad `when`: `env` is known to workers only, and the "
            'broker decides conditions (write when: "{{ expression }}")'
        ),
    ]


def test_two_aliases_of_when_are_refused() -> None:
    """An entry has one condition."""
    source = """
    workload: {x: 1}
    workflow:
      - step: start
        next: {when: "{{ x }}", condition: "{{ x }}", step: a}
      - {step: a}
    """
    assert findings_of(source) == [
        "5:40 error bad-when workflow[0].next.condition: `condition` repeats `when` (keep one)",
    ]


def test_inputs_that_are_no_mapping_are_refused() -> None:
    """A list or a text cannot be merged. One template is allowed."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: python, code: x, args: [1], next: {step: b, data: text}}
      - {step: b}
    """
    assert findings_of(source) == [
        (
            "4:44 error bad-inputs workflow[1].args: `args` is a list, not a mapping or one "
            'template that gives one (write args: {name: value} or args: "{{ step }}")'
        ),
        (
            "4:71 error bad-inputs workflow[1].next.data: `data` is a string, not a mapping or "
            'one template that gives one (write data: {name: value} or data: "{{ step }}")'
        ),
    ]

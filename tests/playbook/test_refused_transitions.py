"""What is refused in `next`."""

from __future__ import annotations

from tests.playbook.documents import told


def test_a_target_exists() -> None:
    """A misspelt step is refused with the nearest name."""
    source = """
    workflow:
      - {step: start, next: fetsh}
      - {step: fetch, next: end}
      - {step: end}
    """
    assert told(source) == [
        "3:25 error unknown-step workflow[0].next: there is no step `fetsh` (did you mean `fetch`?)",
    ]


def test_nothing_leads_back_to_start() -> None:
    """A loop goes to the step after it."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, next: start}
    """
    assert told(source) == [
        (
            "4:21 error next-to-start workflow[1].next: `next` of step `a` leads back to `start` (lead to "
            "the step after `start`)"
        ),
    ]


def test_end_has_no_next() -> None:
    """Nothing comes after the end."""
    source = """
    workflow:
      - {step: start, next: end}
      - {step: end, next: other}
      - {step: other}
    """
    assert told(source) == [
        "4:23 error end-with-next workflow[1].next: `end` has a `next` (remove it, or rename the step)",
    ]


def test_an_else_needs_a_condition_in_its_list() -> None:
    """Otherwise it could never fire."""
    source = """
    workflow:
      - step: start
        next:
          - else: [a]
      - {step: a}
    """
    assert told(source) == [
        (
            "5:9 error only-else workflow[0].next[0].else: `next` of step `start` has an `else` and no "
            'condition (add an entry with a condition: {when: "{{ … }}", step: …})'
        ),
    ]


def test_an_else_stands_beside_a_condition_or_alone() -> None:
    """Beside a target that always fires it means nothing."""
    source = """
    workflow:
      - step: start
        next: {step: a, else: [b]}
      - {step: a}
      - {step: b}
    """
    assert told(source) == [
        (
            "4:27 error bad-next workflow[0].next.else: `else` stands beside a target without a condition "
            "(add `when`, or make it its own entry)"
        ),
    ]


def test_entries_and_targets_have_a_shape() -> None:
    """Each entry that is none says why."""
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
    assert told(source) == [
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


def test_a_condition_is_one_expression() -> None:
    """Text outside the braces would make it a string that is always true."""
    source = """
    workflow:
      - step: start
        next: {when: "{{ x }} and", step: a}
      - {step: a}
    """
    assert told(source) == [
        (
            "4:18 error bad-when workflow[0].next.when: bad `when`: a condition is one expression: text "
            'outside the braces is not allowed (write when: "{{ expression }}")'
        ),
    ]


def test_a_condition_is_not_null() -> None:
    """Null is more often a slip than a meaning."""
    source = """
    workflow:
      - step: start
        next: {when: null, step: a}
      - {step: a}
    """
    assert told(source) == [
        (
            "4:18 error bad-when workflow[0].next.when: bad `when`: a condition is one expression, not null "
            '(write when: "{{ expression }}")'
        ),
    ]


def test_a_condition_is_not_empty() -> None:
    """An empty condition is no expression."""
    source = """
    workflow:
      - step: start
        next: {when: "", step: a}
      - {step: a}
    """
    assert told(source) == [
        (
            "4:18 error bad-when workflow[0].next.when: bad `when`: a condition is empty: write an "
            'expression (write when: "{{ expression }}")'
        ),
    ]


def test_a_condition_names_nothing_that_only_workers_know() -> None:
    """The broker decides conditions."""
    source = """
    workflow:
      - step: start
        next: {when: "{{ env.HOME == 'x' }}", step: a}
      - {step: a}
    """
    assert told(source) == [
        (
            "4:18 error bad-when workflow[0].next.when: bad `when`: `env` is known to workers only, and the "
            'broker decides conditions (write when: "{{ expression }}")'
        ),
    ]


def test_a_condition_is_given_once() -> None:
    """Two aliases in one entry contradict each other."""
    source = """
    workload: {x: 1}
    workflow:
      - step: start
        next: {when: "{{ x }}", condition: "{{ x }}", step: a}
      - {step: a}
    """
    assert told(source) == [
        "5:40 error bad-when workflow[0].next.condition: `condition` says again what `when` says (keep one)",
    ]


def test_inputs_are_a_mapping_or_one_template() -> None:
    """A list or a text cannot be merged."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: python, code: x, args: [1], next: {step: b, data: text}}
      - {step: b}
    """
    assert told(source) == [
        (
            "4:44 error bad-inputs workflow[1].args: `args` is a list, and inputs are a mapping or one "
            'template that gives one (write args: {name: value} or args: "{{ step }}")'
        ),
        (
            "4:71 error bad-inputs workflow[1].next.data: `data` is a string, and inputs are a mapping or "
            'one template that gives one (write data: {name: value} or data: "{{ step }}")'
        ),
    ]

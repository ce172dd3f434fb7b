"""Findings that are warnings."""

from __future__ import annotations

from base64 import b64encode

import pytest

from tests.playbook.documents import findings_of


@pytest.mark.parametrize(
    "iterator, warned",
    [
        ("type: playbook, path: p, loop: {collection: [1], element: x}", True),
        ("type: http, url: u, loop: {collection: [1], element: x, distribute: true}", True),
        ("type: http, url: u, loop: {collection: [1], element: x}", False),
        ("type: iterator, collection: [1], element: x, task: {type: playbook, path: p}", True),
        ("type: iterator, collection: [1], element: y, args: {y: 2}, task: {type: playbook, path: p}", True),
        ("type: iterator, collection: [1], element: y, task: {type: playbook, path: p, args: {y: '{{ y }}'}}", False),
        ("type: playbook, path: p, args: {y: '{{ y }}'}, loop: {collection: [1], element: y}", False),
    ],
)
def test_an_input_that_hides_the_element_is_warned_of(iterator: str, warned: bool) -> None:
    """Inputs of the step or of a transition. Inputs of the task may use the element."""
    body = f"""
    workflow:
      - {{step: start, next: {{step: each, args: {{x: 9}}}}}}
      - {{step: each, {iterator}}}
    """
    element = "y" if "element: y" in iterator else "x"
    assert (
        findings_of(body)
        == [
            (
                f"4:12 warning shadowed-name workflow[1].step: an input hides the element `{element}` in the items of "
                "the iterator `each` (choose another name)"
            )
        ]
        * warned
    )


@pytest.mark.parametrize(
    "step, name, why",
    [
        ('type: http, url: "{{ a.x }}"', "a", "a"),
        ('type: http, url: u, args: {x: "{{ a }}"}', "a", "a"),
        ("type: http, url: u, save: {data: {x: \"{{ results['a'] is none or a.b }}\"}}", None, ""),
        ('type: http, url: u, save: {data: {x: "{{ a.b }}"}}', "a", "a"),
        ('type: http, url: u, retry: {max_attempts: 2, retry_when: "{{ a.b }}"}', "a", "a"),
        ('type: http, url: "{{ b.x }}"', "b", "only after"),
        ('type: http, url: "{{ start }}{{ a | default(1) }}"', "start", "nothing"),
        ('type: http, url: "{{ r }}"', "r", "nothing"),
        ('type: http, url: "{{ a.x if a is defined else 0 }}"', None, ""),
        ('type: http, url: "{{ 1 if workload.k else b }}{{ k or b }}"', None, ""),
        ('type: http, url: "{{ b }}", args: {b: 1}', None, ""),
        ('type: http, url: "{{ k }}"', None, ""),
    ],
)
def test_a_template_that_reads_a_missing_result_is_warned_of(step: str, name: str | None, why: str) -> None:
    """The step has not ended, comes later, or runs nothing."""
    source = f"""
    workload: {{k: 1}}
    workflow:
      - {{step: start, next: a}}
      - {{step: a, {step}, next: [{{when: "{{{{ a.x }}}}", step: r}}]}}
      - {{step: r, next: b}}
      - {{step: b, type: http, url: "{{{{ a }}}}{{{{ k }}}}"}}
    """
    reasons = {
        "a": "which has no result before it ends",
        "only after": "which runs only after `a`",
        "nothing": "which has no action and so no result",
    }
    found = [line for line in findings_of(source) if "no-result" in line]
    if name is None:
        assert found == []
    else:
        [line] = found
        assert f"the template reads the result of the step `{name}`, {reasons[why]} (" in line


def test_a_result_of_an_earlier_visit_is_not_warned_of() -> None:
    """In a loop, or behind a join of `each`."""
    loop = """
    workflow:
      - {step: start, next: [{step: a, args: {n: 0}}]}
      - {step: a, type: http, url: "{{ b.x }}{{ a.x }}", next: [{when: "a.y", step: b}]}
      - {step: b, type: http, url: u, next: a}
    """
    each = """
    workflow:
      - {step: start, next: [a, b]}
      - {step: a, type: http, url: "{{ b.x }}", next: b}
      - {step: b, type: http, url: u, join: each}
    """
    assert [line for source in (loop, each) for line in findings_of(source) if "no-result" in line] == []


MERGING = """
workload: {x: 1}
workflow:
  - {step: start, next: %s}
  - {step: a, type: http, url: u, next: [{step: j, args: {k: 1}}]}
  - {step: b, type: http, url: u, next: [{step: j, args: {k: 2}}]}
  - {step: j, type: http, url: u}
"""


@pytest.mark.parametrize(
    "choice",
    [
        "[{when: x > 1, step: a}, {else: [b]}]",
        "[{when: x > 1, step: a}, {step: b}]",
        "[{when: x > 1, step: a}, {when: x <= 1, step: b}]",
        "[{when: x > 1, step: a, else: b}]",
    ],
)
def test_exclusive_branches_may_give_a_join_the_same_input(choice: str) -> None:
    """Only one of the two transitions is taken."""
    assert findings_of(MERGING % choice) == []


@pytest.mark.parametrize(
    "choice",
    [
        "[a, b]",
        "[a, {when: x > 1, step: b}]",
        "[{when: x > 1, step: a}, {when: x < 1, step: j, else: b}]",
        "[{when: x > 1, then: [a, b]}]",
        "[{when: x > 1, step: j, else: a}, {else: [b]}]",
    ],
)
def test_parallel_branches_that_give_a_join_the_same_input_are_warned_of(choice: str) -> None:
    """For every form of fan-out."""
    assert [line.partition(":")[2].split(" ")[2] for line in findings_of(MERGING % choice)] == ["join-input"]


def test_branches_whose_conditions_can_both_be_true_are_parallel() -> None:
    """Two warnings: of the conditions, and of the input."""
    found = findings_of(MERGING % "[{when: x > 1, step: a}, {when: x > 0, step: b}]")
    assert [line.split(" ")[2] for line in found] == ["overlapping-when", "join-input"]


def test_a_template_in_sql_code_is_warned_of() -> None:
    """`code` is never rendered."""
    source = """
    workload: {x: 1}
    workflow:
      - {step: start, next: a}
      - {step: a, type: postgres, code: "select {{ x }}"}
    """
    assert findings_of(source) == [
        (
            "5:37 warning code-template workflow[1].code: the templates in `code` of the postgres step `a` "
            "are not rendered (write the statement under `command`)"
        ),
    ]
    encoded = b64encode(b"select {{ x }}").decode()
    step = "{step: a, type: postgres, %s, next: end}"
    workflow = f"workflow:\n  - {{step: start, next: a}}\n  - {step}\n  - {{step: end}}\n"
    [line] = findings_of(workflow % f"command_b64: {encoded}")
    assert line.startswith("3:44 warning code-template workflow[1].command_b64: the templates in `command_b64` of")
    [line] = findings_of(workflow % f'commands_b64: [x, "{encoded[:8]}\\n{encoded[8:]}"]')
    assert "the templates in `commands_b64` of" in line
    assert findings_of(workflow % f"command_b64: {b64encode(b'select 1').decode()}") == []


LOOPED = """
workflow:
  - {step: start, next: [{step: head, args: {n: 0}}]}
  - {step: head, type: http, url: u, next: [{when: "head.a", step: tail}, {else: [{step: end}]}]}
  - {step: tail, type: http, url: u, next: %s}
  - {step: side, type: http, url: u, next: [{step: head, args: {n: 3}}]}
  - {step: end}
"""


def test_an_input_of_the_head_of_a_loop_is_not_warned_of() -> None:
    """The transition back fires after the head has run."""
    assert findings_of(LOOPED % '[{when: "tail.b", step: head}, {else: [side]}]') == []
    itself = """
    workflow:
      - {step: start, next: [{step: a, args: {n: 0}}]}
      - {step: a, type: http, url: u, next: [{when: "a.x", step: a, args: {n: 1}}]}
    """
    assert findings_of(itself) == []


def test_two_loops_back_to_a_join_that_both_fire_are_warned_of() -> None:
    """Two transitions into the loop are too."""
    [line] = [line for line in findings_of(LOOPED % "[{step: head, args: {n: 1}}, side]") if "join-input" in line]
    assert "the join `head` gets the input `n` from `tail` and `side`" in line
    ways_in = """
    workflow:
      - {step: start, next: [a, {step: j, args: {n: 0}}]}
      - {step: a, type: http, url: u, next: [{step: j, args: {n: 1}}]}
      - {step: j, type: http, url: u}
    """
    [line] = findings_of(ways_in)
    assert "join-input" in line


def test_a_save_of_an_end_that_no_worker_runs_is_warned_of() -> None:
    """An `end` with an action saves."""
    source = """
    workflow:
      - {step: start, next: end}
      - {step: end, %ssave: {data: {x: 1}}}
    """
    assert findings_of(source % "") == [
        (
            "4:17 warning unused-key workflow[1].save: `save` of step `end` has no effect, because no worker "
            "runs the step (write type: save; without it, `data` is only the execution's result)"
        ),
    ]
    assert findings_of(source % "type: http, url: x, ") == []
    assert findings_of(source % "type: save, ") == []


FIELDS = """
workload: {amount: 5}
workload_schema: {properties: {customer: {type: string}}}
workflow:
  - {step: start, next: ask}
  - {step: ask, type: approval, form: {discount: {type: number}}, next: cool}
  - {step: cool, type: wait, for: 3d, next: say}
  - {step: say, type: signal, signal: paid, next: own}
  - {step: own, type: approval, form: "{{ workload.form | default({}) }}", output: {fine: true}, next: end}
  - {step: end, result: "{{ READ }}"}
"""


@pytest.mark.parametrize(
    "read, hint",
    [
        ("workload.amuont", "did you mean `amount`?"),
        ("context['amuont']", "did you mean `amount`?"),
        ("workload.get('custmer', 1)", "did you mean `customer`?"),
        ("ask.aproved", "did you mean `approved`?"),
        ("ask.data.discuont", "did you mean `discount`?"),
        ("results['ask'].aproved", "did you mean `approved`?"),
        ("cool.until", "known are: waited_until"),
        ("say.payload", "known are: key, name"),
    ],
)
def test_an_unknown_key_of_the_workload_or_of_a_result_of_the_broker_is_warned_of(read: str, hint: str) -> None:
    """The hint has the key that is near."""
    found = [line for line in findings_of(FIELDS.replace("READ", read)) if "workflow[5]" in line]
    assert [line.rpartition(" (")[2] for line in found] == [f"{hint})"]
    assert " warning unknown-name workflow[5].result: the template reads `" in found[0]


@pytest.mark.parametrize(
    "read",
    [
        *("workload.amount", "workload.customer", "workload", "spec.amount", "workload.zebra"),
        *("workload.amuont is defined", "ask.approved", "ask.comment", "ask.discount", "ask.status"),
        *("ask.error.message", "ask.data.by", "ask.result", "results['ask'].at", "cool.waited_until"),
        *("say.name", "own.whatever"),
    ],
)
def test_known_keys_are_not_warned_of(read: str) -> None:
    """The payload may bring keys. A template or an `output` may decide on fields."""
    assert [line for line in findings_of(FIELDS.replace("READ", read)) if "workflow[5]" in line] == []

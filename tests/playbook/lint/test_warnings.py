"""Findings that are warnings."""

from __future__ import annotations

from base64 import b64encode

import pytest

from tests.playbook.documents import findings_of


def test_an_unreachable_step_is_warned_of() -> None:
    """It would never run."""
    source = """
    workflow:
      - {step: start, next: end}
      - {step: a, next: end}
      - {step: end}
    """
    assert findings_of(source) == [
        (
            "4:12 warning unreachable workflow[1].step: no path from `start` leads to the step `a` (add it "
            "to a `next`, or remove it)"
        ),
    ]


def test_two_conditions_that_can_both_be_true_are_warned_of() -> None:
    """Both would fire."""
    source = """
    workload: {x: 1}
    workflow:
      - step: start
        next:
          - {when: "{{ x > 1 }}", step: a}
          - {when: "{{ x > 5 }}", step: b}
      - {step: a}
      - {step: b}
    """
    assert findings_of(source) == [
        (
            "7:9 warning overlapping-when workflow[0].next[1]: this condition and the one on line 9 can both "
            "be true, and then both fire (write next_mode: exclusive on the step, or let one exclude the other)"
        ),
    ]


def test_unknown_names_are_warned_of() -> None:
    """With the nearest name, or a remedy."""
    source = """
    workload: {city: Paris}
    workflow:
      - {step: start, next: a}
      - {step: a, type: http, url: "{{ citi }}", headers: {k: "{{ zzz }}", s: "{{ spec.x }}{{ now }}"}}
    """
    assert findings_of(source) == [
        (
            "5:32 warning unknown-name workflow[1].url: the template names `citi`, which is neither a step, "
            "a workload key nor a scope word (did you mean `city`?)"
        ),
        (
            "5:59 warning unknown-name workflow[1].headers.k: the template names `zzz`, which is neither a "
            "step, a workload key nor a scope word (give it a default under `workload` if the payload brings it)"
        ),
        (
            "5:75 warning unknown-name workflow[1].headers.s: the template names `now`, which is neither a "
            "step, a workload key nor a scope word (write `now()`)"
        ),
    ]


def test_a_step_that_hides_a_word_is_warned_of() -> None:
    """A word of the scope, a workload key, a word of the worker."""
    source = """
    workload: {city: Paris}
    workflow:
      - {step: start, next: result}
      - {step: result, next: city}
      - {step: city, next: env}
      - {step: env}
    """
    assert findings_of(source) == [
        (
            "5:12 warning shadowed-name workflow[1].step: templates find the result of the step `result` under its "
            "name, and no longer the result of the step just completed (rename the step)"
        ),
        (
            "6:12 warning shadowed-name workflow[2].step: templates find the result of the step `city` under its "
            "name, and no longer the workload key (rename the step, or write workload.city)"
        ),
        (
            "7:12 warning shadowed-name workflow[3].step: templates find the result of the step `env` under its "
            "name, and no longer the word of the worker (rename the step)"
        ),
    ]


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
def test_an_input_that_hides_the_element_is_warned_of(iterator: str, warned: bool) -> None:  # noqa: FBT001 - a case
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


def test_a_step_that_hides_a_word_of_a_retry_is_warned_of() -> None:
    """Only if a condition of the retry reads the word."""
    body = """
    workflow:
      - {step: start, next: error}
      - {step: error, type: http, url: u, next: a}
      - {step: a, type: http, url: u, retry: {stop_when: attempt > 2, retry_when: "'busy' in error"}}
    """
    assert findings_of(body) == [
        (
            "5:79 warning shadowed-name workflow[2].retry.retry_when: the step `error` hides the word of that name in "
            "`retry_when` (rename the step)"
        )
    ]


def test_a_loop_without_a_conditional_way_out_is_warned_of() -> None:
    """It would run to the visit limit."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: http, url: x, next: b}
      - {step: b, type: http, url: x, next: a}
    """
    assert findings_of(source) == [
        (
            "4:12 warning endless-loop workflow[1].step: the loop a → b → a has no conditional way out (give "
            'one of its steps a `when`, such as {when: "{{ … }}", step: …})'
        ),
    ]


def test_a_loop_of_routers_is_warned_of() -> None:
    """One token would enter a router twice in a turn."""
    source = """
    workload: {x: 1}
    workflow:
      - {step: start, next: a}
      - {step: a, next: {when: "{{ x }}", step: b}}
      - {step: b, next: a}
    """
    assert findings_of(source) == [
        (
            "5:12 warning router-ring workflow[1].step: the loop a → b → a has only routers (add a step with "
            "an action to it)"
        ),
    ]


def test_two_arcs_that_give_a_join_one_input_are_warned_of() -> None:
    """One of the two values would be lost."""
    source = """
    workflow:
      - {step: start, next: [a, b]}
      - {step: a, type: http, url: x, next: {step: c, args: {k: 1}}}
      - {step: b, type: http, url: x, next: {step: c, args: {k: 2}}}
      - {step: c, type: http, url: x}
    """
    assert findings_of(source) == [
        (
            "6:12 warning join-input workflow[3].step: the join `c` gets the input `k` from `a` and `b`: the "
            "later arc wins (give the two different names)"
        ),
    ]


def test_names_that_a_stronger_level_gives_are_known() -> None:
    """An input of a step reads inputs of transitions, a task reads inputs of its step."""
    source = """
    workflow:
      - {step: start, next: [{step: a, args: {city: Oslo, deep: {n: 1}}}]}
      - {step: a, type: http, url: "{{ own }}", with: {own: "{{ city }}", n: ["{{ args.deep.n + deep.n }}"]}, next: b}
      - step: b
        type: iterator
        collection: [1]
        element: n
        distribute: true
        args: {rows: 1}
        task: {type: http, url: "{{ rows }}", args: {x: "{{ rows + n }}", y: "{{ city }}"}}
    """
    assert findings_of(source) == [
        (
            "11:74 warning unknown-name workflow[2].task.args.y: the template names `city`, which is neither a step, "
            "a workload key nor a scope word (give it a default under `workload` if the payload brings it)"
        ),
    ]


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


def test_a_template_that_mixes_visits_of_an_each_join_is_warned_of() -> None:
    """It reads the latest of all visits."""
    source = """
    workflow:
      - {step: start, next: [a, b]}
      - {step: a, type: http, url: x, next: c}
      - {step: b, type: http, url: x, next: c}
      - {step: c, type: http, url: x, join: each, next: d}
      - {step: d, type: http, url: "{{ c.url }}"}
    """
    assert findings_of(source) == [
        (
            "7:32 warning mixed-visits workflow[4].url: `c` is visited once per arrival, and this template "
            "reads the latest of all visits (read `result`, or hand the value on as an input)"
        ),
    ]


def test_a_python_step_without_code_is_a_router_with_a_warning() -> None:
    """It has no action."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: python}
    """
    assert findings_of(source) == [
        (
            "4:5 warning no-code workflow[1]: the python step `a` has no code, so it runs nothing (give it "
            "`code`, or remove its type)"
        ),
    ]


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


def test_unused_keys_are_warned_of() -> None:
    """`result` on another step than `end`, or `save` without a worker. Each is reported once."""
    source = """
    workflow:
      - {step: start, next: a, sink: {data: 1}}
      - {step: a, type: playbook, path: p, save: {storage: event}, result: 1}
    """
    assert findings_of(source) == [
        (
            "3:28 warning unused-key workflow[0].sink: `sink` of step `start` has no effect, because no worker "
            "runs the step (add a step that saves)"
        ),
        (
            "4:40 warning unused-key workflow[1].save: `save` of step `a` has no effect, because no worker "
            "runs the step (add a step that saves)"
        ),
        "4:64 warning unused-key workflow[1].result: `result` of step `a` is not read (only `end` has one)",
    ]


def test_keys_of_steps_on_a_workbook_action_are_warned_of() -> None:
    """Keys such as `next`, reported once for any number of steps."""
    source = """
    workbook:
      - {name: w, type: http, url: x, next: b, join: any, retry: 2}
    workflow:
      - {step: start, next: a}
      - {step: a, type: workbook, task: w, next: b}
      - {step: b, type: workbook, task: w}
    """
    assert findings_of(source) == [
        (
            "3:35 warning unused-key workbook[0].next: `next` of the workbook action `w` is not read "
            "(write it on the step that calls it)"
        ),
        (
            "3:44 warning unused-key workbook[0].join: `join` of the workbook action `w` is not read "
            "(write it on the step that calls it)"
        ),
    ]


def test_an_element_that_hides_a_word_is_warned_of() -> None:
    """A key without effect in `loop` is too."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: http, url: x, loop: {collection: [1], element: result, colour: 1}}
    """
    assert findings_of(source) == [
        (
            "4:68 warning shadowed-name workflow[1].loop.element: the element `result` of the iterator `a` "
            "hides the scope word of that name (choose another name)"
        ),
        (
            "4:76 warning unknown-key workflow[1].loop.colour: unknown key `colour` in `loop` "
            "(known are: chunk, collection, concurrency, distribute, element, enumerate, limit, mode, "
            "on_error, order_by, task, tolerate, where)"
        ),
    ]


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


def test_a_loop_back_to_a_join_gives_no_input_twice() -> None:
    """One token of `start` and `w` passes the join and comes back."""
    source = """
    workflow:
      - {step: start, next: [w, j]}
      - {step: w, type: http, url: u, next: [{step: j, args: {k: 1}}]}
      - {step: j, type: http, url: u, next: r}
      - {step: r, type: http, url: u, next: [{when: "r.again", step: j, args: {k: 2}}]}
    """
    assert findings_of(source) == []


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


def test_an_end_with_a_next_has_no_warning_of_a_loop() -> None:
    """It has an error."""
    source = """
    workload: {x: 1}
    workflow:
      - {step: start, next: a}
      - {step: a, type: http, url: x, next: [{when: "{{ x }}", step: b}, {else: [end]}]}
      - {step: b, type: http, url: x, next: a}
      - {step: end, next: a}
    """
    assert findings_of(source) == [
        "7:23 error end-with-next workflow[3].next: `end` has a `next` (remove it, or rename the step)",
    ]

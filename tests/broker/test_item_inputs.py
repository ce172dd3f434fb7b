"""Inputs of each item of an iterator: three levels, `result`, limits and deferred strings."""

from __future__ import annotations

import pytest

from noetl_broker.broker.model.decision import Decision, JobRow
from noetl_broker.broker.model.effects import ChildStarted
from noetl_broker.broker.model.values import JSON
from noetl_broker.history.story import play_turns, read_events
from noetl_broker.playbook import PlaybookError
from tests.stories import assert_story, playbook

ITERATOR = """
workflow:
- {{step: start, next: [{{step: each, args: {{tone: loud, of: transition}}}}]}}
- step: each
  type: iterator
  collection: [1, 2]
  element: n
  args: {{of: step, own: "{{{{ tone }}}}"}}
  {task}, args: {{n: "{{{{ n }}}}", of: task, said: "{{{{ own }}}}"}}}}
"""
LOOP = """
workbook: [{{name: act, type: python, code: x, args: {{of: action, base: "{{{{ n }}}}"}}}}]
workflow:
- {{step: start, next: [{{step: each, args: {{of: transition}}}}]}}
- {{step: each, {task}, args: {{n: "{{{{ n }}}}", of: step}}, loop: {{collection: [1, 2], element: n{more}}}}}
"""


def decisions_of(body: str, *events: str) -> list[Decision]:
    """Return the decisions of a story."""
    text = "\n".join(["> execution_start", *events])
    return [decision for _, decision, _ in play_turns(playbook(body), read_events(text))]


def items_of(decision: Decision) -> list[JSON]:
    """Return the inputs of the children or jobs of items."""
    jobs = [job.action.get("args") for job in decision.jobs if job.item_index is not None]
    return [child.payload for child in decision.of(ChildStarted)] + jobs


@pytest.mark.parametrize(
    "body, second",
    [
        (ITERATOR.format(task="task: {type: playbook, path: p"), "execution_complete"),
        (ITERATOR.format(task="distribute: true\n  task: {type: python, code: x"), "action_completed"),
    ],
)
def test_the_inputs_of_a_task_are_over_those_of_its_step(body: str, second: str) -> None:
    """In the first and later turns. A child reads nothing else of its parent."""
    first, later = decisions_of(body, f"> {second} each[0] 1")
    rest = {"tone": "loud", "of": "task", "own": "loud", "said": "loud"}
    assert [items_of(first), items_of(later)] == [[{**rest, "n": 1}], [{**rest, "n": 2}]]


@pytest.mark.parametrize(
    "task, more, second, given",
    [
        ("type: playbook, path: p", "", "execution_complete", {"of": "transition"}),
        ("type: python, code: x", ", distribute: true", "action_completed", {"of": "transition"}),
        (
            "type: workbook, task: act",
            ", distribute: true",
            "action_completed",
            {"of": "transition", "base": "later"},
        ),
    ],
)
def test_the_inputs_of_a_loop_are_those_of_its_step(task: str, more: str, second: str, given: dict[str, JSON]) -> None:
    """Workbook action under step under transition."""
    first, later = decisions_of(LOOP.format(task=task, more=more), f"> {second} each[0] 1")
    expected = [{key: n if item == "later" else item for key, item in given.items()} | {"n": n} for n in (1, 2)]
    assert [*items_of(first), *items_of(later)] == expected


@pytest.mark.parametrize(
    "task", ['type: playbook, path: p, args: {x: "{{ result.y }}{{ n }}"}', 'type: http, url: "{{ result.y }}{{ n }}"']
)
def test_every_item_reads_the_result_that_its_step_was_given(task: str) -> None:
    """Items that start in later turns too."""
    body = f"""
    workflow:
    - {{step: start, next: find}}
    - {{step: find, type: python, code: x, next: each}}
    - {{step: each, {task}, loop: {{collection: "{{{{ result.all }}}}", element: n, distribute: true}}}}
    """
    ended = "execution_complete" if "playbook" in task else "action_completed"
    *_, first, later = decisions_of(body, '> action_completed find {"y": "a", "all": [1, 2]}', f"> {ended} each[0] 1")
    found = [child.payload["x"] for turn in (first, later) for child in turn.of(ChildStarted)]
    assert found + [
        job.action["url"] for turn in (first, later) for job in turn.jobs if job.item_index is not None
    ] == [
        "a1",
        "a2",
    ]


def job_of_item(task: str, *, step: str = "", metadata: str = "") -> JobRow:
    """Return the job of the only item of a distributed iterator."""
    body = f"""
    workflow:
    - {{step: start, next: a}}
    - {{step: a, type: iterator, distribute: true, collection: [1], element: n, task: {{{task}}}{step}}}
    """
    compiled = playbook(body, metadata=metadata)
    [(_, decision, _)] = play_turns(compiled, read_events("> execution_start"))
    [job] = [job for job in decision.jobs if job.item_index is not None]
    return job


@pytest.mark.parametrize(
    "task, step, metadata, limits",
    [
        ("", "", "", (5, None)),
        ("", "", "priority: 2", (2, None)),
        ("", ", priority: 7", "priority: 2", (7, None)),
        (", priority: 9, timeout: 3", ", priority: 7, timeout: 60", "priority: 2", (9, 3)),
    ],
)
def test_the_job_of_an_item_has_its_priority_and_timeout(
    task: str, step: str, metadata: str, limits: tuple[int, float | None]
) -> None:
    """The priority of the task, else step, else playbook. The timeout is the task's."""
    job = job_of_item(f"type: python, code: x{task}", step=step, metadata=metadata)
    assert (job.priority, job.timeout) == limits


def test_the_context_of_an_items_job_has_the_element_for_deferred_strings() -> None:
    """Those read it or a deferred input."""
    job = job_of_item(
        'type: http, url: "{{ k }}/{{ n }}", headers: {at: "{{ env.A }}{{ _loop.index }}", plain: "{{ n }}"}'
        ', args: {k: "{{ env.K }}"}'
    )
    assert job.action["headers"]["plain"] == 1
    assert job.action["unfinished"] == [["url"], ["headers", "at"], ["args", "k"]]
    assert job.context["words"] == {"n": 1, "_loop": {"index": 0, "count": 1, "item": 1}}


def test_a_loop_that_reads_its_other_inputs_keeps_a_deferred_one() -> None:
    """It is a template in the job of each item."""
    body = """
    workflow:
    - {step: start, next: s}
    - step: s
      type: http
      url: u
      args: {t: "{{ secret.t }}", mode: fast}
      loop: {collection: [1], element: n, distribute: true}
      next: [{when: "{{ args.mode == 'fast' }}", step: end}]
    - {step: end}
    """
    [turn] = decisions_of(body)
    [job] = [job for job in turn.jobs if job.item_index is not None]
    assert job.action["args"] == {"t": "{{ secret.t }}", "mode": "fast"}
    assert job.action["unfinished"] == [["args", "t"]]


@pytest.mark.parametrize(
    "steps",
    [
        'a, type: playbook, path: p, args: {deep: [{k: "{{ env.K }}"}]}',
        'a, type: playbook, path: p, args: {k: "{{ workload.w }}"}',
        'a, type: iterator, collection: [1], element: n, task: {type: playbook, path: p, args: {k: "{{ secret.s }}"}}',
        'a, type: playbook, path: p, args: {k: "{{ env.K }}"}, loop: {collection: [1], element: n}',
        'a, type: iterator, collection: "{{ w }}", distribute: true, element: n, task: {type: http, url: x}',
        "a, type: iterator, collection: [1], where: n == w, distribute: true, element: n, task: {type: http, url: x}",
    ],
)
def test_a_child_gets_no_deferred_string(steps: str) -> None:
    """Registration refuses it, and a deferred collection too."""
    body = f"""
    workload: {{w: "{{{{ env.W }}}}"}}
    workflow:
    - {{step: start, next: a}}
    - {{step: {steps}}}
    """
    with pytest.raises(PlaybookError) as refused:
        playbook(body)
    assert {finding.code for finding in refused.value.findings} <= {"worker-word", "deferred-read"}


def test_the_item_may_select_its_child() -> None:
    """`path`, `version` and `return_step` are templates of the item."""
    assert_story(
        """
        workflow:
        - {step: start, next: each}
        - step: each
          type: iterator
          mode: async
          collection: [a, b]
          element: n
          task:
            type: playbook
            path: "p/{{ n }}"
            version: "{{ _loop.index + 1 }}"
            return_step: "{{ n }}"
            args: "{{ {n: 1} }}"
        """,
        """
        > execution_start
            event step_started each
            event iterator_started each {"total": 2}
            event iteration_started each {"index": 0}
            event iteration_started each {"index": 1}
            child each[0] p/a {"a": 1}
            child each[1] p/b {"b": 1}
        """,
    )


@pytest.mark.parametrize(
    "task, ended",
    [("type: playbook, path: p", "execution_complete"), ("type: python, code: x, distribute: true", "")],
)
@pytest.mark.parametrize("given", ["", ", args: {mode: late}"])
def test_the_collection_and_the_next_of_a_loop_read_its_own_inputs(task: str, ended: str, given: str) -> None:
    """Once, if they name neither the element nor `_loop`. A transition may override them."""
    loop = "collection: '{{ rows }}', where: 'r != skip', element: r"
    if not ended:
        task, loop = task.removesuffix(", distribute: true"), f"{loop}, distribute: true"
    body = f"""
    workload: {{list: [1, 2, 3], skip: 9, n: outside}}
    workflow:
    - {{step: start, next: [{{step: each{given}}}]}}
    - step: each
      {task.replace(", ", chr(10) + "      ")}
      args: {{rows: "{{{{ workload.list }}}}", skip: 2, mode: fast, n: "{{{{ r }}}}", r: over}}
      loop: {{{loop}}}
      next: [{{step: done, args: {{seen: "{{{{ mode }}}} {{{{ n }}}} {{{{ args.rows | length }}}}"}}}}]
    - {{step: done, type: python, code: x}}
    """
    end = ended or "action_completed"
    first, second, *_, last = decisions_of(
        body, f"> {end} each[0] 1", f"> {end} each[1] 1", "> iterator_completed each [1, 1]"
    )
    mode = "late" if given else "fast"
    items = [{"rows": [1, 2, 3], "skip": 2, "mode": mode, "n": n, "r": "over"} for n in (1, 3)]
    assert [*items_of(first), *items_of(second)] == items
    assert [job.action["args"] for job in last.jobs] == [{"seen": f"{mode} outside 3"}]


def test_each_item_renders_its_own_inputs() -> None:
    """With functions too, and with one template for all inputs that names the item."""
    looped = "type: playbook, path: p, args: %s, loop: {collection: [1, 2], element: n, mode: async}"
    body = "workflow: [{step: start, next: a}, {step: a, %s}]"
    [turn] = decisions_of(body % (looped % '{id: "{{ uuid() }}"}'))
    assert len({child.payload["id"] for child in turn.of(ChildStarted)}) == 2
    [turn] = decisions_of(body % (looped % "\"{{ {'n': n} }}\""))
    assert [child.payload for child in turn.of(ChildStarted)] == [{"n": 1}, {"n": 2}]


BY_THE_BROKER = ["type: playbook, path: p", "type: python, code: x, distribute: true"]


def looping(task: str, *, args: str, loop: str, after: str = "", workload: str = "{}") -> str:
    """Return a workflow whose step `each` repeats the task in a loop."""
    task, distribute = task.removesuffix(", distribute: true"), str("distribute" in task).lower()
    return f"""
    workload: {workload}
    workflow:
    - {{step: start, next: [{{step: each, args: {{mode: late}}}}]}}
    - step: each
      {task.replace(", ", chr(10) + "      ")}
      args: {args}
      loop: {{{loop}, distribute: {distribute}}}
      {after}
    """


@pytest.mark.parametrize("task", BY_THE_BROKER)
@pytest.mark.parametrize("after", ["", "next: [{when: '{{ each | length > skip }}', step: each}]"])
def test_a_loop_without_items_needs_no_input_of_an_item(task: str, after: str) -> None:
    """It completes with `[]`. Inputs that only items read are not rendered."""
    args = '{first: "{{ workload.rows[0].id }}", i: "{{ n }}", skip: 9}'
    body = looping(
        task, args=args, loop='collection: "{{ workload.rows }}", element: n', workload="{rows: []}", after=after
    )
    first, *_, last = decisions_of(body, "> iterator_completed each []")
    assert [event.type for event in first.events] == ["step_started", "iterator_started"]
    assert last.ended is not None
    assert (last.ended.status, last.ended.result) == ("COMPLETED", [])


@pytest.mark.parametrize("task", BY_THE_BROKER)
@pytest.mark.parametrize("where", ["", ', where: "city != n"'])
def test_the_inputs_of_a_loop_cannot_read_each_other(task: str, where: str) -> None:
    """They read inputs of the transition and the workload."""
    args = (
        '{city: "{{ workload.city | upper }}", label: "{{ city }}-{{ n }}", other: "{{ city }}", all: "{{ args }}",'
        ' mode: fast, of: "{{ mode }}-{{ n }}"}'
    )
    body = looping(task, args=args, loop=f"collection: [1, 2], element: n{where}", workload="{city: paris}")
    second = "execution_complete" if "playbook" in task else "action_completed"
    first, later = decisions_of(body, f"> {second} each[0] 1")
    rest = {"city": "PARIS", "other": "paris", "mode": "late", "all": {"mode": "late"}}
    expected = [{**rest, "label": f"paris-{n}", "of": f"late-{n}"} for n in (1, 2)]
    assert [*items_of(first), *items_of(later)] == expected

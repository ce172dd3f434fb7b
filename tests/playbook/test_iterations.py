"""The compiled form of iterators and playbook steps."""

from __future__ import annotations

import pytest

from noetl_broker.playbook.model import Iteration, Step
from tests.playbook.documents import compiled, findings_of
from tests.template.evaluating import scope_with


def iterating(text: str) -> tuple[Step, Iteration]:
    """Compile one iterator step, with a workbook beside it."""
    step = compiled(f"""
    workload: {{cities: []}}
    workbook: [{{name: fetch, type: http, url: "{{{{ city }}}}", with: {{a: 1}}}}]
    workflow:
      - {{step: start, next: a}}
      - {{step: a, {text}}}
    """).steps["a"]
    assert step.iteration is not None
    return step, step.iteration


def test_an_iterator_over_a_playbook_is_expanded() -> None:
    """The broker starts a child for each item. Inputs of the task read the element."""
    step, iteration = iterating(
        "type: iterator, collection: '{{ workload.cities }}', element: city, mode: async, concurrency: 3, "
        "on_error: continue, where: city.ok, order_by: '{{ city.n }}', limit: 5, chunk: '{{ 2 }}', enumerate: true, "
        "args: {b: 2}, task: {type: playbook, path: 'p/{{ city.name }}', return_step: last, args: {c: '{{ city }}'}}"
    )
    assert iteration.expanded
    assert (iteration.element, iteration.mode, iteration.concurrency) == ("city", "async", 3)
    assert (iteration.on_error, iteration.enumerate) == ("continue", True)
    assert iteration.where is not None
    assert iteration.order_by is not None
    assert iteration.limit is not None
    assert iteration.chunk is not None
    assert iteration.task.kind == "playbook"
    assert iteration.task.call is not None
    assert iteration.task.call.path.names == {"city"}
    assert iteration.task.inputs.keys["c"].names == {"city"}
    assert [*step.inputs.keys] == ["b"]
    assert not step.fields.parts


def test_one_worker_repeats_any_other_task() -> None:
    """Templates that read the element stay templates in its one job. Program text is never rendered."""
    step, iteration = iterating(
        "type: iterator, collection: '{{ workload.cities }}', element: city, mode: parallel, "
        "task: {type: python, code: '{{ no }}', args: {x: '{{ city }}'}, "
        "save: {data: {y: '{{ result }}', z: '{{ workload }}'}}}"
    )
    assert not iteration.expanded
    assert (iteration.mode, iteration.concurrency) == ("async", 8)
    assert [*step.fields.parts] == ["collection", "element", "mode", "task"]
    assert step.plain == {"task": {"code": "{{ no }}"}}
    assert step.fields.names == {"workload"}
    assert iteration.task.type == "python"


def test_the_task_of_a_worker_has_its_workbook_action() -> None:
    """A worker does not know the workbook. A task may be a name."""
    step, iteration = iterating("type: iterator, collection: [1], element: city, task: fetch")
    assert step.fields.constant is False
    task = step.fields.parts["task"].render(scope_with())
    given = {"args": {"a": 1}, "with": {"a": 1}}
    assert task == {"name": "fetch", "type": "http", "task": "fetch", "url": "{{ city }}", **given}
    assert iteration.task.task_name == "fetch"


def test_a_loop_repeats_its_step() -> None:
    """The step is the task. A worker gets the loop with it."""
    step, iteration = iterating(
        "tool: http, url: '{{ city }}', args: {x: '{{ city.id }}'}, loop: {collection: workload.cities, element: city}"
    )
    assert not iteration.expanded
    assert (iteration.mode, iteration.concurrency) == ("sequential", 1)
    assert iteration.collection.names == {"workload"}
    assert [*step.fields.parts] == ["url", "loop"]
    assert step.fields.names == {"workload"}
    assert step.inputs.keys["x"].names == frozenset()


@pytest.mark.parametrize("own", ["", ", loop: {collection: [2], element: n}", ", loop: null"])
def test_a_loop_in_the_workbook_repeats_each_step_that_calls_it(own: str) -> None:
    """A loop of the step replaces it. The job has the loop as templates."""
    step = compiled(f"""
    workbook: [{{name: w, type: http, url: "{{{{ n }}}}", loop: {{collection: workload.ns, element: n, mode: async}}}}]
    workload: {{ns: []}}
    workflow: [{{step: start, next: a}}, {{step: a, type: workbook, task: w{own}}}]
    """).steps["a"]
    whose, mode = ("workflow[1]", "sequential") if "[2]" in own else ("workbook[0]", "async")
    assert step.iteration is not None
    assert (step.iteration.collection.at, step.iteration.mode) == (f"{whose}.loop.collection", mode)
    assert step.fields.parts["loop"].at == f"{whose}.loop"
    assert ("workload" in step.fields.names) is (mode == "async")
    assert "loop" not in step.plain


@pytest.mark.parametrize("word", ["name", "task"])
def test_an_iterator_in_the_workbook_has_its_expressions_as_templates(word: str) -> None:
    """As in the workflow: a worker evaluates no bare expression. Either word may call it."""
    step = compiled(f"""
    workload: {{ns: [1]}}
    workbook:
      - {{name: w, type: iterator, collection: workload.ns, element: n, task: {{type: http, url: "{{{{ n }}}}"}}}}
    workflow: [{{step: start, next: a}}, {{step: a, type: workbook, {word}: w}}]
    """).steps["a"]
    assert step.fields.parts["collection"].names == {"workload"}
    assert step.fields.parts["task"].deferred == (("url",),)


def test_an_iterator_in_the_workbook_over_a_playbook_is_called_by_task() -> None:
    """`task` of the step is the call; `task` of the action is repeated."""
    step = compiled("""
    workbook: [{name: w, type: iterator, collection: [1], element: n, task: {type: playbook, path: p}}]
    workflow: [{step: start, next: a}, {step: a, type: workbook, task: w}]
    """).steps["a"]
    assert step.iteration is not None
    assert (step.iteration.expanded, step.task_name) == (True, "w")


@pytest.mark.parametrize("task", ["n", "[a, b]", "3"])
def test_the_inputs_of_the_task_of_a_worker_are_a_mapping(task: str) -> None:
    """Or one template without the element, which the broker renders."""
    body = f"""
    workflow:
      - {{step: start, next: a}}
      - {{step: a, type: iterator, collection: [1], element: n, task: {{type: http, url: x, args: {task}}}}}
    """
    [error] = findings_of(body.replace("args: n", 'args: "{{ n }}"'))
    assert error.startswith(
        "4:93 error worker-word workflow[1].task.args: `args` is one template, and only a worker "
        if task == "n"
        else "4:93 error bad-inputs workflow[1].task.args: `args` is a "
    )


def test_an_action_with_a_loop_cannot_be_the_task_of_an_iterator() -> None:
    """A task with a `loop` cannot either. An error of the workbook is reported once."""
    body = """
    workbook:
      - {name: w, type: http, url: x, loop: {collection: [1], element: n, modes: async}}
      - {name: v, type: http, url: x, loop: 3}
    workflow:
      - {step: start, type: iterator, collection: [1], element: n, task: w, next: [a, b]}
      - {step: a, type: workbook, task: w}
      - {step: b, type: workbook, task: v}
    """
    looping, number, nested = findings_of(body)
    assert looping.startswith("3:71 error unknown-key workbook[0].loop.modes: unknown key `modes` in `loop`")
    assert number.startswith("4:41 error bad-iterator workbook[1].loop: the iterator `b` has a `loop` that is a number")
    assert nested.startswith("6:70 error bad-iterator workflow[0].task: the iterator `start` has a task that iterates")


def test_distribute_makes_a_job_of_each_item() -> None:
    """The broker renders the task for each item."""
    step, iteration = iterating(
        "tool: http, url: '{{ city }}', loop: {collection: [1], element: city, distribute: true}"
    )
    assert iteration.expanded
    assert iteration.distribute
    assert iteration.task.kind == "action"
    assert iteration.task.fields.names == {"city"}
    assert iteration.task.plain == {}
    assert not step.fields.parts


def test_a_loop_over_a_playbook_is_expanded() -> None:
    """Its inputs are those of each child."""
    step, iteration = iterating(
        "type: playbook, path: p, args: {x: '{{ city }}'}, loop: {collection: [1], element: city}"
    )
    assert iteration.expanded
    assert iteration.task.inputs.keys["x"].names == {"city"}
    assert step.inputs.empty
    assert step.call is None


def test_a_playbook_step_has_path_version_and_return_step() -> None:
    """Path and version may be templates."""
    call = compiled("""
    workload: {p: x}
    workflow:
      - {step: start, type: playbook, path: "{{ p }}", version: 3, return_step: last}
    """).start.call
    assert call is not None
    assert call.path.names == {"p"}
    assert call.version is not None
    assert call.return_step is not None


def test_keys_without_effect_on_an_iterator_are_warned_of() -> None:
    """Unused keys, and an element that a step of its name hides."""
    body = """
    workflow:
      - step: start
        type: iterator
        collection: [1]
        element: end
        concurrency: 4
        retry: 2
        task: {type: playbook, path: p, next: end, retry: 3, on_error: continue}
        next: end
      - {step: end, type: http, url: "{{ n }}", retry: 2, loop: {collection: [1], element: n, concurrency: 1}}
    """
    assert [line.partition(": ")[0] for line in findings_of(body)] == [
        "6:14 warning shadowed-name workflow[0].element",
        "7:5 warning unused-key workflow[0].concurrency",
        "8:5 warning unused-key workflow[0].retry",
        "9:37 warning unused-key workflow[0].task.next",
        "9:58 warning unused-key workflow[0].task.on_error",
    ]


def test_an_input_that_names_the_element_is_not_known_after_the_loop() -> None:
    """Each item has its own; the step has none."""
    warning, another = findings_of("""
    workload: {rows: [1]}
    workflow:
      - {step: start, next: a}
      - step: a
        type: playbook
        path: p
        args: {mode: fast, of: "{{ n }}"}
        loop: {collection: "{{ rows if mode else of }}", element: n}
        next: {step: b, args: {x: "{{ of }}{{ mode }}"}}
      - {step: b, type: python, code: x}
    """)
    assert "warning unknown-name workflow[1].loop.collection: " in warning
    assert "warning unknown-name workflow[1].next.args.x: " in another
    assert "`of`" in warning
    assert "`of`" in another

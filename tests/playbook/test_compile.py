"""The compiled form of a document: steps, transitions, workbook, workload."""

from __future__ import annotations

import pytest

from noetl_broker.playbook import PlaybookError, PlaybookRules, compile_playbook
from noetl_broker.template import JSON
from tests.playbook.documents import compiled, findings_of


def step(body: str, name: str = "a", rules: PlaybookRules | None = None) -> object:
    """Compile a document and return one step."""
    return compiled(body, rules or PlaybookRules()).steps[name]


def test_a_playbook_has_its_name_path_and_limits() -> None:
    """Name, path, limits, workload in key order, and the document itself."""
    playbook = compile_playbook(
        "apiVersion: noetl.io/v1\nkind: Playbook\n"
        "metadata: {path: a/b, max_visits: 9, deadline: 60, priority: 3}\n"
        "spec: {z: 1, y: '{{ z }}'}\nsteps: [{name: start}]\n",
        rules=PlaybookRules(),
    )
    assert (playbook.name, playbook.path) == ("b", "a/b")
    assert (playbook.max_visits, playbook.deadline, playbook.priority) == (9, 60.0, 3)
    assert [*playbook.workload] == ["z", "y"]
    assert playbook.workload["y"].names == {"z"}
    assert playbook.document["kind"] == "Playbook"
    assert playbook.end is None
    assert playbook.start.name == "start"


def test_old_files_have_name_and_path_at_the_top() -> None:
    """A path alone gives the name; a name alone gives the path."""
    text = "apiVersion: noetl.io/v1\nkind: Playbook\nname: x\nworkflow: [{step: start}]\n"
    playbook = compile_playbook(text, rules=PlaybookRules())
    assert (playbook.name, playbook.path) == ("x", "x")


def test_the_error_shows_the_first_finding_and_the_count() -> None:
    """The exception has all findings."""
    with pytest.raises(PlaybookError) as caught:
        compiled("workflow: [{step: start, next: [x, y]}]")
    assert str(caught.value) == "<catalog>:4:33: there is no step `x` (and 1 more error)"
    assert [found.code for found in caught.value.findings] == ["unknown-step", "unknown-step"]


def test_warnings_do_not_prevent_compiling() -> None:
    """Only errors do."""
    assert compiled("workflow: [{step: start, colour: red}]").start.kind == "start"


@pytest.mark.parametrize(
    "text, kind, resolved",
    [
        ("{step: a}", "router", "route"),
        ("{step: a, type: noop}", "router", "noop"),
        ("{step: a, type: router}", "router", "router"),
        ("{step: a, type: python}", "router", "python"),
        ("{step: a, tool: python, code: x}", "action", "python"),
        ("{step: a, type: python, code_b64: eA==}", "action", "python"),
        ("{step: a, type: python, script: {path: x.py}}", "action", "python"),
        ("{step: a, type: container, image: x}", "action", "container"),
        ("{step: a, type: playbook, path: p}", "playbook", "playbook"),
        ("{step: a, type: workbook, task: fetch}", "action", "http"),
        ("{step: a, type: workbook, name: fetch}", "action", "http"),
        ("{name: a, type: workbook, task: fetch}", "action", "http"),
        ("{step: a, type: workbook, task: child}", "playbook", "playbook"),
        ("{step: a, type: dbt, models: all}", "action", "dbt"),
    ],
)
def test_a_type_says_who_runs_a_step(text: str, kind: str, resolved: str) -> None:
    """A workbook step has the type of its action."""
    body = f"""
    workbook:
      - {{name: fetch, type: http, url: x}}
      - {{name: child, tool: playbook, path: p}}
    workflow:
      - {{step: start, next: a}}
      - {text}
    """
    found = compiled(body, PlaybookRules(extra_step_types=frozenset({"dbt"}))).steps["a"]
    assert (found.kind, found.type) == (kind, resolved)


def test_start_and_end_may_have_an_action() -> None:
    """Without one they are control steps of their own type."""
    playbook = compiled("""
    workflow:
      - {step: start, type: postgres, command: select 1, next: end}
      - {step: end}
    """)
    assert (playbook.start.kind, playbook.start.type) == ("action", "postgres")
    assert playbook.end is not None
    assert (playbook.end.kind, playbook.end.type) == ("end", "end")


def test_fields_are_the_keys_that_the_broker_does_not_read() -> None:
    """Program text is separate, in `save` too. Inputs and `next` are no fields."""
    found = compiled("""
    workflow:
      - {step: start, next: a}
      - step: a
        type: postgres
        desc: text
        auth: pg
        command: "select {{ workload }}"
        code: "{{ never }}"
        args: {x: 1}
        retry: 2
        timeout: 3
        priority: 4
        save: {storage: {type: python, code: "{{ never }}"}, data: {y: "{{ result }}"}}
    """).steps["a"]
    assert [*found.fields.parts] == ["auth", "command", "save"]
    assert found.plain == {
        "code": "{{ never }}",
        "save": {"storage": {"code": "{{ never }}"}},
        "desc": "text",
        "retry": 2,
        "timeout": 3,
        "priority": 4,
    }
    assert found.fields.names == {"workload"}
    assert (found.timeout, found.priority, found.description) == (3.0, 4, "text")


def test_strings_of_a_save_that_name_result_or_data_are_deferred() -> None:
    """They are the worker's in `save`. Elsewhere `result` is the completed step."""
    found = compiled("""
    workflow:
      - {step: start, next: a}
      - step: a
        type: http
        url: "{{ result.url }}"
        sink: {tool: postgres, statement: "insert {{ data.x }} {{ start }}", args: {y: "{{ this }}"}}
    """).steps["a"]
    assert found.fields.names == {"result"}
    assert found.fields.worker_names == {"start"}


def test_keys_of_a_step_replace_those_of_its_workbook_action() -> None:
    """Fields, inputs, retry and time limit."""
    playbook = compiled("""
    workbook:
      - {name: fetch, type: http, url: x, method: GET, with: {a: 1, b: 2}, retry: 4, save: {table: t},
         on_error: continue}
    workflow:
      - {step: start, next: a}
      - {step: a, type: workbook, task: fetch, method: POST, args: {b: 3}, sink: {table: u}}
    """)
    found = playbook.steps["a"]
    assert found.fields.constant
    assert {key: tree.fixed for key, tree in found.fields.parts.items()} == {
        "url": "x",
        "method": "POST",
        "sink": {"table": "u"},
    }
    assert {key: tree.at for key, tree in found.inputs.keys.items()} == {
        "a": "workbook[0].with.a",
        "b": "workflow[1].args.b",
    }
    assert found.inputs.aliases == {"with": ("a", "b"), "args": ("b",)}
    assert found.retry is not None
    assert found.retry.max_attempts == 4
    assert (found.on_error, found.task_name) == ("continue", "fetch")
    assert [(action.name, action.type) for action in playbook.workbook] == [("fetch", "http")]


@pytest.mark.parametrize(
    "action, own, parts, plain",
    [
        ("sql: a", "command: b", {"command": "b"}, {}),
        ("command: a", "sql: b", {"sql": "b"}, {}),
        ("command_b64: YQ==", "sql: b", {"sql": "b"}, {}),
        ("sql: a", "command_b64: Yg==", {}, {"command_b64": "Yg=="}),
        ("sql: a", "commands: [b]", {"sql": "a", "commands": ["b"]}, {}),
        ("sql: a", "command: null", {"sql": "a", "command": None}, {}),
    ],
)
def test_the_program_text_of_a_step_replaces_that_of_its_action_under_any_word(
    action: str, own: str, parts: dict[str, JSON], plain: dict[str, JSON]
) -> None:
    """A job has one program text."""
    step = compiled(f"""
    workbook: [{{name: w, type: postgres, {action}}}]
    workflow: [{{step: start, type: workbook, task: w, {own}}}]
    """).start
    rendered = {key: tree.fixed for key, tree in step.fields.parts.items()}
    assert (rendered, {key: value for key, value in step.plain.items() if key != "task"}) == (parts, plain)


def test_an_http_timeout_in_the_workbook_limits_the_request_only() -> None:
    """On the step it limits the attempt too."""
    body = """
    workbook: [{{name: fetch, type: http, url: x, timeout: 10}}]
    workflow:
      - {{step: start, next: a}}
      - {{step: a, type: workbook, task: fetch{}}}
    """
    plain, limited = compiled(body.format("")).steps["a"], compiled(body.format(", timeout: 5")).steps["a"]
    assert (plain.timeout, limited.timeout) == (None, 5.0)
    assert "timeout" in plain.fields.parts


def test_a_step_with_two_incoming_transitions_is_an_all_join() -> None:
    """With one transition it is no join; `end` needs its own `join`."""
    playbook = compiled("""
    workflow:
      - {step: start, next: [a, b, b]}
      - {step: a, next: [c, end]}
      - {step: b, next: [c, end]}
      - {step: c, join: any}
      - {step: end}
    """)
    assert {name: found.join for name, found in playbook.steps.items()} == {
        "start": None,
        "a": None,
        "b": "all",
        "c": "any",
        "end": None,
    }


def test_the_result_of_end_defaults_to_the_data_that_it_saves() -> None:
    """`save.data` or `sink.args`."""
    end = compiled("""
    workflow:
      - {step: start, next: end}
      - {step: end, result: {x: "{{ start }}"}, sink: {tool: event, args: {y: "{{ result }}"}}}
    """).steps["end"]
    assert end.result is not None
    assert end.result.names == {"start"}
    assert end.save_data is not None
    assert end.save_data.names == {"result"}
    assert end.save_data.at == "workflow[1].sink.args"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("true", (3, 1.0, 2.0, 60.0, True)),
        ("false", (1, 1.0, 2.0, 60.0, True)),
        ("5", (5, 1.0, 2.0, 60.0, True)),
        ("{initial_delay: 90s, max_delay: 2h}", (3, 90.0, 2.0, 7_200.0, True)),
        (
            "{max_attempts: 2, initial_delay: 0.5, backoff_multiplier: 1, max_delay: 9, jitter: false}",
            (2, 0.5, 1, 9, False),
        ),
    ],
)
def test_a_retry_has_four_forms(text: str, expected: tuple[object, ...]) -> None:
    """Missing keys have defaults."""
    retry = compiled(f"workflow: [{{step: start, type: http, url: x, retry: {text}}}]").start.retry
    assert retry is not None
    found = (retry.max_attempts, retry.initial_delay, retry.backoff_multiplier, retry.max_delay, retry.jitter)
    assert found == expected


@pytest.mark.parametrize("text, seconds", [("60", 60.0), ("24h", 86_400.0), ("P1D", 86_400.0)])
def test_a_deadline_is_a_duration(text: str, seconds: float) -> None:
    """A number is in seconds."""
    head = "apiVersion: noetl.io/v1\nkind: Playbook\n"
    source = f"{head}metadata: {{name: x, deadline: {text}}}\nworkflow: [{{step: start}}]\n"
    assert compile_playbook(source, rules=PlaybookRules()).deadline == seconds


def test_a_step_without_retry_follows_the_setting() -> None:
    """This differs from one attempt."""
    assert compiled("workflow: [{step: start, type: http, url: x}]").start.retry is None


def test_retry_conditions_see_the_error() -> None:
    """No warning names `error`, `error_type`, `status_code`, `result` or `attempt`."""
    text = "{retry_when: status_code >= 500 and attempt < 9, stop_when: error or error_type or result}"
    assert findings_of(f"workflow: [{{step: start, type: http, url: x, retry: {text}}}]") == []


def test_any_type_of_a_version_is_an_action() -> None:
    """Registration alone asks which types there are."""
    body = "workflow: [{step: start, next: a}, {step: a, type: dbt}]"
    assert compiled(body, PlaybookRules().of_registered()).steps["a"].kind == "action"
    with pytest.raises(PlaybookError, match="the type `dbt` is not known"):
        compiled(body)

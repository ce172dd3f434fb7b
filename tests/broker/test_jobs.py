"""Jobs: action, context, priority, attempts and timeout."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from noetl_broker.broker.model.decision import JobRow
from noetl_broker.broker.model.rules import Rules
from noetl_broker.history.story import play_turns, read_events
from tests.stories import playbook

START = "> execution_start"


def jobs_of(body: str, story: str = START, *, metadata: str = "", rules: Rules | None = None) -> list[JobRow]:
    """Return all jobs of the events of a story, in order."""
    turns = play_turns(playbook(body, metadata=metadata), read_events(story), rules=rules)
    return [job for _, decision, _ in turns for job in decision.jobs]


def job_of(step: str, *, workload: str = "{}", **more: Any) -> JobRow:
    """Return the job of the step after `start`; `step` has its keys in the flow style of YAML."""
    [job] = jobs_of(f"workload: {workload}\nworkflow:\n- {{step: start, next: s}}\n- {{step: s, {step}}}\n", **more)
    return job


def encoded(text: str) -> str:
    """Encode in base64."""
    return base64.b64encode(text.encode()).decode()


def test_an_action_has_every_key_of_the_step_but_next() -> None:
    """With name and type. Keys for the broker are copied as written."""
    job = job_of(
        "type: http, desc: d, url: u, method: GET, headers: {A: b}, auth: pg, custom: [1], timeout: 5, priority: 1, "
        "on_error: continue, join: all, next_mode: exclusive, retry: {max_attempts: 2, retry_when: '{{ status_code }}'}"
    )
    assert job.action == {
        "name": "s",
        "type": "http",
        "desc": "d",
        "url": "u",
        "method": "GET",
        "headers": {"A": "b"},
        "auth": "pg",
        "custom": [1],
        "timeout": 5,
        "priority": 1,
        "on_error": "continue",
        "join": "all",
        "next_mode": "exclusive",
        "retry": {"max_attempts": 2, "retry_when": "{{ status_code }}"},
        "unfinished": [],
    }


def test_a_field_is_rendered() -> None:
    """All strings of the field, with the inputs of the visit."""
    job = job_of(
        'type: http, url: "{{ base }}/{{ city }}", n: ["{{ n }}"], args: {city: Oslo}', workload="{base: b, n: 3}"
    )
    assert job.action == {
        "name": "s",
        "type": "http",
        "url": "b/Oslo",
        "n": [3],
        "args": {"city": "Oslo"},
        "unfinished": [],
    }


@pytest.mark.parametrize(
    "step, key, value",
    [
        ('type: python, code: "print({{ x }})"', "code_b64", encoded("print({{ x }})")),
        ('type: postgres, command: "select {{ n }}"', "command_b64", encoded("select 3")),
        ('type: postgres, commands: ["select {{ n }}", b]', "commands_b64", [encoded("select 3"), encoded("b")]),
        ('type: duckdb, commands: "select {{ n }}"', "commands_b64", encoded("select 3")),
        ("type: postgres, sql: \"select 'é'\"", "command_b64", encoded("select 'é'")),
        ("type: postgres, command: x, sql: null", "command_b64", encoded("x")),
        ("type: postgres, command_b64: eA==", "command_b64", "eA=="),
        ("type: container, command: [a, b]", "command_b64", [encoded("a"), encoded("b")]),
    ],
)
def test_program_text_is_encoded_in_base64(step: str, key: str, value: Any) -> None:
    """The plain key is dropped. `code` is never rendered, other program texts are."""
    assert job_of(step, workload="{n: 3}").action == {"name": "s", "type": step.split()[1].rstrip(","), key: value} | {
        "unfinished": []
    }


def test_inputs_are_under_args_and_the_word_of_the_author() -> None:
    """Each word keeps its own keys."""
    job = job_of("type: python, code: x, with: {a: 1, b: 2}, args: {b: 3}")
    assert job.action["args"] == {"a": 1, "b": 3}
    assert job.action["with"] == {"a": 1, "b": 3}


def test_inputs_of_one_template_are_under_both_words() -> None:
    """As the mapping that the template gives."""
    job = job_of('type: python, code: x, data: "{{ workload.all }}"', workload="{all: {a: 1}}")
    assert job.action["args"] == job.action["data"] == {"a": 1}


def test_inputs_of_a_transition_are_under_args_only() -> None:
    """They win over inputs of the step, under its word too."""
    [job] = jobs_of(
        """
        workflow:
        - {step: start, next: [{step: s, data: {a: 1, t: 2}}]}
        - {step: s, type: python, code: x, with: {a: 0, b: 0}}
        """
    )
    assert job.action["args"] == {"a": 1, "b": 0, "t": 2}
    assert job.action["with"] == {"a": 1, "b": 0}
    assert "data" not in job.action


def test_a_job_without_inputs_has_no_args() -> None:
    """The word of the author is absent too."""
    assert "args" not in job_of("type: python, code: x").action


def test_inputs_beside_a_list_of_arguments_are_under_data() -> None:
    """With deferred inputs."""
    job = job_of('type: container, image: i, args: [x], params: {p: "{{ env.P }}"}, data: {a: "{{ env.A }}"}')
    assert job.action["args"] == ["x"]
    assert job.action["data"] == {"p": "{{ env.P }}", "a": "{{ env.A }}"}
    assert sorted(job.action["unfinished"]) == [["data", "a"], ["data", "p"], ["params", "p"]]


@pytest.mark.parametrize(
    "step, key, value",
    [
        ("type: http, url: u, params: {q: 1}, payload: {p: 2}, args: {a: 3}", "params", {"q": 1}),
        ("type: http, url: u, params: {q: 1}, payload: {p: 2}, args: {a: 3}", "payload", {"p": 2}),
        ("type: save, table: t, data: {d: 1}, args: {a: 3}", "data", {"d": 1}),
        ("type: container, image: i, args: [x, y], data: {a: 3}", "args", ["x", "y"]),
    ],
)
def test_a_key_of_the_type_is_no_input(step: str, key: str, value: Any) -> None:
    """`params` of an http step is its query string."""
    job = job_of(step)
    assert job.action[key] == value
    assert key not in job.context
    assert job.context["a"] == 3


def test_a_step_overrides_its_workbook_action() -> None:
    """The job has the type of the action and the name of the step."""
    [job] = jobs_of(
        """
        workbook:
        - {name: fetch, type: http, desc: d, url: "u/{{ city }}", method: GET, args: {city: Oslo, n: 1}}
        workflow:
        - {step: start, next: s}
        - {step: s, type: workbook, name: fetch, method: POST, with: {city: Rome}}
        """
    )
    assert job.node_type == "http"
    assert job.action == {
        "name": "s",
        "type": "http",
        "desc": "d",
        "url": "u/Rome",
        "method": "POST",
        "args": {"city": "Rome", "n": 1},
        "with": {"city": "Rome"},
        "unfinished": [],
    }


def test_a_context_has_the_inputs_at_its_top_level() -> None:
    """With step and visit. The store adds data of the execution."""
    job = job_of("type: python, code: x, args: {a: 1, b: [2]}")
    assert job.context == {"a": 1, "b": [2], "step_name": "s", "visit": 1}


def test_a_job_has_the_number_of_its_visit() -> None:
    """Visits count from 1."""
    first, second = jobs_of(
        """
        workflow:
        - {step: start, next: s}
        - {step: s, type: python, code: x, next: [{when: "s", step: s}]}
        """,
        "> execution_start\n> action_completed s true",
    )
    assert (first.visit, first.context["visit"]) == (1, 1)
    assert (second.visit, second.context["visit"]) == (2, 2)


@pytest.mark.parametrize(
    "step, metadata, expected",
    [
        ("", "", (5, 1, None)),
        (", priority: 2, retry: 4, timeout: 1.5", "priority: 9", (2, 4, 1.5)),
        (", retry: true", "priority: 9", (9, 3, None)),
        (", retry: false, priority: 0", "", (0, 1, None)),
    ],
)
def test_a_job_has_priority_attempts_and_timeout(
    step: str, metadata: str, expected: tuple[int, int, float | None]
) -> None:
    """Of the step, else of the playbook, else the defaults."""
    job = job_of(f"type: python, code: x{step}", metadata=metadata)
    assert (job.priority, job.max_attempts, job.timeout) == expected


@pytest.mark.parametrize("own, loop, expected", [("", "", 7), (", priority: 2", "", 2), ("", ", distribute: true", 7)])
def test_the_priority_of_a_step_wins_over_its_workbook_action(own: str, loop: str, expected: int) -> None:
    """For the one job of a worker with a `loop`, and for the job of each item."""
    jobs = jobs_of(f"""
    workbook: [{{name: w, type: python, code: x, priority: 7, loop: {{collection: [1], element: n{loop}}}}}]
    workflow: [{{step: start, next: s}}, {{step: s, type: workbook, task: w{own}}}]
    """)
    assert [(job.node_type, job.priority, job.item_index, "loop" in job.action) for job in jobs] == (
        [("python", 7, None, False), ("python", 7, 0, False)] if loop else [("python", expected, None, True)]
    )


def test_the_default_of_attempts_is_a_setting() -> None:
    """For steps without `retry`."""
    assert job_of("type: python, code: x", rules=Rules(default_max_attempts=7)).max_attempts == 7

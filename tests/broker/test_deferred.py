"""Deferred strings: the strings of a job that stay templates, and the context to render them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from noetl_broker.broker.model.decision import JobRow
from noetl_broker.broker.model.effects import ChildStarted
from noetl_broker.history.story import play_turns, read_events
from noetl_broker.worker.deferred import mark_deferred, renderer_of
from tests.stories import playbook

START = "> execution_start"
BAIT = "{{ secret.x }}"


def jobs_of(body: str, story: str = START) -> list[JobRow]:
    """Return all jobs of the events of a story, in order."""
    turns = play_turns(playbook(body), read_events(story))
    return [job for _, decision, _ in turns for job in decision.jobs]


def job_of(
    *steps: str, start: str = "next: s", workload: str = "{}", story: str = START, workbook: str = "[]"
) -> JobRow:
    """Return the last job of a story; the first of `steps` follows `start`."""
    lines = [f"workload: {workload}", f"workbook: {workbook}", "workflow:", f"- {{step: start, {start}}}"]
    return jobs_of("\n".join([*lines, *(f"- {{step: {step}}}" for step in steps)]) + "\n", story)[-1]


def at(action: Any, path: Any) -> Any:
    """Return the value at a path of an action."""
    for part in path:
        action = action[part]
    return action


def deferred(job: JobRow) -> list[list[str | int]]:
    """Return the sorted paths of the strings that are templates."""
    return sorted(job.action["unfinished"], key=repr)


@pytest.mark.parametrize(
    "keys, paths",
    [
        ("type: http, url: u", []),
        ('type: http, url: "{{ secret.x }}"', [["url"]]),
        (
            'type: http, headers: {A: "{{ secret.x }}", B: ["{{ n }}", "{{ env.y }}"]}',
            [["headers", "A"], ["headers", "B", 1]],
        ),
        ('type: python, code: "{{ secret.x }}"', []),
        ("type: postgres, command_b64: e3sgc2VjcmV0LnggfX0=", []),
        ('type: postgres, command: "{{ secret.x }}"', [["command_b64"]]),
        ('type: postgres, commands: ["{{ n }}", "{{ env.x }}"]', [["commands_b64", 1]]),
        ('type: postgres, sql: "{{ secret.x }}"', [["command_b64"]]),
        ('type: python, code: x, args: {a: "{{ secret.x }}", b: "{{ n }}"}', [["args", "a"]]),
        ('type: python, code: x, with: {a: ["{{ job.uuid }}"]}', [["args", "a", 0], ["with", "a", 0]]),
        ('type: http, params: {q: "{{ secret.x }}"}', [["params", "q"]]),
        ('type: http, url: u, retry: {max_attempts: 2, retry_when: "{{ error }}"}', []),
        ('type: http, save: {data: {v: "{{ result.x }}", w: "{{ n }}"}}', [["save", "data", "v"]]),
        ('type: http, save: {statement: "{{ params.v }}{{ n }}", data: {v: "{{ n }}"}}', [["save", "statement"]]),
        ('type: http, url: "{{ i }}", loop: {collection: "{{ n }}", element: i}', [["url"]]),
        ("type: http, url: u, loop: {collection: n, element: i, where: i > 1}", [["loop", "where"]]),
        (
            'type: iterator, collection: n, element: i, task: {type: python, code: x, args: {v: "{{ i }}"}}',
            [["task", "args", "v"]],
        ),
    ],
)
def test_a_job_lists_the_paths_of_its_deferred_strings(keys: str, paths: list[list[str | int]]) -> None:
    """The list is empty if there are none."""
    job = job_of(f"s, {keys}", workload="{n: [1]}")
    assert deferred(job) == paths
    assert all(isinstance(at(job.action, path), str) for path in paths)


def test_a_string_of_a_workbook_action_is_deferred_unless_its_step_overrides_it() -> None:
    """An input of the step hides one of the action."""
    workbook = '[{name: w, type: http, url: "{{ env.u }}", data: {a: "{{ secret.x }}", b: "{{ secret.x }}"}}]'
    story = f'> execution_start {{"n": "{BAIT}"}}'
    job = job_of('s, type: workbook, task: w, args: {a: "{{ n }}"}', workbook=workbook, story=story)
    assert deferred(job) == [["args", "b"], ["data", "b"], ["url"]]
    assert job.action["data"] == {"a": BAIT, "b": BAIT}


def test_inputs_of_one_template_hide_weaker_deferred_inputs() -> None:
    """The keys of the mapping do not matter."""
    [job] = jobs_of(
        """
        workload: {all: {}}
        workflow:
        - {step: start, next: s}
        - step: s
          type: python
          code: x
          with: {a: "{{ secret.x }}", b: "{{ secret.x }}"}
          args: "{{ workload.all }}"
        """,
        '> execution_start {"all": {"a": "{{ secret.x }}"}}',
    )
    assert job.action["args"] == {"a": BAIT, "b": BAIT}
    assert deferred(job) == [["args", "b"], ["with", "b"]]


STAGE = """{host: "{{ env.HOST }}", url: "http://{{ env.HOST }}/", db: {user: "{{ env.U }}", port: 1}, city: Oslo}"""


@pytest.mark.parametrize(
    "text, value",
    [
        ("workload.host", None),
        ("host", None),
        ("spec['host']", None),
        ("work.url", None),
        ("context.db", None),
        ("workload.host | upper", None),
        ("[workload.city, db]", None),
        ("workload.get('host')", None),
        ("workload.get('none', host)", None),
        ("workload.get('db', {}).get('port')", None),
        ("workload.get(city)", None),
        ("db.port", None),
        ("workload.db.port", None),
        ("workload.get('db').get('port')", None),
        ("workload", None),
        ("workload.city", "Oslo"),
        ("workload.host is defined", True),
        ("workload.get('city', 'Rome')", "Oslo"),
        ("workload.get('none', 'Rome')", "Rome"),
    ],
)
def test_a_string_that_reads_a_deferred_default_is_deferred(text: str, value: Any) -> None:
    """A key is deferred as a whole. The context names the defaults that are still templates."""
    job = job_of(f's, type: http, url: u, body: ["{{{{ {text} }}}}"], args: {{a: "{{{{ {text} }}}}"}}', workload=STAGE)
    source = f"{{{{ {text} }}}}" if value is None else value
    assert (job.action["body"], job.action["args"]) == ([source], {"a": source})
    assert deferred(job) == ([["args", "a"], ["body", 0]] if value is None else [])
    unfinished = [["workload", "host"], ["workload", "url"], ["workload", "db", "user"]]
    assert job.context.get("unfinished", []) == (unfinished if value is None else [])


def test_a_default_that_the_payload_replaces_is_data() -> None:
    """A string that reads it is deferred all the same. The context does not list that default."""
    story = '> execution_start {"host": "{{ secret.x }}"}'
    job = job_of('s, type: http, url: "{{ url }}", body: "{{ workload.host }}"', workload=STAGE, story=story)
    assert (job.action["url"], job.action["body"]) == ("{{ url }}", "{{ workload.host }}")
    assert deferred(job) == [["body"], ["url"]]
    assert job.context["unfinished"] == [["workload", "url"], ["workload", "db", "user"]]


def test_an_input_hides_a_default_of_its_name() -> None:
    """Both the input and a string that reads it are data."""
    job = job_of('s, type: http, url: "{{ host }}", args: {host: here}', workload=STAGE)
    assert job.action["url"] == "here"
    assert deferred(job) == []


def test_a_condition_may_read_a_key_beside_a_secret() -> None:
    """`.get` reads the named key, not the whole mapping."""
    story = f"{START}\n> action_completed a 1"
    bodies = """
        workload: {token: "{{ secret.t }}", debug: true}
        workflow:
        - {step: start, next: [{step: a, args: {n: 1}}]}
        - {step: a, type: python, code: x, args: {token: "{{ secret.t }}"}, next: [{when: "CONDITION", step: b}]}
        - {step: b, type: python, code: x}
        """
    for condition in ("workload.get('debug', false)", "args.get('n') == 1", "context.get('none', n) == 1"):
        assert [job.step for job in jobs_of(bodies.replace("CONDITION", condition), story)] == ["a", "b"]


@pytest.mark.parametrize("word", ["env", "job", "secret", "secrets", "keychain"])
def test_a_step_named_like_a_word_of_the_worker_hides_it(word: str) -> None:
    """In conditions, transitions, tasks, `save`, and the payload of a child."""
    body = """
        workflow:
        - {step: start, next: WORD}
        - step: WORD
          type: python
          code: x
          next: [{when: "{{ WORD.ok }}", step: a, args: {i: "{{ WORD.v }}"}}]
        - {step: a, type: http, url: "x/{{ WORD.v }}", save: {data: {s: "{{ WORD.v }}"}}, next: b}
        - {step: b, type: playbook, path: p, args: {t: "{{ WORD.v }}"}, retry: {retry_when: WORD.ok}}
        """
    story = f'{START}\n> action_completed {word} {{"ok": true, "v": 7}}\n> action_completed a 1'
    _, decided, called = (turn[1] for turn in play_turns(playbook(body.replace("WORD", word)), read_events(story)))
    [job] = decided.jobs
    assert (job.action["args"], job.action["url"], job.action["save"]) == ({"i": 7}, "x/7", {"data": {"s": 7}})
    assert deferred(job) == []
    assert [child.payload for child in called.of(ChildStarted)] == [{"t": 7}]


def test_a_step_hides_only_the_word_of_its_name() -> None:
    """A workload default is rendered before any step, so it reads the worker's word."""
    job = job_of(
        'secrets, type: python, code: x, args: {a: "{{ env.A }}{{ secrets.v }}", d: "{{ workload.d }}"}',
        start="next: secrets",
        workload='{d: "{{ secrets.x }}"}',
    )
    assert job.action["args"] == {"a": "{{ env.A }}{{ secrets.v }}", "d": "{{ workload.d }}"}
    assert deferred(job) == [["args", "a"], ["args", "d"]]


@pytest.mark.parametrize(
    "own, expected",
    [
        ('args: {a: "{{ workload.d }}", b: "x{{ workload.d }}"}', {"a": "ours", "b": "xours"}),
        ('args: {a: "{{ d }}", b: "x{{ d }}"}', {"a": "ours", "b": "xours"}),
        ('args: {a: "{{ workload.deep }}"}', {"a": {"t": "ours"}}),
        ('args: {a: "{{ named }}", b: "{{ key }}"}', {"a": "1ours", "b": {"v": 2}}),
    ],
)
def test_a_workload_default_does_not_read_results_of_steps(own: str, expected: dict[str, Any]) -> None:
    """The steps have the names of words of the worker or of workload keys."""
    workload = {
        "key": 1,
        "d": "{{ secrets.t }}",
        "deep": {"t": "{{ secrets.t }}"},
        "named": "{{ key }}{{ secret.t }}",
    }
    job = job_of(
        "secrets, type: python, code: x, next: key",
        "key, type: python, code: x, next: s",
        f"s, type: http, url: u, {own}",
        start="next: secrets",
        workload=json.dumps(workload),
        story=f'{START}\n> action_completed secrets {{"t": "theirs"}}\n> action_completed key {{"v": 2}}',
    )
    action = mark_deferred(json.loads(json.dumps(job.action)))
    context, of_job = {**job.context, "workload": workload}, {"execution_id": 1, "node_id": "1:s"}
    renderer = renderer_of(action, context, of_job, {"HOST": "host", "NOETL_SECRET_T": "ours"})
    assert renderer.render(action["args"]) == expected


def test_data_that_looks_like_a_template_is_not_deferred() -> None:
    """From the payload or a result, through a field or an input."""
    job = job_of(
        "a, type: python, code: x, next: [{step: s, args: {t: '{{ a.v }}'}}]",
        's, type: http, url: "{{ p }}", command: "{{ a.v }}", with: {o: "{{ p }}"}',
        start="next: a",
        story='> execution_start {"p": "{{ secret.x }}"}\n> action_completed a {"v": "{{ secret.x }}"}',
    )
    assert job.action["url"] == job.action["args"]["t"] == job.action["with"]["o"] == BAIT
    assert deferred(job) == []


@pytest.mark.parametrize("given", ["{a: '{{ n }}'}", "'{{ workload.all }}'"])
def test_data_of_a_transition_over_a_deferred_input_is_data(given: str) -> None:
    """Also if it is the text of the template that it replaces."""
    job = job_of(
        's, type: python, code: x, with: {a: "{{ secret.x }}", b: "{{ n }}", c: "{{ env.c }}"}',
        start=f"next: [{{step: s, args: {given}}}]",
        workload="{n: 1, all: {}}",
        story='> execution_start {"n": "{{ secret.x }}", "all": {"a": "{{ secret.x }}"}}',
    )
    assert job.action["args"] == {"a": BAIT, "b": BAIT, "c": "{{ env.c }}"}
    assert deferred(job) == [["args", "c"], ["with", "c"]]


def test_a_field_that_reads_a_deferred_input_is_deferred() -> None:
    """The broker renders the other fields."""
    job = job_of(
        's, type: http, url: "{{ base }}", args: {token: "{{ secret.x }}"},'
        ' headers: {A: "a {{ token }}", B: "{{ city }}"}',
        start="next: [{step: s, args: {city: Oslo}}]",
        workload="{base: b}",
    )
    assert job.action["headers"] == {"A": "a {{ token }}", "B": "Oslo"}
    assert deferred(job) == [["args", "token"], ["headers", "A"]]


RESULTS = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: b}
- {step: b, type: python, code: x, next: c}
- {step: c, type: python, code: x, next: [{step: s, args: {came: 1}}]}
- {step: s, type: http, url: u, args: %s, %s}
"""
ABC = f"{START}\n> action_completed a 1\n> action_completed b 2\n> action_completed c 3"


@pytest.mark.parametrize(
    "inputs, own, named",
    [
        ("{}", "body: 1", None),
        ("{}", 'body: "{{ a }}{{ secret.x }}"', {"a": 1}),
        ("{}", 'data: {v: "{{ b }}{{ secret.x }}"}', {"b": 2}),
        ('{v: "{{ b }}{{ secret.x }}{{ later }}"}', 'body: "{{ a }}{{ env.x }}"', {"a": 1, "b": 2}),
        ("{v: \"{{ results['b'] }}{{ secret.x }}\"}", "body: 1", {"b": 2}),
        ('{v: "{{ secret.x }}"}', 'body: "{{ v }}{{ a }}{{ c }}"', {"a": 1, "c": 3}),
        ('{v: "{{ secret[results | first] }}"}', "body: 1", {"a": 1, "b": 2, "c": 3}),
        ('{v: "{{ a }}{{ secret.x }}"}', 'body: "{{ b }}"', {"a": 1}),
    ],
)
def test_the_context_has_the_results_that_deferred_strings_name(
    inputs: str, own: str, named: dict[str, Any] | None
) -> None:
    """It has no result that only the broker's templates read."""
    job = jobs_of(RESULTS % (inputs, own), ABC)[-1]
    assert job.context.get("results") == named
    assert "result" not in job.context


def test_the_context_has_status_and_error_of_failed_results() -> None:
    """The worker can render `a.status` and `a.error`."""
    body = RESULTS.replace("{step: a,", "{step: a, on_error: continue,") % (
        "{}",
        'body: "{{ env.x }}{{ a.status }}{{ a.error.message }}{{ b.status }}{{ c }}{{ result.status }}"',
    )
    story = f"""{START}
    > action_failed a {{"message": "no"}}
    > action_completed b {{"status": "success", "data": 2}}
    > action_completed c {{"status": "error", "data": 3, "error": "e"}}"""
    [*_, job] = jobs_of(body, story)
    assert job.context["results"] == {"a": None, "b": 2, "c": 3}
    assert job.context["outcomes"] == {
        "a": {"status": "FAILED", "error": {"step": "a", "message": "no"}},
        "b": {"status": "success", "error": None},
        "c": {"status": "error", "error": "e"},
        "result": {"status": "error", "error": "e"},
    }


def test_the_context_has_result_if_a_deferred_string_reads_it() -> None:
    """In `save` the word is the worker's own result."""
    [*_, job] = jobs_of(RESULTS % ("{}", 'body: "{{ env.x }}{{ result }}"'), ABC)
    assert job.context["result"] == 3
    [*_, job] = jobs_of(RESULTS % ("{}", 'save: {data: "{{ result }}"}'), ABC)
    assert "result" not in job.context


@pytest.mark.parametrize(
    "named",
    [
        {"unfinished": [["workload", "note"]]},
        {"words": {"env": {"HOST": "evil"}, "secret": {"token": "theirs"}}},
        {"results": {"gone": "theirs"}, "outcomes": {"gone": {"status": "FAILED"}}},
        {"result": {"id": "theirs"}},
    ],
)
def test_a_payload_cannot_read_secrets_of_the_worker(named: dict[str, Any]) -> None:
    """Whole inputs come from the payload. Only templates of the author are rendered."""
    payload = {"note": "{{ secret.token }}", "options": named}
    auth = "{{ secret.token }}{{ gone.x | default }}{{ this.id | default }}"
    keys = f'url: "{{{{ env.HOST }}}}/{{{{ workload.note }}}}", auth: "{auth}"'
    job = job_of(
        f's, type: http, args: "{{{{ workload.options }}}}", {keys}',
        "gone, type: http, url: u",
        workload="{options: {}, note: none}",
        story=f"{START} {json.dumps(payload)}",
    )
    assert job.action["args"] == named
    action = mark_deferred(json.loads(json.dumps(job.action)))
    context, place = {**job.context, "workload": payload}, {"execution_id": 1, "node_id": "1:s"}
    renderer = renderer_of(action, context, place, {"HOST": "host", "NOETL_SECRET_TOKEN": "ours"})
    finished = renderer.render({key: action[key] for key in ("url", "auth")})
    assert finished == {"url": "host/{{ secret.token }}", "auth": "ours"}


def test_inputs_named_like_words_stay_in_a_job_without_deferred_strings() -> None:
    """They are at the top level of the context, as all inputs."""
    assert job_of("s, type: http, url: u, args: {words: [1], results: 2}").context == {
        "words": [1],
        "results": 2,
        "step_name": "s",
        "visit": 1,
    }


def test_a_step_that_runs_hides_no_default_of_its_name() -> None:
    """Only a result hides it."""
    job = job_of(
        'token, type: http, url: x, headers: {A: "{{ token }}", B: "{{ workload.token }}"}, args: {t: "{{ token }}"}',
        start="next: token",
        workload='{token: "{{ secret.api }}"}',
    )
    assert deferred(job) == [["args", "t"], ["headers", "A"], ["headers", "B"]]

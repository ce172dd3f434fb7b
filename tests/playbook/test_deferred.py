"""Deferred strings: the broker does not evaluate them, and none of its templates may read them."""

from __future__ import annotations

import pytest

from noetl_broker.playbook import PlaybookError
from tests.playbook.documents import compiled, document_findings, findings_of

REMEDY = "(write it in a field or an input of the step whose worker needs it; or let an action return the value)"
BY_WORD = "the broker evaluates this template, and only a worker knows"


def of_call(rest: str) -> str:
    """Return a workflow whose step `call` has a deferred `token` and a mapping with a deferred string."""
    return f"""
    workflow:
      - {{step: start, next: {{step: call, args: {{came: 1}}}}}}
      - {{step: call, type: http, url: x, {rest},
         args: {{token: "{{{{ env.T }}}}", cfg: {{a: "{{{{ env.A }}}}", b: 1}}}}}}
      - {{step: end, type: http, url: x}}
    """


def errors_of(body: str) -> list[str]:
    """Return code and path of each error."""
    return [" ".join(line.split()[2:4]) for line in findings_of(body) if " error " in line]


@pytest.mark.parametrize(
    "rest, place, read",
    [
        ("""next: [{when: "token == 'x'", step: end}]""", "workflow[1].next[0].when", "token == 'x'"),
        ('retry: {max_attempts: 2, retry_when: "{{ token }}"}', "workflow[1].retry.retry_when", "{{ token }}"),
        ('catch: [{when: "{{ token }}", step: end}]', "workflow[1].catch[0].when", "{{ token }}"),
        ('output: "{{ token }}"', "workflow[1].output", "{{ token }}"),
        ('start_timeout: "{{ token }}"', "workflow[1].start_timeout", "{{ token }}"),
        ('next: [{step: end, args: {t: "x{{ token }}"}}]', "workflow[1].next[0].args.t", "x{{ token }}"),
        ('next: [{step: end, args: {t: ["{{ args.token }}"]}}]', "workflow[1].next[0].args.t[0]", "{{ args.token }}"),
        ('compensate: {type: http, url: "{{ token }}"}', "workflow[1].compensate.url", "{{ token }}"),
        ('loop: {collection: "{{ token }}", element: i}', "workflow[1].loop.collection", "{{ token }}"),
        ("loop: {collection: [1], element: i, where: token}", "workflow[1].loop.where", "token"),
    ],
)
def test_no_other_template_reads_a_deferred_input(rest: str, place: str, read: str) -> None:
    """Conditions, inputs of transitions, what undoes the step, and the choice of items."""
    [found] = [line for line in findings_of(of_call(rest)) if " error " in line]
    assert found.split(" ", 1)[1] == (
        f"error deferred-read {place}: `{read}` reads the input `token` of the step `call`,"
        f" which only a worker can render {REMEDY}"
    )


@pytest.mark.parametrize("args", ['{t: "{{ args }}"}', '"{{ args }}"', '"{{ cfg }}"', '{t: "{{ cfg.b }}"}'])
def test_a_transition_may_not_pass_a_deferred_input_on(args: str) -> None:
    """Nor a part of it."""
    assert {error.split()[0] for error in errors_of(of_call(f"next: [{{step: end, args: {args}}}]"))} == {
        "deferred-read"
    }


@pytest.mark.parametrize("rest", ['headers: {A: "<{{ token }}>"}', 'body: "{{ args }}"', 'auth: "{{ cfg.a }}"'])
def test_a_field_of_the_task_reads_a_deferred_input(rest: str) -> None:
    """The worker renders the field after the inputs."""
    step = compiled(of_call(f"{rest}, next: end")).steps["call"]
    assert [path[0] for path in step.fields.deferred] == [rest.partition(":")[0]]


@pytest.mark.parametrize("rest", ['save: {data: "{{ token }}"}', 'sink: {data: {k: "{{ args.token }}"}}'])
def test_a_save_reads_a_deferred_input(rest: str) -> None:
    """It is rendered after the task."""
    assert errors_of(of_call(f"{rest}, next: end")) == []


@pytest.mark.parametrize(
    "rest, read",
    [
        ("retry: {retry_when: token}", "`token` reads the input `token`"),
        ("retry: {retry_when: error}", ""),
        ("retry: {retry_when: args.error}", "`args.error` reads the input `error`"),
        ("loop: {collection: [1], element: error, distribute: true, where: error}", ""),
        (
            "loop: {collection: [1], element: n, distribute: true, where: error}",
            "`error` reads the input `error`",
        ),
    ],
)
def test_a_word_of_a_condition_hides_an_input_of_its_name(rest: str, read: str) -> None:
    """Under `args` the input is read."""
    body = f"""
    workflow:
      - {{step: start, next: call}}
      - {{step: call, type: http, url: x, {rest}, args: {{token: "{{{{ env.T }}}}", error: "{{{{ env.E }}}}"}}}}
    """
    errors = [line.partition(": ")[2] for line in findings_of(body) if " error " in line]
    assert [line.partition(" of the step")[0] for line in errors] == [read] * bool(read)


@pytest.mark.parametrize(
    "condition",
    [
        "token is defined",
        "call.token == 1",
        "came == 1",
        "args.came == 1",
        "args.get('came', 2) == 1",
    ],
)
def test_a_condition_may_read_another_input(condition: str) -> None:
    """Whether a deferred one was given, or a key of the same name in a result."""
    assert findings_of(of_call(f'next: [{{when: "{{{{ {condition} }}}}", step: end}}]')) == []


@pytest.mark.parametrize(
    "read", ["args.get('token')", "args.get('n', token)", "args.get(n)", "cfg.get('a', 1)", "cfg.b == 1", "args.cfg.b"]
)
def test_a_condition_reads_no_part_of_a_deferred_input(read: str) -> None:
    """An input is deferred as a whole. A call with an unknown key may read any key."""
    assert errors_of(of_call(f'next: [{{when: "{{{{ {read} }}}}", step: end}}]'))[0].startswith("deferred-read")


def test_a_deferred_input_of_the_workbook_is_one_of_the_step() -> None:
    """A condition of the step does not read it."""
    source = """
    workbook:
      - {name: ask, type: http, url: x, args: {own: "{{ env.A }}"}}
    workflow:
      - {step: start, next: call}
      - {step: call, type: workbook, task: ask, next: [{when: "{{ own }}", step: end}]}
      - {step: end}
    """
    assert errors_of(source) == ["deferred-read workflow[1].next[0].when:"]


NOT_OF_ITS_LEVEL = "and an input does not see those of its own level (join the two in a field of the step)"


@pytest.mark.parametrize(
    "text, read",
    [
        ("{{ p }}{{ env.A }}", "p"),
        ("{{ args.p }}{{ env.A }}", "p"),
        ("{{ args }}{{ env.A }}", "p"),
        ("{{ t }}{{ env.A }}", "t"),
        ("{{ q }}{{ env.A }}", ""),
        ("{{ args.came }}{{ came }}{{ env.A }}", ""),
    ],
)
def test_a_deferred_input_reads_no_other_input_of_its_level(text: str, read: str) -> None:
    """The name is the workload's for the broker and the other input's for the worker."""
    source = f"""
    workload: {{p: 1, q: 2, t: 3}}
    workflow:
      - {{step: start, next: {{step: more, args: {{came: 1}}}}}}
      - {{step: more, type: http, url: x, args: {{p: 2, t: "{{{{ env.T }}}}", q: "{text}"}}}}
    """
    found = f"5:72 error deferred-read workflow[1].args.q: `{text}` reads `{read}`, {NOT_OF_ITS_LEVEL}"
    assert findings_of(source) == [found] * bool(read)


def test_a_deferred_input_of_one_item_does_not_read_its_own_name() -> None:
    """In the job of one item it has replaced an input of the step."""
    source = """
    workload: {q: 2}
    workflow:
      - {step: start, next: more}
      - {step: more, type: iterator, collection: [1], element: i, distribute: true, args: {q: 1},
         task: {type: http, url: x, args: {q: "{{ q }}{{ job.id }}", i: "{{ i }}{{ job.id }}", env: "{{ env.A }}"}}}
    """
    assert errors_of(source) == ["deferred-read workflow[1].task.args.q:"]


WITHOUT_WORKER = """
workload: {host: "{{ env.HOST }}", db: {user: "{{ keychain.db.user }}", port: 1}}
workflow:
  - {step: start, next: {step: call, args: %s}}
  - {step: call, %s}
"""


@pytest.mark.parametrize(
    "arriving, step, place",
    [
        ('{t: ["{{ secret.t }}"]}', "type: http, url: x", "workflow[0].next.args.t[0]"),
        ("{}", 'desc: a router, args: {t: "{{ secret.t }}"}', "workflow[1].args.t"),
        ("{}", 'type: playbook, path: p, args: {t: ["{{ secret.t }}"]}', "workflow[1].args.t[0]"),
        (
            "{}",
            'type: playbook, path: p, loop: {collection: [1], element: i}, data: {t: ["{{ secret.t }}"]}',
            "workflow[1].data.t[0]",
        ),
        (
            "{}",
            'type: iterator, collection: [1], element: i, args: {t: "{{ secret.t }}"}, task: {type: http, url: x}',
            "workflow[1].args.t",
        ),
        (
            "{}",
            'type: http, url: x, loop: {collection: [1], element: i, chunk: "{{ secret.t }}"}',
            "workflow[1].loop.chunk",
        ),
    ],
)
def test_only_fields_and_inputs_of_a_worker_s_step_are_deferred(arriving: str, step: str, place: str) -> None:
    """Not what a transition, a router, a child execution or an iterator is given."""
    [found] = findings_of(WITHOUT_WORKER % (arriving, step))
    assert found.split(" ", 1)[1] == f"error worker-word {place}: {BY_WORD} `secret` {REMEDY}"


@pytest.mark.parametrize(
    "arriving, step, path",
    [
        ('{t: "<{{ host }}>"}', "type: http, url: x", "workflow[0].next.args.t"),
        ("{}", "type: playbook, path: p, args: '{{ workload.db }}'", "workflow[1].args"),
        ("{}", "type: http, url: x, next: [{when: host == 1, step: call}]", "workflow[1].next[0].when"),
        ("{}", "type: http, url: x, retry: {stop_when: '{{ workload.host }}'}", "workflow[1].retry.stop_when"),
        ("{}", "type: http, url: x, next: [{when: db.port == 1, step: call}]", "workflow[1].next[0].when"),
        ("{}", "type: http, url: x, throttle: {name: n, rate: 1/s, key: '{{ host }}'}", "workflow[1].throttle.key"),
        ("{}", "type: playbook, path: '{{ host }}'", "workflow[1].path"),
        (
            "{}",
            "type: iterator, collection: '{{ db }}', element: i, task: {type: http, url: x}",
            "workflow[1].collection",
        ),
        (
            "{}",
            "type: http, url: u, loop: {collection: [1], element: i, where: host, distribute: true}",
            "workflow[1].loop.where",
        ),
    ],
)
def test_the_broker_evaluates_no_deferred_default(arriving: str, step: str, path: str) -> None:
    """A payload that replaces it does not change this. A key is deferred as a whole."""
    assert errors_of(WITHOUT_WORKER % (arriving, step)) == [f"deferred-read {path}:"]


def test_a_template_for_all_inputs_reads_no_deferred_default() -> None:
    """The inputs must be a mapping."""
    assert findings_of(WITHOUT_WORKER % ("{}", "type: http, url: x, args: '{{ workload.db }}'")) == [
        (
            "5:44 error worker-word workflow[1].args: `args` is one template, and only a worker can render it"
            ' (write a mapping: args: {name: "{{ … }}"})'
        )
    ]


def test_a_deferred_default_is_named_in_the_error() -> None:
    """With a remedy."""
    assert findings_of(WITHOUT_WORKER % ("{}", "type: http, url: x, next: [{when: host == 1, step: call}]"))[0] == (
        "5:52 error deferred-read workflow[1].next[0].when: `host == 1` reads `workload.host`,"
        f" which only a worker can render {REMEDY}"
    )


@pytest.mark.parametrize("url", ["http://{{ host }}/", "{{ workload.host }}{{ env.PATH }}", "{{ workload }}"])
def test_no_default_reads_a_deferred_default(url: str) -> None:
    """Its template is written again."""
    body = (
        f'workload: {{host: "{{{{ env.HOST }}}}", url: "{url}"}}\nworkflow: [{{step: start, next: end}}, {{step: end}}]'
    )
    assert errors_of(body) == ["deferred-read workload.url:"]


def test_an_input_hides_a_deferred_default_of_its_name() -> None:
    """A condition reads the input, and not under `workload`."""
    body = WITHOUT_WORKER % ("{host: 1}", "type: http, url: x, next: [{when: WHEN, step: end}]") + "  - step: end"
    assert errors_of(body.replace("WHEN", "host == 1")) == []
    assert errors_of(body.replace("WHEN", "workload.host == 1")) == ["deferred-read workflow[1].next[0].when:"]


def test_the_result_of_end_reads_no_deferred_string() -> None:
    """No default and no input of `end`."""
    source = """
    workload: {host: "{{ env.HOST }}"}
    workflow:
      - {step: start, next: end}
      - {step: end, type: http, url: x, args: {id: "{{ job.id }}"}, result: {all: "{{ args }}", h: "{{ host }}"}}
    """
    assert errors_of(source) == ["deferred-read workflow[1].result.all:", "deferred-read workflow[1].result.h:"]


def test_what_belongs_to_the_playbook_reads_no_deferred_default() -> None:
    """The key of its limit."""
    source = """
    apiVersion: noetl.io/v1
    kind: Playbook
    metadata: {path: p, concurrency: {limit: 1, key: "{{ workload.host }}"}}
    workload: {host: "{{ env.HOST }}"}
    workflow: [{step: start, next: end}, {step: end}]
    """
    [found] = [line for line in document_findings(source) if " error " in line]
    assert "error deferred-read metadata.concurrency.key: `{{ workload.host }}` reads `workload.host`" in found


@pytest.mark.parametrize(
    "step, place",
    [
        ('step: x, next: end, args: {k: "{{ env.K }}"}', "3:36 error worker-word workflow[1].args.k"),
        ('step: x, type: playbook, path: "{{ env.K }}"', "3:37 error worker-word workflow[1].path"),
        ('step: end, result: {k: ["{{ env.K }}"]}', "3:30 error worker-word workflow[1].result.k[0]"),
        ('step: end, save: {data: "{{ env.K }}"}', "3:30 error worker-word workflow[1].save.data"),
    ],
)
def test_a_word_of_the_worker_where_the_broker_evaluates_is_refused(step: str, place: str) -> None:
    """No worker renders it."""
    name = step.split(",", maxsplit=1)[0].removeprefix("step: ")
    found = findings_of(
        f"workflow:\n  - {{step: start, next: {name}}}\n  - {{{step}}}\n  - {{step: {'end' if name == 'x' else 'x'}}}\n"
    )
    assert f"{place}: {BY_WORD} `env` {REMEDY}" in found
    assert [one for one in found if "unknown-name" in one] == []


@pytest.mark.parametrize(
    "keys", ['type: save, save: {data: {k: "{{ secret.k }}"}}', 'type: http, url: x, sink: {args: {k: "{{ env.K }}"}}']
)
def test_a_save_may_read_words_of_the_worker(keys: str) -> None:
    """That of an `end`, too."""
    assert findings_of(f"workflow:\n  - {{step: start, next: end}}\n  - {{step: end, {keys}}}\n") == []


def test_an_execution_of_a_playbook_that_came_by_sql_fails() -> None:
    """Compiling refuses it too, not only `validate`."""
    with pytest.raises(PlaybookError, match="which only a worker can render"):
        compiled(of_call('next: [{when: "{{ token }}", step: end}]'))

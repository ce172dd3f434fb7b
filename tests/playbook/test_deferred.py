"""Deferred strings: the broker does not evaluate them, and none of its templates may read them."""

from __future__ import annotations

import pytest

from noetl_broker.playbook import PlaybookError
from tests.playbook.documents import compiled, findings_of

RETURN_IT = "(let an action return what is needed here, and read its result)"
JOIN_THEM = "(hand the value on under a name of its own, and join the two in a field of `more`)"
WRITE_IT = "(write that template here)"


def of_call(rest: str) -> str:
    """Return a workflow whose step `call` has a deferred `token` and a mapping with a deferred string."""
    return f"""
    workflow:
      - {{step: start, next: {{step: call, args: {{token: "{{{{ env.T }}}}", cfg: {{a: "{{{{ env.A }}}}", b: 1}}}}}}}}
      - {{step: call, type: http, url: x, {rest}}}
      - {{step: end, type: http, url: x}}
    """


def errors_of(body: str) -> list[str]:
    """Return code and path of each error."""
    return [" ".join(line.split()[2:4]) for line in findings_of(body) if " error " in line]


OF_CALL = "of the step `call`, which only a worker can render (workflow[0].next.args.token)"


@pytest.mark.parametrize(
    "rest, place, read, hint",
    [
        (
            """next: [{when: "token == 'x'", step: end}]""",
            "4:52 error unfinished-input workflow[1].next[0].when",
            "token == 'x'",
            RETURN_IT,
        ),
        (
            'retry: {max_attempts: 2, retry_when: "{{ token }}"}, next: end',
            "4:75 error unfinished-input workflow[1].retry.retry_when",
            "{{ token }}",
            RETURN_IT,
        ),
        (
            'next: [{step: end, args: {t: "x{{ token }}"}}]',
            "4:67 error unfinished-input workflow[1].next[0].args.t",
            "x{{ token }}",
            WRITE_IT,
        ),
        (
            'args: {t: "x{{ token }}"}, next: end',
            "4:48 error unfinished-input workflow[1].args.t",
            "x{{ token }}",
            WRITE_IT,
        ),
        (
            'args: {t: "{{ env.X }}{{ token }}"}, next: end',
            "4:48 error unfinished-input workflow[1].args.t",
            "{{ env.X }}{{ token }}",
            WRITE_IT,
        ),
    ],
)
def test_no_other_template_reads_a_deferred_input(rest: str, place: str, read: str, hint: str) -> None:
    """Conditions, the inputs of the step and the inputs of its transitions."""
    assert f"{place}: `{read}` reads the input `token` {OF_CALL} {hint}" in findings_of(of_call(rest))


@pytest.mark.parametrize("args", ['{t: "{{ token }}"}', '{t: ["{{ args.cfg }}"]}', '"{{ args }}"', '"{{ cfg }}"'])
def test_a_transition_may_not_pass_a_deferred_input_on(args: str) -> None:
    """The hint is to repeat the template for the next worker."""
    assert {error.split()[0] for error in errors_of(of_call(f"next: [{{step: end, args: {args}}}]"))} == {
        "unfinished-input"
    }


@pytest.mark.parametrize("rest", ['headers: {A: "<{{ token }}>"}', 'body: "{{ args }}"', 'auth: "{{ cfg.a }}"'])
def test_a_field_of_the_task_reads_a_deferred_input(rest: str) -> None:
    """The worker renders the field after the inputs."""
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
      - {{step: start, next: {{step: call, args: {{token: "{{{{ env.T }}}}", error: "{{{{ env.E }}}}"}}}}}}
      - {{step: call, type: http, url: x, {rest}}}
    """
    errors = [line.partition(": ")[2] for line in findings_of(body) if " error " in line]
    assert [line.partition(" of the step")[0] for line in errors] == [read] * bool(read)


@pytest.mark.parametrize(
    "condition",
    [
        "cfg.b == 1",
        "cfg['b'] == 1",
        "args.cfg.b == 1",
        "token is defined",
        "call.token == 1",
        "args.get('n', 1) == 1",
        "cfg.get('b')",
    ],
)
def test_a_condition_may_read_a_key_beside_a_deferred_string(condition: str) -> None:
    """Another key, whether it was given, or a key of the same name in a result."""
    assert findings_of(of_call(f'next: [{{when: "{{{{ {condition} }}}}", step: end}}]')) == []


@pytest.mark.parametrize("read", ["args.get('token')", "args.get('n', token)", "args.get(n)", "cfg.get('a', 1)"])
def test_a_condition_that_reads_a_deferred_key_through_a_method_is_refused(read: str) -> None:
    """A call with an unknown key may read any key."""
    assert errors_of(of_call(f'next: [{{when: "{{{{ {read} }}}}", step: end}}]'))[0].startswith("unfinished-input")


def test_an_own_input_that_every_transition_replaces_is_never_rendered() -> None:
    """So it is not deferred."""
    source = """
    workflow:
      - {step: start, next: [{step: call, args: {n: 1}}]}
      - {step: call, type: http, url: x, args: {n: "{{ env.N }}"}, next: [{when: "{{ n > 0 }}", step: end}]}
      - {step: end}
    """
    assert findings_of(source) == []


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
    assert findings_of(source) == [
        (
            "6:59 error unfinished-input workflow[1].next[0].when: `{{ own }}` reads the input `own`"
            f" of the step `call`, which only a worker can render (workbook[0].args.own) {RETURN_IT}"
        )
    ]


@pytest.mark.parametrize("named", ["city", "args.city", "args"])
def test_a_deferred_string_of_a_transition_reads_no_input(named: str) -> None:
    """The worker that renders it has the inputs of the next step."""
    source = f"""
    workflow:
      - {{step: start, args: {{city: Oslo}}, next: [{{step: more, args: {{a: "{{{{ env.A }}}}{{{{ {named} }}}}"}}}}]}}
      - {{step: more, type: http, url: x}}
    """
    name = named.partition(".")[0]
    assert findings_of(source) == [
        (
            f"3:69 error unfinished-input workflow[0].next[0].args.a: `{{{{ env.A }}}}{{{{ {named} }}}}` reads"
            f" `{name}`, which is another value for the worker of `more` {JOIN_THEM}"
        )
    ]


def test_a_deferred_input_reads_no_other_input_of_its_level() -> None:
    """The name is the workload's for the broker and the other input's for the worker."""
    source = """
    workload: {p: 1}
    workflow:
      - {step: start, next: more}
      - {step: more, type: http, url: x, args: {p: 2, q: "{{ p }}{{ env.A }}", r: "{{ args.p }}{{ env.A }}"}}
    """
    assert errors_of(source) == ["unfinished-input workflow[1].args.q:", "unfinished-input workflow[1].args.r:"]


ARRIVING = "4:49 error unfinished-input workflow[0].next.args.t[0]"
WITHOUT_WORKER = """
workload: {host: "{{ env.HOST }}", db: {user: "{{ keychain.db.user }}", port: 1}}
workflow:
  - {step: start, next: {step: call, args: %s}}
  - {step: call, %s}
"""


@pytest.mark.parametrize(
    "arriving, step, place",
    [
        (
            '{t: ["{{ secret.t }}"]}',
            "type: playbook, path: p",
            ARRIVING,
        ),
        ('{t: ["{{ secret.t }}"]}', "desc: a router", ARRIVING),
        (
            "{}",
            'type: playbook, path: p, args: {t: ["{{ secret.t }}"]}',
            "5:54 error unfinished-input workflow[1].args.t[0]",
        ),
        (
            "{}",
            'type: playbook, path: p, loop: {collection: [1], element: i}, data: {t: ["{{ secret.t }}"]}',
            "5:91 error unfinished-input workflow[1].data.t[0]",
        ),
    ],
)
def test_a_step_without_a_worker_has_no_deferred_input(arriving: str, step: str, place: str) -> None:
    """Routers and child executions would read the text as data."""
    message = "only a worker can render `{{ secret.t }}`, and no worker runs the step `call`"
    assert findings_of(WITHOUT_WORKER % (arriving, step)) == [
        f"{place}: {message} (name it in the step whose worker needs it)"
    ]


@pytest.mark.parametrize(
    "arriving, step, path",
    [
        ('{t: "<{{ host }}>"}', "type: playbook, path: p", "workflow[0].next.args.t"),
        ("{}", "type: playbook, path: p, args: '{{ workload.db }}'", "workflow[1].args"),
        ("{}", "type: http, url: x, args: '{{ workload.db }}'", "workflow[1].args"),
        ("{}", "type: http, url: x, next: [{when: host == 1, step: call}]", "workflow[1].next[0].when"),
        ("{}", "type: http, url: x, retry: {stop_when: '{{ workload.host }}'}", "workflow[1].retry.stop_when"),
        ("{}", "type: playbook, path: '{{ host }}'", "workflow[1].path"),
        (
            "{}",
            "type: iterator, collection: '{{ db }}', element: i, task: {type: playbook, path: p}",
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
    """A payload that replaces it does not change this."""
    assert errors_of(WITHOUT_WORKER % (arriving, step)) == [f"unfinished-default {path}:"]


def test_a_deferred_default_is_named_in_the_error() -> None:
    """With a remedy."""
    assert findings_of(WITHOUT_WORKER % ("{}", "type: http, url: x, next: [{when: host == 1, step: call}]"))[0] == (
        "5:52 error unfinished-default workflow[1].next[0].when: `host == 1` reads `workload.host`,"
        f" which only a worker can render {RETURN_IT}"
    )


def test_the_result_of_end_reads_no_deferred_string() -> None:
    """No default and no input of `end`."""
    source = """
    workload: {host: "{{ env.HOST }}"}
    workflow:
      - {step: start, next: [{step: end, args: {id: "{{ job.id }}"}}]}
      - {step: end, type: http, url: x, result: {all: "{{ args }}", h: "{{ host }}"}}
    """
    assert errors_of(source) == [
        "unfinished-input workflow[1].result.all:",
        "unfinished-default workflow[1].result.h:",
    ]


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
    message = "the broker evaluates this template, and only a worker knows `env`"
    assert f"{place}: {message} {RETURN_IT}" in found
    assert [one for one in found if "unknown-name" in one] == []


def test_a_template_for_all_inputs_names_no_word_of_the_worker() -> None:
    """The broker renders it, because the inputs must be a mapping."""
    source = """
    workflow:
      - {step: start, next: {step: end, args: "{{ keychain.db }}"}}
      - {step: end, type: http, url: x}
    """
    assert findings_of(source) == [
        (
            "3:43 error worker-word workflow[0].next.args: `args` is one template, and it names a word"
            ' that only a worker knows (write a mapping: args: {name: "{{ … }}"})'
        )
    ]


@pytest.mark.parametrize(
    "keys",
    [
        'type: save, save: {data: {k: "{{ secret.k }}"}}',
        'type: http, url: x, sink: {args: {k: "{{ env.K }}"}}',
        'type: iterator, collection: [1], element: i, limit: "{{ env.N }}", task: {type: http, url: x}',
        'type: http, url: x, loop: {collection: [1], element: i, chunk: "{{ env.N }}"}',
    ],
)
def test_templates_of_the_worker_may_read_its_words(keys: str) -> None:
    """`save` of an `end`, and the keys of an iterator that a worker runs."""
    assert findings_of(f"workflow:\n  - {{step: start, next: end}}\n  - {{step: end, {keys}}}\n") == []


def test_an_input_or_a_workload_key_called_like_a_word_of_the_worker_is_data() -> None:
    """The broker may read it."""
    source = """
    workload: {env: {K: 1}}
    workflow:
      - {step: start, next: {step: end, args: {job: 5}}}
      - {step: end, result: "{{ env.K + job }}"}
    """
    assert findings_of(source) == []


def test_an_execution_of_a_playbook_that_came_by_sql_fails() -> None:
    """Compiling refuses it too, not only `validate`."""
    with pytest.raises(PlaybookError, match="which only a worker can render"):
        compiled(of_call('next: [{when: "{{ token }}", step: end}]'))

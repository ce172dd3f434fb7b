"""An input that only a worker can finish is no data for the broker."""

from __future__ import annotations

import pytest

from noetl_broker.playbook import PlaybookError
from tests.playbook.documents import compiled, told

RETURN_IT = "(let an action return what is needed here, and read its result)"
WRITE_IT = "(write that template here, for the next worker, or let an action return the value and read its result)"
UNLESS = "which only a worker can finish: unless the payload brings another, the step fails"


def of_call(rest: str) -> str:
    """Give a workflow whose step `call` gets a `token` of the worker and a mapping with one such string."""
    return f"""
    workflow:
      - {{step: start, next: {{step: call, args: {{token: "{{{{ env.T }}}}", cfg: {{a: "{{{{ env.A }}}}", b: 1}}}}}}}}
      - {{step: call, type: http, url: x, {rest}}}
      - {{step: end}}
    """


def test_a_condition_of_the_next_does_not_read_it() -> None:
    """Its text would be compared instead of its value."""
    assert told(of_call("""next: [{when: "token == 'x'", step: end}]""")) == [
        (
            "4:52 error unfinished-input workflow[1].next[0].when: `{{ token == 'x' }}` reads the input `token`"
            f" of the step `call`, which only a worker can finish (workflow[0].next.args.token) {RETURN_IT}"
        )
    ]


@pytest.mark.parametrize(
    "rest, read",
    [
        ("retry: {retry_when: token}", "`{{ token }}` reads the input `token`"),
        ("retry: {retry_when: error}", ""),
        ("retry: {retry_when: args.error}", "`{{ args.error }}` reads the input `error`"),
        ("loop: {collection: [1], element: error, distribute: true, where: error}", ""),
        (
            "loop: {collection: [1], element: n, distribute: true, where: error}",
            "`{{ error }}` reads the input `error`",
        ),
    ],
)
def test_a_word_of_a_condition_is_no_input_of_that_name(rest: str, read: str) -> None:
    """It hides the input, which `args` still has."""
    body = f"""
    workflow:
      - {{step: start, next: {{step: call, args: {{token: "{{{{ env.T }}}}", error: "{{{{ env.E }}}}"}}}}}}
      - {{step: call, type: http, url: x, {rest}}}
    """
    errors = [line.partition(": ")[2] for line in told(body) if " error " in line]
    assert [line.partition(" of the step")[0] for line in errors] == [read] * bool(read)


def test_an_input_of_a_transition_makes_nothing_of_it() -> None:
    """The next worker would get the text as data; the template itself may be written again."""
    assert told(of_call('next: [{step: end, args: {t: "x{{ token }}"}}]')) == [
        (
            "4:67 error unfinished-input workflow[1].next[0].args.t: `x{{ token }}` reads the input `token` of the step"
            f" `call`, which only a worker can finish (workflow[0].next.args.token) {WRITE_IT}"
        )
    ]


@pytest.mark.parametrize("args", ['{t: "{{ token }}"}', '{t: ["{{ args.cfg }}"]}', '"{{ args }}"', '"{{ cfg }}"'])
def test_an_input_of_a_transition_may_hand_it_on(args: str) -> None:
    """As it is, for the next worker."""
    assert told(of_call(f"next: [{{step: end, args: {args}}}]")) == []


def test_what_means_something_else_in_another_visit_is_not_handed_on() -> None:
    """It names an input that came along a transition, which the next worker does not have."""
    source = """
    workflow:
      - {step: start, next: [{step: call, args: {city: Oslo}}]}
      - {step: call, type: http, url: x, args: {o: "{{ env.T }}{{ city }}"}, next: [{step: end, args: {t: "{{ o }}"}}]}
      - {step: end}
    """
    assert told(source) == [
        (
            "4:103 error unfinished-input workflow[1].next[0].args.t: `{{ o }}` reads the input `o` of the step"
            f" `call`, which only a worker can finish (workflow[1].args.o) {WRITE_IT}"
        )
    ]


def test_what_took_along_the_values_that_it_reads_is_handed_on() -> None:
    """The inputs of the step that a transition left, of which the next one may have others."""
    source = """
    workflow:
      - {step: start, args: {city: Oslo}, next: [{step: call, args: {city: Rome, token: "{{ env.T }}{{ city }}"}}]}
      - {step: call, type: http, url: x, next: [{step: end, args: {t: "{{ token }}"}}]}
      - {step: end}
    """
    assert told(source) == []


def test_a_retry_condition_does_not_read_it() -> None:
    """It sees the inputs too."""
    assert told(of_call('retry: {max_attempts: 2, retry_when: "{{ token }}"}, next: end')) == [
        (
            "4:75 error unfinished-input workflow[1].retry.retry_when: `{{ token }}` reads the input `token`"
            f" of the step `call`, which only a worker can finish (workflow[0].next.args.token) {RETURN_IT}"
        )
    ]


def test_a_router_does_not_read_it() -> None:
    """No worker stands between the transition and the router's condition."""
    source = """
    workflow:
      - {step: start, next: [{step: choose, args: {stage: "{{ env.STAGE }}"}}]}
      - {step: choose, next: [{when: "{{ args.stage == 'live' }}", step: end}]}
      - {step: end}
    """
    assert told(source) == [
        (
            "4:34 error unfinished-input workflow[1].next[0].when: `{{ args.stage == 'live' }}` reads the input `stage`"
            f" of the step `choose`, which only a worker can finish (workflow[0].next[0].args.stage) {RETURN_IT}"
        )
    ]


def test_the_result_of_end_does_not_read_it() -> None:
    """By name, or with all of `args`."""
    source = """
    workflow:
      - {step: start, next: [{step: end, args: {id: "{{ job.id }}"}}]}
      - {step: end, result: {all: "{{ args }}"}}
    """
    assert told(source) == [
        (
            "4:31 error unfinished-input workflow[1].result.all: `{{ args }}` reads the input `id` of the step `end`,"
            f" which only a worker can finish (workflow[0].next[0].args.id) {RETURN_IT}"
        )
    ]


def test_an_own_input_that_reads_one_is_one() -> None:
    """It is left to the worker with it."""
    source = """
    workbook:
      - {name: ask, type: http, url: x, args: {own: "{{ env.A }}"}}
    workflow:
      - {step: start, next: call}
      - {step: call, type: workbook, task: ask, next: [{when: "{{ own }}", step: end}]}
      - {step: end}
    """
    assert told(source) == [
        (
            "6:59 error unfinished-input workflow[1].next[0].when: `{{ own }}` reads the input `own`"
            f" of the step `call`, which only a worker can finish (workbook[0].args.own) {RETURN_IT}"
        )
    ]


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
def test_what_stands_beside_it_is_read(condition: str) -> None:
    """Another key of the same mapping, whether it was given, a result's key of the same name."""
    assert told(of_call(f'next: [{{when: "{{{{ {condition} }}}}", step: end}}]')) == []


@pytest.mark.parametrize("read", ["args.get('token')", "args.get('n', token)", "args.get(n)", "cfg.get('a', 1)"])
def test_a_key_that_is_asked_for_by_a_method_is_read(read: str) -> None:
    """And so is what stands in its place; of a key that is not known beforehand all may be."""
    errors = told(of_call(f'next: [{{when: "{{{{ {read} }}}}", step: end}}]'))
    assert any("error unfinished-input" in line for line in errors)


def test_an_own_input_that_every_transition_overrides_is_none() -> None:
    """It is never rendered."""
    source = """
    workflow:
      - {step: start, next: [{step: call, args: {n: 1}}]}
      - {step: call, type: http, url: x, args: {n: "{{ env.N }}"}, next: [{when: "{{ n > 0 }}", step: end}]}
      - {step: end}
    """
    assert told(source) == []


@pytest.mark.parametrize("given", ["token: 1", "b: 1"])
def test_a_string_for_the_next_worker_does_not_read_it(given: str) -> None:
    """Nor does it find the next step's input of that name."""
    string = f'{{step: more, args: {{t: "{{{{ env.A }}}}{{{{ token }}}}", {given}}}}}'
    assert told(of_call(f"next: [{string}]") + "\n      - {step: more, type: http, url: x, next: end}\n") == [
        (
            "4:68 error unfinished-input workflow[1].next[0].args.t: `{{ env.A }}{{ token }}` reads the input `token`"
            f" of the step `call`, which only a worker can finish (workflow[0].next.args.token) {WRITE_IT}"
        )
    ]


def test_a_string_for_the_next_worker_finds_the_inputs_of_the_step_that_is_left() -> None:
    """Not those of the next step: what it names is what it would be without a word of the worker."""
    source = """
    workflow:
      - {step: start, args: {city: Oslo}, next: [{step: end, args: {a: "{{ env.A }}{{ city }}{{ own }}{{ a }}"}}]}
      - {step: end, type: http, url: x, args: {own: 1}}
    """
    at = "3:68 warning unknown-name workflow[0].next[0].args.a: the template names"
    nowhere = "which is neither a step, a workload key nor a scope word"
    found = [line.partition(" (")[0] for line in told(source)]
    assert found == [f"{at} `{name}`, {nowhere}" for name in ("a", "own")]


PLAYBOOK = """
workload: {host: "{{ env.HOST }}", db: {user: "{{ keychain.db.user }}", port: 1}}
workflow:
  - {step: start, next: {step: call, args: %s}}
  - {step: call, type: playbook, path: p, %s}
"""
NONE_RUNS = (
    "`call` starts, and only a worker can finish it, but none runs a playbook"
    " (let the playbook's own steps name it, and hand on what it is called)"
)


@pytest.mark.parametrize(
    "arriving, own, place",
    [
        ('{t: ["{{ secret.t }}"]}', "", "4:49 error unfinished-input workflow[0].next.args.t[0]"),
        ("{}", 'args: {t: ["{{ secret.t }}"]}', "5:54 error unfinished-input workflow[1].args.t[0]"),
        (
            "{}",
            'loop: {collection: [1], element: i}, data: {t: ["{{ secret.t }}"]}',
            "5:91 error unfinished-input workflow[1].data.t[0]",
        ),
    ],
)
def test_a_child_is_given_no_words_of_the_worker(arriving: str, own: str, place: str) -> None:
    """What it is given is data, and nobody would finish it."""
    what = "`{{ secret.t }}` is the input `t[0]` of the playbook that"
    assert told(PLAYBOOK % (arriving, own)) == [f"{place}: {what} {NONE_RUNS}"]


@pytest.mark.parametrize(
    "arriving, own, place, key",
    [
        ('{t: "<{{ host }}>"}', "", "4:48 warning unfinished-default workflow[0].next.args.t: `<{{ host }}>`", "host"),
        (
            "{}",
            "args: '{{ workload.db }}'",
            "5:49 warning unfinished-default workflow[1].args: `{{ keychain.db.user }}`",
            "db.user",
        ),
    ],
)
def test_a_child_that_is_given_a_default_for_the_worker_is_warned_of(
    arriving: str, own: str, place: str, key: str
) -> None:
    """The payload may bring another, else the step fails."""
    name = "t" if key == "host" else "user"
    what = f"is the input `{name}` of the playbook that `call` starts, and reads the default `workload.{key}`,"
    assert told(PLAYBOOK % (arriving, own)) == [f"{place} {what} {UNLESS} {RETURN_IT}"]


@pytest.mark.parametrize(
    "keys, place",
    [
        ("next: [{when: host == 1, step: end}]", "workflow[1].next[0].when: `{{ host == 1 }}`"),
        (
            'retry: {max_attempts: 2, stop_when: "{{ workload.host }}"}',
            "workflow[1].retry.stop_when: `{{ workload.host }}`",
        ),
        (
            "args: {h: '{{ host }}'}, next: [{when: h, step: end}]",
            "workflow[1].next[0].when: `{{ h }}` reads the input `h`, and with it",
        ),
    ],
)
def test_what_the_broker_evaluates_with_a_default_for_the_worker_is_warned_of(keys: str, place: str) -> None:
    """The payload may bring another."""
    source = f"""
    workload: {{host: "{{{{ env.HOST }}}}"}}
    workflow:
      - {{step: start, next: call}}
      - {{step: call, type: http, url: "{{{{ host }}}}", {keys}}}
      - {{step: end, desc: x}}
    """
    reads = "" if "reads" in place else " reads"
    [finding, *_] = told(source)
    expected = f"warning unfinished-default {place}{reads} the default `workload.host`, {UNLESS} {RETURN_IT}"
    assert finding.partition(" ")[2] == expected


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
    """No worker stands behind it, and there is no doubt about it."""
    name = step.split(",", maxsplit=1)[0].removeprefix("step: ")
    found = told(
        f"workflow:\n  - {{step: start, next: {name}}}\n  - {{{step}}}\n  - {{step: {'end' if name == 'x' else 'x'}}}\n"
    )
    message = "the template names `env`, which only a worker knows, and the broker evaluates it"
    assert f"{place}: {message} {RETURN_IT}" in found
    assert [one for one in found if "unknown-name" in one] == []


def test_inputs_that_are_one_template_name_no_word_of_the_worker() -> None:
    """They are a mapping when the job is made."""
    source = """
    workload: {host: "{{ env.HOST }}"}
    workflow:
      - {step: start, next: {step: end, args: "{{ keychain.db }}"}}
      - {step: end, type: http, url: x, args: "{{ workload.host }}"}
    """
    assert told(source) == [
        (
            "4:43 error worker-word workflow[0].next.args: `args` is one template, which the broker evaluates, and it"
            ' names a word of the worker (write a mapping, whose values may: args: {name: "{{ … }}"})'
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
def test_what_a_worker_evaluates_may_name_its_words(keys: str) -> None:
    """The save of an `end` that saves, the bounds of what it iterates itself."""
    assert told(f"workflow:\n  - {{step: start, next: end}}\n  - {{step: end, {keys}}}\n") == []


def test_an_input_or_a_workload_key_called_like_a_word_of_the_worker_is_none() -> None:
    """It is data."""
    source = """
    workload: {env: {K: 1}}
    workflow:
      - {step: start, next: {step: end, args: {job: 5}}}
      - {step: end, result: "{{ env.K + job }}"}
    """
    assert told(source) == []


def test_it_is_refused_where_a_playbook_came_by_sql() -> None:
    """Not by `validate` alone: the execution fails instead of deciding on a text."""
    with pytest.raises(PlaybookError, match="which only a worker can finish"):
        compiled(of_call('next: [{when: "{{ token }}", step: end}]'))

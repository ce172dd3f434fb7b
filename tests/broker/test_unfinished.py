"""Strings left for the worker: which of a job's strings are templates, and what the worker gets to finish them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from noetl_broker.broker.model import Job
from noetl_broker.broker.state import decode, encode
from noetl_broker.broker.story import play_turns, read_events
from noetl_broker.worker.finish import finisher_of, marked
from tests.stories import playbook

START = "> execution_start"
BAIT = "{{ secret.x }}"


def jobs_of(body: str, story: str = START) -> list[Job]:
    """All jobs that the events of a story bring, in order."""
    turns = play_turns(playbook(body), read_events(story))
    return [job for _, decision, _ in turns for job in decision.jobs]


def job_of(*steps: str, start: str = "next: s", workload: str = "{}", story: str = START, workbook: str = "[]") -> Job:
    """The last job of a story of steps, the first of which comes after `start`."""
    lines = [f"workload: {workload}", f"workbook: {workbook}", "workflow:", f"- {{step: start, {start}}}"]
    return jobs_of("\n".join([*lines, *(f"- {{step: {step}}}" for step in steps)]) + "\n", story)[-1]


def at(action: Any, path: Any) -> Any:
    """The value at a path of an action."""
    for part in path:
        action = action[part]
    return action


def left(job: Job) -> list[list[str | int]]:
    """The paths of what is left, sorted."""
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
def test_a_job_says_which_of_its_strings_are_templates(keys: str, paths: list[list[str | int]]) -> None:
    """By their paths in the action, an empty list where there are none."""
    job = job_of(f"s, {keys}", workload="{n: [1]}")
    assert left(job) == paths
    assert all(isinstance(at(job.action, path), str) for path in paths)


def test_a_string_of_a_workbook_action_is_left_unless_its_step_overrides_it() -> None:
    """An input of the step hides one of the action."""
    workbook = '[{name: w, type: http, url: "{{ env.u }}", data: {a: "{{ secret.x }}", b: "{{ secret.x }}"}}]'
    story = f'> execution_start {{"n": "{BAIT}"}}'
    job = job_of('s, type: workbook, task: w, args: {a: "{{ n }}"}', workbook=workbook, story=story)
    assert left(job) == [["args", "b"], ["data", "b"], ["url"]]
    assert job.action["data"] == {"a": BAIT, "b": BAIT}


def test_inputs_of_one_template_are_data_and_hide_what_stands_under_them() -> None:
    """Whatever that mapping holds."""
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
    assert left(job) == [["args", "b"], ["with", "b"]]


STAGE = """{host: "{{ env.HOST }}", url: "http://{{ host }}/", db: {user: "{{ env.U }}", port: 1}, city: Oslo}"""


@pytest.mark.parametrize(
    "text, value, paths",
    [
        ("workload.host", "{{ env.HOST }}", [[]]),
        ("host", "{{ env.HOST }}", [[]]),
        ("spec['host']", "{{ env.HOST }}", [[]]),
        ("work.url", "http://{{ host }}/", [[]]),
        ("context.db", {"user": "{{ env.U }}", "port": 1}, [["user"]]),
        ("workload.host | upper", "{{ workload.host | upper }}", [[]]),
        ("[workload.city, db]", "{{ [workload.city, db] }}", [[]]),
        ("workload.city", "Oslo", []),
        ("db.port", 1, []),
        ("workload.db.port", 1, []),
        ("workload.host is defined", True, []),
        ("workload.get('host')", "{{ env.HOST }}", [[]]),
        ("workload.get('db').get('port')", 1, []),
        ("workload.get('city', 'Rome')", "Oslo", []),
        ("workload.get('none', 'Rome')", "Rome", []),
        ("workload.get('none', host)", "{{ workload.get('none', host) }}", [[]]),
        ("workload.get('host', 'x')", "{{ workload.get('host', 'x') }}", [[]]),
        ("workload.get('db', {}).get('port')", "{{ workload.get('db', {}).get('port') }}", [[]]),
        ("workload.get(city)", "{{ workload.get(city) }}", [[]]),
        ("workload.get('none', default=host)", "{{ workload.get('none', default=host) }}", [[]]),
        ("workload.get('city', other=host)", "{{ workload.get('city', other=host) }}", [[]]),
    ],
)
def test_a_default_for_the_worker_stays_one_wherever_it_is_read(text: str, value: Any, paths: Any) -> None:
    """Handed on as it is, or left with the string that makes something of it; what reads others is rendered."""
    job = job_of(f's, type: http, url: u, body: ["{{{{ {text} }}}}"], args: {{a: "{{{{ {text} }}}}"}}', workload=STAGE)
    assert job.action["body"] == [value]
    assert job.action["args"] == {"a": value}
    assert left(job) == sorted([[*at, *path] for at in (["args", "a"], ["body", 0]) for path in paths], key=repr)
    told = [["workload", "host"], ["workload", "url"], ["workload", "db", "user"]]
    assert job.context.get("unfinished", []) == (told if paths else [])


def test_a_default_that_an_input_would_change_is_not_handed_on() -> None:
    """Beside an input called `host`, the text of `url` would mean another: the string that reads it is left."""
    job = job_of('s, type: http, url: "{{ workload.url }}", args: {host: here}', workload=STAGE)
    assert job.action["url"] == "{{ workload.url }}"
    assert left(job) == [["url"]]


def test_a_default_that_the_payload_replaces_is_data() -> None:
    """Whatever the payload looks like; the others are left all the same."""
    story = '> execution_start {"host": "{{ secret.x }}", "db": {"user": "me"}}'
    keys = 'url: "{{ url }}", body: "{{ workload.db.user }}", headers: {h: "{{ host }}"}'
    job = job_of(f"s, type: http, {keys}", workload=STAGE, story=story)
    assert (job.action["url"], job.action["body"]) == ("http://{{ secret.x }}/", "me")
    assert job.action["headers"] == {"h": BAIT}
    assert left(job) == []
    assert "unfinished" not in job.context


def test_an_input_hides_a_default_of_its_name() -> None:
    """It is data, and so is what reads it."""
    job = job_of('s, type: http, url: "{{ host }}", args: {host: here}', workload=STAGE)
    assert job.action["url"] == "here"
    assert left(job) == []


def test_a_transition_leaves_what_reads_a_default() -> None:
    """For the worker of the next step, where it means the same."""
    start = """next: [{step: s, args: {h: "{{ workload.host }}", all: "{{ workload.db }}", u: "<{{ url }}>"}}]"""
    job = job_of("s, type: python, code: x", start=start, workload=STAGE)
    assert job.action["args"] == {"h": "{{ env.HOST }}", "all": {"user": "{{ env.U }}", "port": 1}, "u": "<{{ url }}>"}
    assert left(job) == [["args", "all", "user"], ["args", "h"], ["args", "u"]]


@pytest.mark.parametrize("start, own", [('next: [{step: s, args: "{{ workload.db }}"}]', ""), ("next: s", "args: x")])
def test_inputs_of_one_template_keep_what_is_unfinished_in_the_mapping(start: str, own: str) -> None:
    """A mapping that is handed on as it is."""
    own = own.replace("x", '"{{ workload.db }}"')
    job = job_of(f"s, type: python, code: x, {own}", start=start, workload=STAGE)
    assert job.action["args"] == {"user": "{{ env.U }}", "port": 1}
    assert left(job) == [["args", "user"]]


HANDED = """
workflow:
- {step: start, next: [{step: a, args: {token: "{{ secret.t }}", deep: [{k: "{{ env.K }}"}], n: 1}}]}
- {step: a, type: python, code: x, next: [{step: b, args: %s}]}
- {step: b, type: python, code: x}
"""


@pytest.mark.parametrize(
    "args, given, paths",
    [
        ('{t: "{{ token }}", n: "{{ n }}"}', {"t": "{{ secret.t }}", "n": 1}, [["args", "t"]]),
        ("{t: \"{{ args.get('token') }}\"}", {"t": "{{ secret.t }}"}, [["args", "t"]]),
        ("{n: \"{{ args.get('n', 2) }}\"}", {"n": 1}, []),
        ('{d: "{{ deep }}"}', {"d": [{"k": "{{ env.K }}"}]}, [["args", "d", 0, "k"]]),
        ('{d: ["{{ args.deep[0] }}"]}', {"d": [{"k": "{{ env.K }}"}]}, [["args", "d", 0, "k"]]),
        (
            '"{{ args }}"',
            {"token": "{{ secret.t }}", "deep": [{"k": "{{ env.K }}"}], "n": 1},
            [["args", "deep", 0, "k"], ["args", "token"]],
        ),
    ],
)
def test_a_transition_hands_on_what_it_was_given_unfinished(args: str, given: Any, paths: Any) -> None:
    """As it is, still a template for the next worker."""
    [*_, job] = jobs_of(HANDED % args, f"{START}\n> action_completed a 1")
    assert job.action["args"] == given
    assert left(job) == paths


def test_a_condition_asks_for_a_key_that_stands_beside_a_secret() -> None:
    """`.get` reads the key that it names, not the whole mapping."""
    story = f"{START}\n> action_completed a 1"
    bodies = """
        workload: {token: "{{ secret.t }}", debug: true}
        workflow:
        - {step: start, next: [{step: a, args: {token: "{{ secret.t }}", n: 1}}]}
        - {step: a, type: python, code: x, next: [{when: "CONDITION", step: b}]}
        - {step: b, type: python, code: x}
        """
    for condition in ("workload.get('debug', false)", "args.get('n') == 1", "context.get('none', n) == 1"):
        assert [job.step for job in jobs_of(bodies.replace("CONDITION", condition), story)] == ["a", "b"]


@pytest.mark.parametrize("word", ["env", "job", "secret", "secrets", "keychain"])
def test_a_step_called_like_a_word_of_the_worker_wins(word: str) -> None:
    """Conditions, transitions, tasks, their `save` and the payload of a child read its result."""
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
    _, asked, called = (turn[1] for turn in play_turns(playbook(body.replace("WORD", word)), read_events(story)))
    [job] = asked.jobs
    assert (job.action["args"], job.action["url"], job.action["save"]) == ({"i": 7}, "x/7", {"data": {"s": 7}})
    assert left(job) == []
    assert [child.payload for child in called.children] == [{"t": 7}]


def test_other_words_of_the_worker_stay_its_own_beside_such_a_step() -> None:
    """And a default of the workload, which is there before any step, means the worker's word."""
    job = job_of(
        'secrets, type: python, code: x, args: {a: "{{ env.A }}{{ secrets.v }}", d: "{{ workload.d }}"}',
        start="next: secrets",
        workload='{d: "{{ secrets.x }}"}',
    )
    assert job.action["args"] == {"a": "{{ env.A }}{{ secrets.v }}", "d": "{{ workload.d }}"}
    assert left(job) == [["args", "a"], ["args", "d"]]


@pytest.mark.parametrize(
    "arriving, own, told",
    [
        ("", 'args: {a: "{{ workload.d }}", b: "x{{ workload.d }}"}', {"a": "ours", "b": "xours"}),
        (', args: {a: "{{ workload.d }}", b: "x{{ d }}"}', "body: 1", {"a": "ours", "b": "xours"}),
        ("", 'args: {a: "{{ workload.deep }}"}', {"a": {"t": "ours"}}),
        ("", 'args: {a: "{{ named }}", b: "{{ key }}"}', {"a": "1ours", "b": {"v": 2}}),
        ("", 'args: {a: "{{ over }}"}', {"a": "<ours>"}),
        ("", 'args: "{{ workload.safe }}"', {"t": "host"}),
    ],
)
def test_a_default_means_what_it_meant_before_any_step(arriving: str, own: str, told: dict[str, Any]) -> None:
    """Also where steps called like a word of the worker, or like a key of the workload, have results by then."""
    workload = {
        "key": 1,
        "d": "{{ secrets.t }}",
        "deep": {"t": "{{ secrets.t }}"},
        "named": "{{ key }}{{ secret.t }}",
        "over": "<{{ d }}>",
        "safe": {"t": "{{ env.HOST }}"},
    }
    job = job_of(
        "secrets, type: python, code: x, next: key",
        f"key, type: python, code: x, next: [{{step: s{arriving}}}]",
        f"s, type: http, url: u, {own}",
        start="next: secrets",
        workload=json.dumps(workload),
        story=f'{START}\n> action_completed secrets {{"t": "theirs"}}\n> action_completed key {{"v": 2}}',
    )
    action = marked(json.loads(json.dumps(job.action)))
    context, of_job = {**job.context, "workload": workload}, {"execution_id": 1, "node_id": "1:s"}
    finisher = finisher_of(action, context, of_job, {"HOST": "host", "NOETL_SECRET_T": "ours"})
    assert finisher.finish(action["args"]) == told


def test_inputs_of_one_template_are_refused_where_a_default_in_them_would_mean_a_step() -> None:
    """There is no other place for it: its text would give the step's result."""
    body = """
        workload: {cfg: {t: "{{ secrets.t }}"}}
        workflow:
        - {step: start, next: secrets}
        - {step: secrets, type: python, code: x, next: s}
        - {step: s, type: http, url: u, args: "{{ workload.cfg }}"}
        """
    [*_, (_, decision, _)] = play_turns(playbook(body), read_events(f'{START}\n> action_completed secrets {{"t": 1}}'))
    assert (decision.events[-1].error or {}).get("message") == "only a worker can finish `workload.cfg.t`"


DEFAULTS = """
workload: {stage: "{{ env.STAGE }}", rows: "{{ env.ROWS }}"}
workflow:
- {step: start, %s}
- {step: a, %s}
- {step: end, %s}
"""


@pytest.mark.parametrize(
    "start, keys, end, at",
    [
        ("next: [{when: stage == 'x', step: a}]", "type: noop", "desc: x", "workflow[0].next[0].when"),
        ("next: a", "type: playbook, path: '{{ stage }}'", "desc: x", "workflow[1].path"),
        ("next: a", "type: playbook, path: p, args: {s: '{{ stage }}'}", "desc: x", "workflow[1]"),
        ("next: a", "type: playbook, path: p, args: '{{ dict(s=stage) }}'", "desc: x", "workflow[1].args"),
        (
            "next: [{step: a, args: {s: '{{ stage }}'}}]",
            "next: [{when: s, step: end}]",
            "x: 1",
            "workflow[1].next[0].when",
        ),
        ("next: end", "type: noop", "result: '{{ stage }}'", "workflow[2].result"),
        (
            "next: a",
            "type: iterator, collection: '{{ rows }}', element: i, task: {type: playbook, path: p}",
            "desc: x",
            "workflow[1].collection",
        ),
        (
            "next: a",
            "type: playbook, path: p, loop: {collection: [1], element: i, where: stage}",
            "desc: x",
            "workflow[1].loop.where",
        ),
    ],
)
def test_what_the_broker_evaluates_fails_on_a_default_for_the_worker(start: str, keys: str, end: str, at: str) -> None:
    """Its text is not its value. Where the payload brings one, that is taken."""
    body = DEFAULTS % (start, keys, end)
    [(_, decision, state)] = play_turns(playbook(body), read_events(START))
    assert state.status == "FAILED"
    error = decision.events[-1].error or {}
    assert (error["at"], error["message"].startswith("only a worker can finish")) == (at, True)
    [(_, _, state)] = play_turns(playbook(body), read_events('> execution_start {"stage": "x", "rows": [1]}'))
    assert state.status != "FAILED"


def test_a_condition_after_an_action_fails_on_an_input_that_reads_a_default() -> None:
    """The visit's job remembers which of its inputs are templates."""
    body = DEFAULTS % ("next: a", "type: http, url: u, args: {s: '{{ stage }}'}, next: [{when: s, step: end}]", "x: 1")
    *_, (_, decision, _) = play_turns(playbook(body), read_events(f"{START}\n> action_completed a 1"))
    assert [event.type for event in decision.events] == ["step_failed", "execution_failed"]
    assert (decision.events[0].error or {})["message"] == "only a worker can finish `s`"


def test_a_retry_condition_fails_on_a_default_for_the_worker() -> None:
    """There is no other attempt, and both messages are kept."""
    keys = "type: http, url: u, retry: {max_attempts: 2, retry_when: stage}"
    story = f'{START}\n> action_failed a {{"message": "no"}}'
    *_, (_, decision, _) = play_turns(playbook(DEFAULTS % ("next: a", keys, "x: 1")), read_events(story))
    error = decision.events[0].error or {}
    assert error["message"] == "no"
    assert error["retry_error"]["message"] == "only a worker can finish `stage`"


@pytest.mark.parametrize("condition, refused", [("error", None), ("args.error", "args.error")])
def test_a_word_of_a_retry_is_no_input_that_is_unfinished(condition: str, refused: str | None) -> None:
    """The word hides the input of its name; under `args` the input is read, and nobody knows its value."""
    keys = f"type: http, url: u, args: {{error: '{{{{ stage }}}}'}}, retry: {{retry_when: {condition}}}"
    story = f'{START}\n> action_failed a {{"message": "busy"}}'
    *_, (_, decision, _) = play_turns(playbook(DEFAULTS % ("next: a", keys, "x: 1")), read_events(story))
    assert decision.events[0].type == ("step_failed" if refused else "action_retry")
    told = (decision.events[0].error or {}).get("retry_error")
    assert (told or {}).get("message") == (f"only a worker can finish `{refused}`" if refused else None)


def test_items_of_an_iterator_are_given_what_is_unfinished_as_such() -> None:
    """Also those that start in a later turn, from what the iterator's own job says."""
    body = """
    workflow:
    - {step: start, next: [{step: s, args: {t: "{{ secret.t }}"}}]}
    - step: s
      type: iterator
      collection: [1, 2]
      element: i
      distribute: true
      task: {type: http, url: u, args: {v: "<{{ t }}>"}}
    """
    jobs = [job for job in jobs_of(body, f"{START}\n> action_completed s[0] 1") if not job.delegated]
    assert [job.place for job in jobs] == [0, 1]
    assert [job.action["args"]["v"] for job in jobs] == ["<{{ t }}>"] * 2
    assert all(["args", "v"] in left(job) for job in jobs)


def test_data_that_looks_like_a_template_is_not_left() -> None:
    """From the payload, from a result, through a field or an input."""
    job = job_of(
        "a, type: python, code: x, next: [{step: s, args: {t: '{{ a.v }}'}}]",
        's, type: http, url: "{{ p }}", command: "{{ a.v }}", with: {o: "{{ p }}"}',
        start="next: a",
        story='> execution_start {"p": "{{ secret.x }}"}\n> action_completed a {"v": "{{ secret.x }}"}',
    )
    assert job.action["url"] == job.action["args"]["t"] == job.action["with"]["o"] == BAIT
    assert left(job) == []


def test_a_transition_s_inputs_are_left_string_by_string() -> None:
    """One that overrides a template with data makes it data, and the other way round."""
    job = job_of(
        's, type: python, code: x, with: {a: "{{ secret.x }}", b: "{{ n }}", c: "{{ env.c }}"}',
        start="next: [{step: s, args: {a: '{{ n }}', b: '{{ secret.x }}'}}]",
        workload="{n: 1}",
        story='> execution_start {"n": "{{ secret.x }}"}',
    )
    assert job.action["args"] == {"a": BAIT, "b": BAIT, "c": "{{ env.c }}"}
    assert left(job) == [["args", "b"], ["args", "c"], ["with", "b"], ["with", "c"]]


JOIN = """
workflow:
- {step: start, next: [a, b]}
- {step: a, type: python, code: x, next: [{step: j, args: {t: "{{ secret.x }}", u: "{{ a }}", v: ["{{ env.v }}"]}}]}
- {step: b, type: python, code: x, next: [{step: j, args: {t: "{{ b }}", u: "{{ secret.x }}"}}]}
- {step: j, type: python, code: x}
"""


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_join_takes_the_paths_of_the_later_arc(order: str) -> None:
    """For each key, whichever came first."""
    completed = "".join(f'\n> action_completed {step} "{BAIT}"' for step in order)
    job = jobs_of(JOIN, START + completed)[-1]
    assert job.action["args"] == {"t": BAIT, "u": BAIT, "v": ["{{ env.v }}"]}
    assert left(job) == [["args", "u"], ["args", "v", 0]]


def test_a_waiting_arrival_remembers_in_its_row_what_is_left() -> None:
    """The state may be written down between two turns."""
    state = [state for _, _, state in play_turns(playbook(JOIN), read_events(f"{START}\n> action_completed a 1"))][-1]
    assert state.waiting["j"][0].left == (("t",), ("v", 0))
    assert decode(encode(state)) == state


def test_what_reads_an_unfinished_input_is_left_too() -> None:
    """The broker does not know that input; other strings it renders."""
    job = job_of(
        's, type: http, url: "{{ base }}", headers: {A: "a {{ token }}", B: "{{ city }}"}, with: {u: "<{{ token }}>"}',
        start="next: [{step: s, args: {token: '{{ secret.x }}', city: Oslo}}]",
        workload="{base: b}",
    )
    assert job.action["headers"] == {"A": "a {{ token }}", "B": "Oslo"}
    assert left(job) == [["args", "token"], ["args", "u"], ["headers", "A"], ["with", "u"]]


RESULTS = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: b}
- {step: b, type: python, code: x, next: c}
- {step: c, type: python, code: x, next: [{step: s, args: %s}]}
- {step: s, type: http, url: u, %s}
"""
ABC = f"{START}\n> action_completed a 1\n> action_completed b 2\n> action_completed c 3"


@pytest.mark.parametrize(
    "transition, own, named",
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
def test_the_context_has_the_results_that_left_strings_name(
    transition: str, own: str, named: dict[str, Any] | None
) -> None:
    """And no others: what the broker rendered needs none."""
    job = jobs_of(RESULTS % (transition, own), ABC)[-1]
    assert job.context.get("results") == named
    assert "result" not in job.context


def test_the_context_says_how_named_results_ended_that_did_not_simply_complete() -> None:
    """With the status and the error, so that the worker can finish `a.status` and `a.error`."""
    body = RESULTS.replace("{step: a,", "{step: a, on_error: continue,") % (
        "{}",
        'body: "{{ env.x }}{{ a.status }}{{ a.error.message }}{{ b.status }}{{ c }}{{ result.status }}"',
    )
    story = f"""{START}
    > action_failed a {{"message": "no"}}
    > action_completed b {{"status": "PARTIAL", "data": 2}}
    > action_completed c {{"status": "LATE", "data": 3, "error": "e"}}"""
    [*_, job] = jobs_of(body, story)
    assert job.context["results"] == {"a": None, "b": 2, "c": 3}
    assert job.context["outcomes"] == {
        "a": {"status": "FAILED", "error": {"step": "a", "message": "no"}},
        "b": {"status": "PARTIAL", "error": None},
        "c": {"status": "LATE", "error": "e"},
        "result": {"status": "LATE", "error": "e"},
    }


def test_the_context_has_the_result_handed_on_where_a_left_string_names_it() -> None:
    """Inside `save` the word is the worker's own."""
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
def test_inputs_that_others_name_do_not_say_what_the_worker_finishes(named: dict[str, Any]) -> None:
    """Whole inputs come from the payload: the secret stays where the author put it, and is the worker's own."""
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
    action = marked(json.loads(json.dumps(job.action)))
    context, told = {**job.context, "workload": payload}, {"execution_id": 1, "node_id": "1:s"}
    finisher = finisher_of(action, context, told, {"HOST": "host", "NOETL_SECRET_TOKEN": "ours"})
    finished = finisher.finish({key: action[key] for key in ("url", "auth")})
    assert finished == {"url": "host/{{ secret.token }}", "auth": "ours"}


def test_inputs_of_such_names_stay_where_nothing_is_left() -> None:
    """They are at the top level of the context as any other, for workers that look there."""
    assert job_of("s, type: http, url: u, args: {words: [1], results: 2}").context == {
        "words": [1],
        "results": 2,
        "step_name": "s",
        "visit": 1,
    }


def test_a_step_that_runs_hides_no_default_of_its_name() -> None:
    """Only a result does: until then the name is the workload's, and its text is no data."""
    job = job_of(
        'token, type: http, url: x, headers: {A: "{{ token }}", B: "{{ workload.token }}"}, args: {t: "{{ token }}"}',
        start="next: token",
        workload='{token: "{{ secret.api }}"}',
    )
    assert left(job) == [["args", "t"], ["headers", "A"], ["headers", "B"]]

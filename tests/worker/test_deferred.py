"""Deferred strings in the worker: which strings are rendered, and which are data."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_broker.worker.deferred import mark_deferred, renderer_of

ACTION: dict[str, Any] = {"args": {"city": "Paris"}}
CONTEXT: dict[str, Any] = {"workload": {"base": "http://x"}, "results": {"fetch": {"id": 5}}}
JOB = {"uuid": "42", "execution_id": 42, "node_id": "42:fetch"}
ENVIRONMENT = {"HOST": "h", "NOETL_BROKER_DSN": "dsn", "NOETL_CREDENTIAL_PG": '{"user": "me"}', "NOETL_SECRET_T": "t"}


@pytest.mark.parametrize(
    "text, expected",
    [
        ("{{ env.HOST }}/{{ city }}/{{ workload.base }}", "h/Paris/http://x"),
        ("{{ fetch.id + 0 * (env.HOST | length) }}", 5),
        ("{{ job.uuid }}", "42"),
        ("{{ secret.t }}{{ secrets.T }}", "tt"),
        ("{{ keychain.pg.user }}", "me"),
        ("{{ env.NOPE | default('none') }}", "none"),
        ("{{ secret.nope | default('none') }}", "none"),
        ("{{ env.NOETL_BROKER_DSN | default('hidden') }}", "hidden"),
        ("{{ city }} is data", "{{ city }} is data"),
        ("{{ not a template", "{{ not a template"),
        ("plain", "plain"),
    ],
)
def test_a_string_that_names_a_worker_side_word_is_rendered(text: str, expected: Any) -> None:
    """Every other string is data that the broker rendered."""
    renderer = renderer_of(ACTION, CONTEXT, JOB, ENVIRONMENT)
    assert renderer.render({"a": [text]}) == {"a": [expected]}


def rendered(action: dict[str, Any]) -> Any:
    """Render an action that lists its deferred strings."""
    renderer = renderer_of(action, CONTEXT, JOB, ENVIRONMENT)
    return renderer.render({key: value for key, value in mark_deferred(action).items() if key != "unfinished"})


def test_a_job_may_say_which_strings_are_templates() -> None:
    """Then data that looks like a template with a secret in it stays data."""
    value = {"headers": {"A": "{{ env.HOST }}", "B": "{{ secret.t }}"}, "list": ["{{ secret.t }}", "{{ job.uuid }}"]}
    assert rendered({**value, "unfinished": [["headers", "A"], ["list", 1]]}) == {
        "headers": {"A": "h", "B": "{{ secret.t }}"},
        "list": ["{{ secret.t }}", "42"],
    }


def test_a_job_may_say_that_nothing_is_a_template() -> None:
    """It has an empty list."""
    assert rendered({"a": "{{ secret.t }}", "unfinished": []}) == {"a": "{{ secret.t }}"}


@pytest.mark.parametrize("path", [["b"], ["a", "b"], ["a", 0], ["l", 7], ["l", "x"], [], "a", [["a"]], None])
def test_a_path_without_a_string_is_ignored(path: Any) -> None:
    """The job's other strings stay data."""
    assert rendered({"a": "{{ secret.t }}", "l": [1], "unfinished": [path]}) == {"a": "{{ secret.t }}", "l": [1]}


def test_only_the_marked_place_is_rendered() -> None:
    """The same text elsewhere, and rendered text, stay data."""
    action = {"a": "{{ secret.t }}", "b": "{{ secret.t }}", "c": "{{ fetch.id }}", "unfinished": [["a"], ["c"]]}
    context = {"results": {"fetch": {"id": "{{ secret.t }}"}}}
    renderer = renderer_of(action, context, JOB, ENVIRONMENT)
    assert renderer.render(mark_deferred(action)["a"]) == "t"
    assert renderer.render({key: action[key] for key in "bc"}) == {"b": "{{ secret.t }}", "c": "{{ secret.t }}"}


def test_a_deferred_input_sees_the_rendered_ones() -> None:
    """It sees no other deferred input; data stays data."""
    args = {
        "auth": "{{ env.HOST }} {{ raw }} {{ token | default('none') }}",
        "token": "{{ secret.t }}",
        "raw": "{{ secret.t }}",
    }
    action = mark_deferred({"args": args, "unfinished": [["args", "auth"], ["args", "token"]]})
    renderer = renderer_of(action, CONTEXT, JOB, ENVIRONMENT).with_inputs(args, ("args",), {})
    assert renderer.args == {"auth": "h {{ secret.t }} none", "token": "t", "raw": "{{ secret.t }}"}


WORKLOAD: dict[str, Any] = {
    "host": "{{ env.HOST }}",
    "url": "http://{{ env.HOST }}/{{ workload.path }}",
    "path": "{{ secret.t }}",
    "gone": "{{ secret.gone }}",
    "deep": {"list": ["{{ keychain.pg.user }}"]},
}
UNFINISHED = [["workload", "host"], ["workload", "url"], ["workload", "gone"], ["workload", "deep", "list", 0]]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("{{ workload.host }}", "h"),
        ("{{ work.host }}{{ context['host'] }}{{ spec.host }}{{ host }}", "hhhh"),
        ("{{ url }}", "http://h/{{ secret.t }}"),
        ("{{ workload.path }}", "{{ secret.t }}"),
        ("{{ workload.deep.list | first }}", "me"),
        ("{{ workload.deep }}", {"list": ["me"]}),
    ],
)
def test_a_deferred_default_is_rendered_where_a_template_reads_it(text: str, expected: Any) -> None:
    """Those under `unfinished` in the context. A secret that no template reads is not resolved."""
    action = {"a": text, "unfinished": [["a"]]}
    renderer = renderer_of(action, {"workload": WORKLOAD, "unfinished": UNFINISHED}, JOB, ENVIRONMENT)
    assert renderer.render(mark_deferred(action)["a"]) == expected


def test_an_input_hides_a_default_of_its_name() -> None:
    """The default is not rendered, and its secret is not resolved."""
    action = {"a": "{{ env.HOST }}{{ gone }}", "args": {"gone": 1}, "unfinished": [["a"]]}
    renderer = renderer_of(action, {"workload": WORKLOAD, "unfinished": UNFINISHED}, JOB, ENVIRONMENT)
    assert renderer.render(mark_deferred(action)["a"]) == "h1"


@pytest.mark.parametrize(
    "unfinished", [None, "x", ["x"], [[]], [["workload"]], [["workload", "no"]], [["args", "host"]]]
)
def test_a_path_without_a_default_is_ignored(unfinished: Any) -> None:
    """The workload stays data."""
    action = {"a": "{{ env.HOST }}{{ workload.host }}", "unfinished": [["a"]]}
    renderer = renderer_of(action, {"workload": WORKLOAD, "unfinished": unfinished}, JOB, ENVIRONMENT)
    assert renderer.render(mark_deferred(action)["a"]) == "h{{ env.HOST }}"


def test_results_have_status_and_error_from_the_context() -> None:
    """Without them COMPLETED and no error. Keys of the data come first."""
    text = "{{ env.HOST }} {{ a.status }} {{ a.error.message }} {{ fetch.status }} {{ own.status }} {{ this.status }}"
    context = {
        "results": {"a": None, "fetch": {"id": 5}, "own": {"status": "mine"}},
        "result": 1,
        "outcomes": {
            "a": {"status": "FAILED", "error": {"message": "no"}},
            "own": {"status": "FAILED", "error": None},
            "result": {"status": "LATE", "error": None},
        },
    }
    action = {"a": text, "unfinished": [["a"]]}
    renderer = renderer_of(action, context, JOB, ENVIRONMENT)
    assert renderer.render(mark_deferred(action)["a"]) == "h FAILED no COMPLETED mine LATE"


def test_templates_can_read_the_result_of_the_previous_step() -> None:
    """The broker puts it into the context if a template names it."""
    action = {"a": "{{ env.HOST }}{{ result.id }}{{ this.id }}", "unfinished": [["a"]]}
    renderer = renderer_of(action, {"result": {"id": 7}}, JOB, ENVIRONMENT)
    assert renderer.render(mark_deferred(action)["a"]) == "h77"

"""Templates that the broker left: which strings are finished, and which are data."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_broker.worker.finish import finisher_of, marked

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
def test_a_string_that_names_a_worker_s_word_is_finished(text: str, expected: Any) -> None:
    """And any other is left as it is: it is data that the broker rendered."""
    finisher = finisher_of(ACTION, CONTEXT, JOB, ENVIRONMENT)
    assert finisher.finish({"a": [text]}) == {"a": [expected]}


def finished(action: dict[str, Any]) -> Any:
    """Finish all of an action that says what in it is a template."""
    finisher = finisher_of(action, CONTEXT, JOB, ENVIRONMENT)
    return finisher.finish({key: value for key, value in marked(action).items() if key != "unfinished"})


def test_a_job_may_say_which_strings_are_templates() -> None:
    """Then data that looks like a template with a secret in it stays data."""
    value = {"headers": {"A": "{{ env.HOST }}", "B": "{{ secret.t }}"}, "list": ["{{ secret.t }}", "{{ job.uuid }}"]}
    assert finished({**value, "unfinished": [["headers", "A"], ["list", 1]]}) == {
        "headers": {"A": "h", "B": "{{ secret.t }}"},
        "list": ["{{ secret.t }}", "42"],
    }


def test_a_job_may_say_that_nothing_is_a_template() -> None:
    """An empty list is an answer."""
    assert finished({"a": "{{ secret.t }}", "unfinished": []}) == {"a": "{{ secret.t }}"}


@pytest.mark.parametrize("path", [["b"], ["a", "b"], ["a", 0], ["l", 7], ["l", "x"], [], "a", [["a"]], None])
def test_a_path_that_leads_to_no_string_is_nothing(path: Any) -> None:
    """The job's other strings are data all the same."""
    assert finished({"a": "{{ secret.t }}", "l": [1], "unfinished": [path]}) == {"a": "{{ secret.t }}", "l": [1]}


def test_a_mark_is_of_one_place_not_of_one_text() -> None:
    """The same text elsewhere, and what a template gave, stay data."""
    action = {"a": "{{ secret.t }}", "b": "{{ secret.t }}", "c": "{{ fetch.id }}", "unfinished": [["a"], ["c"]]}
    context = {"results": {"fetch": {"id": "{{ secret.t }}"}}}
    finisher = finisher_of(action, context, JOB, ENVIRONMENT)
    assert finisher.finish(marked(action)["a"]) == "t"
    assert finisher.finish({key: action[key] for key in "bc"}) == {"b": "{{ secret.t }}", "c": "{{ secret.t }}"}


def test_inputs_are_finished_before_what_reads_them() -> None:
    """An input may read another that reads none; data among them is data."""
    args = {"auth": "Bearer {{ token }} {{ raw }}", "token": "{{ secret.t }}", "raw": "{{ secret.t }}"}
    action = {"args": args, "unfinished": [["args", "auth"], ["args", "token"]]}
    finisher = finisher_of(action, CONTEXT, JOB, ENVIRONMENT).with_inputs(marked(action)["args"], ("args",), {})
    assert finisher.args == {"auth": "Bearer t {{ secret.t }}", "token": "t", "raw": "{{ secret.t }}"}


WORKLOAD: dict[str, Any] = {
    "host": "{{ env.HOST }}",
    "url": "http://{{ host }}/{{ workload.path }}",
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
def test_a_default_of_the_workload_is_finished_where_a_template_reads_it(text: str, expected: Any) -> None:
    """Those that the context calls unfinished, and by way of each other; what nobody reads is not asked for."""
    action = {"a": text, "unfinished": [["a"]]}
    finisher = finisher_of(action, {"workload": WORKLOAD, "unfinished": UNFINISHED}, JOB, ENVIRONMENT)
    assert finisher.finish(marked(action)["a"]) == expected


def test_an_input_hides_a_default_of_its_name() -> None:
    """It is not finished, and its secret not asked for."""
    action = {"a": "{{ env.HOST }}{{ gone }}", "args": {"gone": 1}, "unfinished": [["a"]]}
    finisher = finisher_of(action, {"workload": WORKLOAD, "unfinished": UNFINISHED}, JOB, ENVIRONMENT)
    assert finisher.finish(marked(action)["a"]) == "h1"


@pytest.mark.parametrize(
    "unfinished", [None, "x", ["x"], [[]], [["workload"]], [["workload", "no"]], [["args", "host"]]]
)
def test_a_path_that_leads_to_no_default_is_nothing(unfinished: Any) -> None:
    """The workload is data all the same."""
    action = {"a": "{{ env.HOST }}{{ workload.host }}", "unfinished": [["a"]]}
    finisher = finisher_of(action, {"workload": WORKLOAD, "unfinished": unfinished}, JOB, ENVIRONMENT)
    assert finisher.finish(marked(action)["a"]) == "h{{ env.HOST }}"


def test_results_have_the_status_and_the_error_that_the_context_tells() -> None:
    """COMPLETED and none where it tells nothing; the data's own key comes first."""
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
    finisher = finisher_of(action, context, JOB, ENVIRONMENT)
    assert finisher.finish(marked(action)["a"]) == "h FAILED no COMPLETED mine LATE"


def test_the_result_handed_on_is_a_word() -> None:
    """Where the broker put it into the context because a template names it."""
    action = {"a": "{{ env.HOST }}{{ result.id }}{{ this.id }}", "unfinished": [["a"]]}
    finisher = finisher_of(action, {"result": {"id": 7}}, JOB, ENVIRONMENT)
    assert finisher.finish(marked(action)["a"]) == "h77"

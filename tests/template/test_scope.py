"""The sources of names, their order, and the forms of a step's result."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from noetl_broker.template import Lazy, Moment, NotLoaded, Scope, StepResult, compile_text, unwrap, wrap
from tests.template.evaluating import error_message_of, scope_with, value_of


def test_inputs_come_before_steps_before_scope_words_before_the_workload() -> None:
    """Each source hides the later ones for its own names."""
    sources: dict[str, Any] = {
        "inputs": {"a": "input"},
        "steps": {"a": "step", "b": "step"},
        "words": {"a": "word", "b": "word", "c": "word"},
        "workload": {"a": "key", "b": "key", "c": "key", "d": "key"},
    }
    assert value_of("{{ a }} {{ b }} {{ c }} {{ d }}", **sources) == "input step word key"


def test_a_step_without_a_result_does_not_hide_a_word_or_a_key() -> None:
    """A step is a name once it has a result."""
    assert value_of("{{ city }}", workload={"city": "Paris"}, never_ran=("city",)) == "Paris"


@pytest.mark.parametrize("word", ["workload", "work", "context"])
def test_the_workload_has_three_names(word: str) -> None:
    """`workload`, `work` and `context`."""
    assert value_of("{{ " + word + ".city }}", workload={"city": "Paris"}) == "Paris"
    assert value_of("{{ " + word + " }}", workload={"city": "Paris"}) == {"city": "Paris"}


def test_spec_is_the_workload_of_old_documents() -> None:
    """A key `spec` of the workload hides it."""
    assert value_of("{{ spec.city }}", workload={"city": "Paris"}) == "Paris"
    assert value_of("{{ spec.city }}", workload={"spec": {"city": "Oslo"}, "city": "Paris"}) == "Oslo"


def test_args_has_all_inputs() -> None:
    """By name, and as one mapping."""
    assert value_of("{{ args.a + a }}", inputs={"a": 2}) == 4
    assert value_of("{{ args }}") == {}


def test_a_key_wins_over_a_method() -> None:
    """`workload.items` is the key; with parentheses it is the method."""
    assert value_of("{{ workload.items }}", workload={"items": [1]}) == [1]
    assert value_of("{{ items }}", workload={"items": [1]}) == [1]
    assert value_of("{{ x.keys | default('none') }}", inputs={"x": {}}) == "none"
    assert value_of("{{ workload.items() }}", workload={"items": [1]}) == [["items", [1]]]


def test_the_name_of_a_step_gives_its_data() -> None:
    """Data of any type."""
    assert value_of("{{ get }}", steps={"get": [1, 2]}) == [1, 2]
    assert value_of("{{ get.temp }}", steps={"get": {"temp": 30}}) == 30
    assert value_of("{{ get }}", steps={"get": None}) is None


@pytest.mark.parametrize("name", ["data", "result"])
def test_data_and_result_are_the_data_unless_it_has_such_a_key(name: str) -> None:
    """`step.data` and `step.result`: with a dot, in quotes, and through `results`."""
    for written in (f"get.{name}", f"get['{name}']", f"results.get.{name}", f"results['get'].{name}"):
        source = "{{ " + written + " }}"
        assert value_of(source, steps={"get": [1]}) == [1]
        assert value_of(source, steps={"get": {"x": 1}}) == {"x": 1}
        assert value_of(source, steps={"get": {name: 2}}) == 2


def test_status_and_error_come_from_the_envelope_unless_the_data_shadows_them() -> None:
    """So a condition can ask why a step with `on_error: continue` failed."""
    failed = {"get": StepResult(None, "FAILED", {"message": "no"})}
    assert value_of("{{ get.status }}: {{ get.error.message }}", steps=failed) == "FAILED: no"
    assert value_of("{{ results.get.status }}", steps=failed) == "FAILED"
    assert value_of("{{ get.status }}", steps={"get": {"x": 1}}) == "COMPLETED"
    assert value_of("{{ get.error }}", steps={"get": {"x": 1}}) is None
    assert value_of("{{ get.status }}", steps={"get": {"status": "own"}}) == "own"


def test_only_steps_have_an_envelope() -> None:
    """`data` of an input or of a local name is a plain key."""
    assert value_of("{{ x.data | default('none') }}", inputs={"x": {"a": 1}}) == "none"
    assert value_of("{% for get in [{'a': 1}] %}{{ get.status | default('-') }}{% endfor %}", steps={"get": 1}) == "-"


def test_results_reaches_a_step_of_any_name() -> None:
    """The name may be no identifier, or computed."""
    steps = {"fetch all": {"n": 1}, "b": 2}
    assert value_of("{{ results['fetch all'].n }}", steps=steps) == 1
    assert value_of("{{ results['fetch ' ~ 'all'].data.n }}", steps=steps) == 1
    assert value_of("{{ results }}", steps=steps, never_ran=("c",)) == {"fetch all": {"n": 1}, "b": 2}
    assert value_of("{{ results | length }}", steps=steps) == 2
    assert value_of("{{ results.c is defined }}", steps=steps, never_ran=("c",)) is False


def test_result_and_this_read_like_the_completed_step() -> None:
    """They have its envelope."""
    words = {"this": StepResult({"url": "u"}), "result": StepResult(None, "FAILED", "why")}
    assert value_of("{{ this.data.url }} {{ this.status }}", words=words) == "u COMPLETED"
    assert value_of("{{ result.error }}", words=words) == "why"


def test_loop_has_its_keys() -> None:
    """`_loop.index` and the others."""
    assert value_of("{{ _loop.index + 1 }}", words={"_loop": {"index": 0, "count": 2, "item": 5}}) == 1


def test_a_lazy_word_is_computed_once_when_it_is_read() -> None:
    """It may cost a query."""
    made: list[int] = []

    def make() -> str:
        made.append(1)
        return "made"

    word = Lazy(make)
    scope = scope_with(words={"result": word})
    assert compile_text("{{ 1 }}", "here").evaluate(scope) == 1
    assert made == []
    assert compile_text("{{ result }}{{ result }}", "here").evaluate(scope) == "mademade"
    assert made == [1]


def test_not_loaded_is_raised_unchanged() -> None:
    """`NotLoaded` is no error of the template."""

    def missing(name: str) -> StepResult:
        raise NotLoaded(frozenset({name}))

    scope = Scope(
        inputs={},
        steps=missing,
        words={},
        workload=dict,
        is_step={"get"},
        moment=Moment(execution_id=1, turn=1, at=datetime(2025, 1, 1, tzinfo=UTC)),
    )
    with pytest.raises(NotLoaded) as caught:
        compile_text("{{ get.temp | default(1) }}", "here").evaluate(scope)
    assert caught.value.wants == {"get"}


def test_now_is_the_time_of_the_turn() -> None:
    """Templates never read the clock."""
    assert value_of("{{ now() }}") == "2025-01-02T03:04:05.000000Z"


def test_uuid_depends_on_execution_turn_and_ordinal() -> None:
    """Each call gives another one; each replay gives the same ones."""
    first = value_of("{{ uuid() }} {{ uuid() }}")
    assert first == value_of("{{ uuid() }} {{ uuid() }}")
    assert len(set(first.split())) == 2


def test_the_name_of_a_function_can_be_data() -> None:
    """Only parentheses make it a call."""
    assert value_of("{{ now }} {{ range }}", inputs={"now": 1, "range": 2}) == "1 2"
    assert "is undefined" in error_message_of("{{ now }}")


@pytest.mark.parametrize(
    "result,expected",
    [
        ({"data": 1}, 1),
        ({"id": "x", "status": "error", "data": {"data": 2}, "error": None, "meta": {}}, {"data": 2}),
        ({"data": 1, "error": None, "meta": {}}, 1),
        ({"id": "x", "status": "success", "duration": 0.25, "data": [1]}, [1]),
        ({"data": 1, "rows": 2}, {"data": 1, "rows": 2}),
        ({"id": 7, "status": "paid", "data": {}}, {"id": 7, "status": "paid", "data": {}}),
        ({"id": 7, "data": {}}, {"id": 7, "data": {}}),
        ({"status": None, "data": {}}, {"status": None, "data": {}}),
        ({"status": ["success"], "data": {}}, {"status": ["success"], "data": {}}),
        ({"status": "success"}, {"status": "success"}),
        ([{"data": 1}], [{"data": 1}]),
        ("data", "data"),
        (None, None),
    ],
)
def test_an_envelope_is_unwrapped_once(result: Any, expected: Any) -> None:
    """An envelope has `data`, no foreign keys, and a status of NoETL's worker if it has `id` or `status`."""
    assert unwrap(result) == expected


@pytest.mark.parametrize("data", [{"data": 1}, {"id": 1, "status": "error", "data": {"data": 2}}, {"a": 1}, [1], None])
def test_unwrap_reverses_wrap(data: Any) -> None:
    """Data that look like an envelope are wrapped in one."""
    assert unwrap(wrap(data)) == data
    assert (wrap(data) == data) == (unwrap(data) == data)

"""Trees: JSON values whose strings are rendered or left for the worker."""

from __future__ import annotations

import pytest

from noetl_broker.template import SAVE_WORDS, WORKER_WORDS, Allowance, TemplateError, compile_tree
from tests.template.evaluating import scope_with


def test_mappings_and_lists_are_rendered_at_every_level() -> None:
    """Keys are never templates. Other values do not change."""
    tree = compile_tree({"a": ["{{ n }}", 1, None], "{{ n }}": {"b": "n={{ n }}"}}, "inputs")
    assert tree.render(scope_with(inputs={"n": 3})) == {"a": [3, 1, None], "{{ n }}": {"b": "n=3"}}
    assert tree.names == {"n"}
    assert tree.constant is False


def test_a_tree_without_templates_renders_to_itself() -> None:
    """It is not copied."""
    value = {"a": [1, {"b": "text"}]}
    tree = compile_tree(value, "inputs")
    assert tree.constant is True
    assert tree.render(scope_with()) is value


def test_parts_without_templates_are_shared() -> None:
    """Only the path to a template is copied."""
    value = {"fixed": [1, 2], "x": "{{ n }}"}
    rendered = compile_tree(value, "inputs").render(scope_with(inputs={"n": 3}))
    assert rendered == {"fixed": [1, 2], "x": 3}
    assert rendered["fixed"] is value["fixed"]
    assert value["x"] == "{{ n }}"


@pytest.mark.parametrize("value,expected", [("{{ n }}", 3), ("x", "x"), (5, 5), (None, None), (["{{ n }}"], [3])])
def test_a_tree_may_be_any_value(value: object, expected: object) -> None:
    """A text, a number, null."""
    assert compile_tree(value, "result").render(scope_with(inputs={"n": 3})) == expected


def test_strings_that_read_a_word_of_the_worker_are_deferred() -> None:
    """All others are rendered. The tree has the other names that deferred strings read."""
    tree = compile_tree(
        {"url": "{{ env.HOST }}/{{ get.path }}", "token": "{{ secret.t }}", "city": "{{ city }}"},
        "step",
        worker_words=WORKER_WORDS,
    )
    assert tree.render(scope_with(inputs={"city": "Paris"})) == {
        "url": "{{ env.HOST }}/{{ get.path }}",
        "token": "{{ secret.t }}",
        "city": "Paris",
    }
    assert tree.names == {"city"}
    assert tree.worker_names == {"get"}


def test_results_read_by_deferred_strings_are_separate() -> None:
    """The broker loads some results to render and others for the job."""
    tree = compile_tree(["{{ results['a b'].x }}", "{{ job.uuid }} {{ results.c }}"], "step", worker_words=WORKER_WORDS)
    assert tree.results == frozenset({"a b"})
    assert tree.worker_results == frozenset({"c"})
    assert compile_tree("{{ env[results | first] }}", "x", worker_words=WORKER_WORDS).worker_results is None


def test_save_defers_result_and_this() -> None:
    """In `save` they are the worker's own result."""
    save = {"data": {"v": "{{ result.value }}", "w": "{{ this.w }}", "id": "{{ execution_id }}"}}
    tree = compile_tree(save, "save", worker_words=SAVE_WORDS)
    assert tree.render(scope_with(words={"execution_id": "9", "result": {}})) == {
        "data": {"v": "{{ result.value }}", "w": "{{ this.w }}", "id": "9"}
    }


def test_only_a_name_is_a_word_of_the_worker() -> None:
    """`env` in a text, as a key or as a local name defers nothing."""
    tree = compile_tree(
        ["{{ x.env }} env", "{% for job in x.jobs %}{{ job }}{% endfor %}"], "step", worker_words=WORKER_WORDS
    )
    assert tree.render(scope_with(inputs={"x": {"env": 1, "jobs": [1, 2]}})) == ["1 env", "12"]


def test_a_deferred_string_may_use_filters_of_the_worker() -> None:
    """The broker checks its syntax, not its filters."""
    source = "{{ env.DAY | strftime('%d') | default(get.day) }}"
    tree = compile_tree(source, "step", worker_words=WORKER_WORDS)
    assert tree.render(scope_with()) == source
    assert tree.worker_names == {"get"}
    with pytest.raises(TemplateError):
        compile_tree("{{ env.DAY | }}", "step", worker_words=WORKER_WORDS)
    with pytest.raises(TemplateError, match="there is no filter `strftime`"):
        compile_tree("{{ day | strftime('%d') }}", "step", worker_words=WORKER_WORDS)


def test_an_error_names_the_place_of_the_string() -> None:
    """By keys and indexes, at compile time and at run time."""
    with pytest.raises(TemplateError) as caught:
        compile_tree({"a": [0, {"b": "{{ 1 + }}"}]}, "workflow[1].args")
    assert caught.value.at == "workflow[1].args.a[1].b"
    with pytest.raises(TemplateError) as caught:
        compile_tree({"a": [0, {"b": "{{ absent }}"}]}, "workflow[1].args").render(scope_with())
    assert caught.value.at == "workflow[1].args.a[1].b"


def test_all_strings_of_a_tree_share_the_steps() -> None:
    """Many small loops cost as much as one large one."""
    tree = compile_tree(["{% for i in range(100) %}x{% endfor %}"] * 20, "inputs")
    with pytest.raises(TemplateError, match="more than the 5,000 steps"):
        tree.render(scope_with(allowance=Allowance(steps=5_000)))

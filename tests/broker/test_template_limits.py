"""Limits of templates in the core: pinned rules, one allowance per turn, and values that are passed on."""

from __future__ import annotations

import json

import pytest

from noetl_broker.broker.model.rules import Rules
from noetl_broker.history.story import play_story, play_turns, read_events
from noetl_broker.store.json_codec import dump_json, load_json
from tests.stories import assert_story, playbook

LOOP = "{% for i in range(1000) %}{% endfor %}"


def ending(body: str, story: str, rules: Rules | None = None) -> str:
    """Return the line of the failure of an execution, else the last line."""
    lines = play_story(playbook(body), story, rules=rules).splitlines()
    return next((line for line in lines if "execution_failed" in line), lines[-1])


def test_template_limits_are_those_of_the_rules() -> None:
    """The template passes with the default and fails its execution with a lower limit."""
    body = """
    workflow:
    - {step: start, next: end}
    - {step: end, result: "{{ ('ab' * 600) | length }}"}
    """
    assert_story(body, "> execution_start\n    event execution_complete 1200")
    assert "more than the 30 steps that one evaluation may take" in ending(
        body, "> execution_start", Rules(template_max_steps=30)
    )
    assert "a text of 1,200 characters, more than the allowed 1,000" in ending(
        body, "> execution_start", Rules(template_max_output_chars=1000)
    )


def test_all_templates_of_a_turn_share_one_allowance() -> None:
    """Each of a hundred is below the limit; all together would block other executions."""
    fields = ", ".join(f'a{number}: "{LOOP}"' for number in range(100))
    body = f"""
    workflow:
    - {{step: start, next: work}}
    - {{step: work, type: http, args: {{{fields}}}}}
    """
    rules = Rules(template_max_steps=50_000)
    assert "the templates of one turn take more than 150,000 steps together" in ending(body, "> execution_start", rules)


def test_an_iterator_may_take_more_for_more_items() -> None:
    """Its conditions run for each item, so its limit grows with them."""
    body = """
    workload: {most: 3}
    workflow:
    - {step: start, next: each}
    - step: each
      type: iterator
      collection: "{{ range(5000) | list }}"
      element: n
      where: "{{ n * 2 + 1 > 9000 and n < 4510 }}"
      order_by: "{{ 0 - n }}"
      limit: "{{ workload.most }}"
      task: {type: playbook, path: p}
    """
    story = play_story(playbook(body), "> execution_start", rules=Rules(template_max_steps=20_000))
    assert 'event iterator_started each {"total": 3}' in story


def test_comparisons_of_order_by_use_the_allowance() -> None:
    """Texts of a megabyte that differ at their ends are slow to compare."""
    body = """
    workload: {long: "{{ 'x' * 100000 }}"}
    workflow:
    - {step: start, next: each}
    - step: each
      type: iterator
      collection: "{{ range(1000) | list }}"
      element: n
      order_by: workload.long
      task: {type: playbook, path: p}
    """
    assert "the templates of one turn take more than" in ending(body, "> execution_start")


def test_values_that_a_turn_passes_on_count_for_its_limit() -> None:
    """Thousands of fields could each copy one large value."""
    payload = json.dumps({"long": ["x" * 100_000]})
    fields = ", ".join(f'a{number}: "{{{{ workload.long }}}}"' for number in range(200))
    body = f"""
    workflow:
    - {{step: start, next: work}}
    - {{step: work, type: http, headers: {{{fields}}}}}
    """
    assert "what one turn hands on is more than 16,777,216 characters" in ending(body, f"> execution_start {payload}")


def test_results_for_deferred_strings_count_for_the_limit() -> None:
    """They are in the context of the job."""
    steps = "\n".join(
        f'    - {{step: s{number}, type: http, url: "{{{{ env.HOST }}}}/{{{{ get }}}}"}}' for number in range(200)
    )
    body = f"""
    workflow:
    - {{step: start, next: get}}
    - {{step: get, type: http, url: x, next: [{", ".join(f"s{number}" for number in range(200))}]}}
{steps}
    """
    result = json.dumps("x" * 100_000)
    line = ending(body, f"> execution_start\n> action_completed get {result}")
    assert "what one turn hands on is more than 16,777,216 characters" in line


def test_a_condition_does_not_count_for_the_limit_of_output() -> None:
    """It passes no value on."""
    payload = json.dumps({"long": ["x" * 100_000]})
    transitions = ", ".join('{when: "{{ workload.long }}", step: work}' for _ in range(200))
    body = f"""
    workflow:
    - {{step: start, next_mode: exclusive, next: [{transitions}]}}
    - {{step: work, type: http, url: x}}
    """
    assert ending(body, f"> execution_start {payload}").startswith("    job   work")


@pytest.mark.parametrize("beside", ["", f", big: {10**30}"], ids=["plain", "beside a long integer"])
def test_a_loop_that_nests_its_inputs_fails_before_they_are_too_deep(beside: str) -> None:
    """Each visit adds a level. All stored values can be read, and the error names the template."""
    body = f"""
    workflow:
    - {{step: start, next: a}}
    - {{step: a, type: http, url: x, next: [{{step: a, args: {{before: "{{{{ args }}}}"{beside}}}}}]}}
    """
    visits = [
        "> execution_start",
        *(f"> action_completed {step}" for step in ("a", *(f"a#{n}" for n in range(2, 250)))),
    ]
    turns = [decision for _, decision, _ in play_turns(playbook(body), read_events("\n".join(visits)))]
    [ended] = [decision.ended for decision in turns if decision.ended is not None]
    assert ended.error == {
        "step": "a",
        "message": "the value is nested deeper than 190",
        "template": "{{ args }}",
        "at": "workflow[1].next[0].args.before",
    }
    jobs = [job for decision in turns for job in decision.jobs]
    assert len(jobs) == 192
    assert all(isinstance(load_json(dump_json([job.action, job.context])), list) for job in jobs)


def test_items_over_the_allowance_of_a_turn_start_in_later_turns() -> None:
    """Each item is far below the limit of one evaluation."""
    body = """
    workflow:
    - {step: start, next: each}
    - step: each
      type: iterator
      mode: async
      concurrency: 40
      distribute: true
      collection: "{{ range(40) | list }}"
      element: n
      task: {type: http, url: "{% for i in range(1000) %}{% endfor %}{{ n }}"}
    """
    rules = Rules(template_max_steps=20_000)
    begun = "> execution_start\n" + "> iteration_due each\n" * 40
    turns = [decision for _, decision, _ in play_turns(playbook(body), read_events(begun), rules=rules)]
    urls = [job.action["url"] for decision in turns for job in decision.jobs if job.item_index is not None]
    assert urls == [str(number) for number in range(40)]
    assert 2 < sum(bool(decision.jobs) for decision in turns) < 40

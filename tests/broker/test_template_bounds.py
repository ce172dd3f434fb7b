"""The bounds of templates, as the core knows them: pinned rules, one allowance for a turn, and values handed on."""

from __future__ import annotations

import json

import pytest

from noetl_broker.broker.model import Rules
from noetl_broker.broker.story import play, play_turns, read_events
from noetl_broker.store.codec import dump_json, load_json
from tests.stories import assert_story, playbook

LOOP = "{% for i in range(1000) %}{% endfor %}"


def ending(body: str, story: str, rules: Rules | None = None) -> str:
    """Give the line that tells of the end of an execution, of the error if it failed."""
    told = play(playbook(body), story, rules=rules).splitlines()
    return next((line for line in told if "execution_failed" in line), told[-1])


def test_steps_and_characters_are_those_of_the_rules() -> None:
    """The same template passes with the default, and fails its execution where less is allowed."""
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
    """Each of a hundred is cheap enough; together they would keep the other executions waiting."""
    fields = ", ".join(f'a{number}: "{LOOP}"' for number in range(100))
    body = f"""
    workflow:
    - {{step: start, next: work}}
    - {{step: work, type: http, args: {{{fields}}}}}
    """
    rules = Rules(template_max_steps=50_000)
    assert "the templates of one turn take more than 150,000 steps together" in ending(body, "> execution_start", rules)


def test_an_iterator_may_take_more_for_more_items() -> None:
    """Its conditions are evaluated for each item; what a turn may take grows with them."""
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
    told = play(playbook(body), "> execution_start", rules=Rules(template_max_steps=20_000))
    assert 'event iterator_started each {"total": 3}' in told


def test_what_is_compared_to_put_items_in_order_is_paid_for() -> None:
    """Texts of a megabyte that differ at their ends take long to compare."""
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


def test_what_a_turn_hands_on_is_bounded_also_where_it_is_not_made() -> None:
    """A large value of the scope, named by thousands of fields, would be written thousands of times."""
    payload = json.dumps({"long": ["x" * 100_000]})
    fields = ", ".join(f'a{number}: "{{{{ workload.long }}}}"' for number in range(200))
    body = f"""
    workflow:
    - {{step: start, next: work}}
    - {{step: work, type: http, headers: {{{fields}}}}}
    """
    assert "what one turn hands on is more than 16,777,216 characters" in ending(body, f"> execution_start {payload}")


def test_results_for_templates_of_the_worker_are_handed_on_too() -> None:
    """The job's context carries what they name."""
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
    told = ending(body, f"> execution_start\n> action_completed get {result}")
    assert "what one turn hands on is more than 16,777,216 characters" in told


def test_a_condition_hands_nothing_on() -> None:
    """It may look at a large value as often as it likes."""
    payload = json.dumps({"long": ["x" * 100_000]})
    transitions = ", ".join('{when: "{{ workload.long }}", step: work}' for _ in range(200))
    body = f"""
    workflow:
    - {{step: start, next_mode: exclusive, next: [{transitions}]}}
    - {{step: work, type: http, url: x}}
    """
    assert ending(body, f"> execution_start {payload}").startswith("    job   work")


@pytest.mark.parametrize("beside", ["", f", big: {10**30}"], ids=["plain", "beside a long integer"])
def test_a_loop_that_hands_its_inputs_on_ends_before_nobody_can_read_them(beside: str) -> None:
    """Each visit puts them a level deeper; all that is stored can be read, and the execution fails at the template."""
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


def test_items_take_as_many_turns_as_their_templates_need() -> None:
    """Each is far below the bound of one evaluation: what one turn may take does not fail them together."""
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
    urls = [job.action["url"] for decision in turns for job in decision.jobs if job.place is not None]
    assert urls == [str(number) for number in range(40)]
    assert 2 < sum(bool(decision.jobs) for decision in turns) < 40

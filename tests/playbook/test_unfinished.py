"""An input that only a worker can finish is no data for the broker."""

from __future__ import annotations

import pytest

from noetl_broker.playbook import PlaybookError
from tests.playbook.documents import compiled, told

RETURN_IT = "(let an action return what is needed here, and read its result)"


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


def test_an_input_of_a_transition_does_not_read_it() -> None:
    """The next worker would get the text as data; the template itself may be written again."""
    assert told(of_call('next: [{step: end, args: {t: "{{ token }}"}}]')) == [
        (
            "4:67 error unfinished-input workflow[1].next[0].args.t: `{{ token }}` reads the input `token` of the step"
            " `call`, which only a worker can finish (workflow[0].next.args.token)"
            " (write that template here, for the next worker, or let an action return the value and read its result)"
        )
    ]


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
    "condition", ["cfg.b == 1", "cfg['b'] == 1", "args.cfg.b == 1", "token is defined", "call.token == 1"]
)
def test_what_stands_beside_it_is_read(condition: str) -> None:
    """Another key of the same mapping, whether it was given, a result's key of the same name."""
    assert told(of_call(f'next: [{{when: "{{{{ {condition} }}}}", step: end}}]')) == []


def test_an_own_input_that_every_transition_overrides_is_none() -> None:
    """It is never rendered."""
    source = """
    workflow:
      - {step: start, next: [{step: call, args: {n: 1}}]}
      - {step: call, type: http, url: x, args: {n: "{{ env.N }}"}, next: [{when: "{{ n > 0 }}", step: end}]}
      - {step: end}
    """
    assert told(source) == []


def test_a_string_for_the_next_worker_may_name_it() -> None:
    """Whoever finishes that string knows what it means."""
    assert told(of_call('next: [{step: end, args: {t: "{{ env.A }}{{ token }}"}}]')) == []


def test_it_is_refused_where_a_playbook_came_by_sql() -> None:
    """Not by `validate` alone: the execution fails instead of deciding on a text."""
    with pytest.raises(PlaybookError, match="which only a worker can finish"):
        compiled(of_call('next: [{when: "{{ token }}", step: end}]'))

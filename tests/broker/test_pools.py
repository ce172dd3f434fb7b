"""The pool of a job: the step's, else the playbook's; of an undo, that of the job it undoes."""

from __future__ import annotations

import pytest

from tests.broker.test_item_inputs import job_of_item
from tests.broker.test_jobs import job_of
from tests.stories import assert_story


@pytest.mark.parametrize(
    "step, metadata, expected",
    [
        ("", "", None),
        ("", "pool: gpu", "gpu"),
        (", pool: big", "pool: gpu", "big"),
        (", pool: default", "pool: gpu", "default"),
        (', pool: "{{ workload.size }}", args: {n: 1}', "", "small"),
        ("", 'pool: "{{ workload.size }}_{{ 2 }}"', "small_2"),
    ],
)
def test_a_job_has_the_pool_of_its_step_or_playbook(step: str, metadata: str, expected: str | None) -> None:
    """It may be a template. The job carries it, so that its undo finds it."""
    job = job_of(f"type: python, code: x{step}", workload="{size: small}", metadata=metadata)
    assert (job.pool, job.action.get("pool")) == (expected, expected)


@pytest.mark.parametrize(
    "task, step, metadata, expected",
    [
        ("", "", "pool: far", "far"),
        ("", ", pool: gpu", "pool: far", "gpu"),
        (', pool: "p{{ n }}"', ", pool: gpu", "", "p1"),
    ],
)
def test_the_job_of_an_item_has_the_pool_of_the_task(task: str, step: str, metadata: str, expected: str) -> None:
    """Else that of the step, else that of the playbook."""
    assert job_of_item(f"type: python, code: x{task}", step=step, metadata=metadata).pool == expected


@pytest.mark.parametrize(
    "value, shown",
    [("'a pool'", '\\"a pool\\"'), ("''", '\\"\\"'), ("[1]", "[1]"), ("'p' * 64", f'\\"{"p" * 64}\\"')],
)
def test_a_pool_that_is_no_name_fails_the_step(value: str, shown: str) -> None:
    """As other templates do: no job is queued."""
    wanted = "`pool` must be a name: letters, digits, _, . and -, at most 63 characters"
    assert_story(
        f"""
        workflow:
        - {{step: start, next: s}}
        - {{step: s, type: python, code: x, pool: "{{{{ {value} }}}}", catch: end}}
        - {{step: end}}
        """,
        f"""
        > execution_start
            event step_started s
            event step_failed s "{wanted}, it is {shown}"
            event execution_complete
        """,
    )


@pytest.mark.parametrize("own, expected", [("", "p7"), (", pool: calm", "calm")])
def test_an_undo_has_its_own_pool_or_that_of_the_job_it_undoes(own: str, expected: str) -> None:
    """The pool of the job was rendered when it was queued."""
    assert_story(
        f"""
        workload: {{n: 7}}
        workflow:
        - {{step: start, next: a}}
        - step: a
          type: http
          pool: "p{{{{ workload.n }}}}"
          compensate: {{type: http, url: x{own}}}
          next: b
        - {{step: b, type: http}}
        """,
        f"""
        > execution_start
            event step_started a
            job   a; pool p7
        > action_completed a 1
            event step_completed a
            event step_started b
            job   b
            undo  a
        > action_failed b; not retryable
            event step_failed b "the action failed"
            event execution_compensating "the action failed"
            event compensation_started a
            job   a!undo; pool {expected}
            dead  b
            cancel all work
        """,
    )

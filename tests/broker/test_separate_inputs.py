"""Steps that share the value of a template do not change it for each other."""

from __future__ import annotations

import pytest

from noetl_broker.history.story import play_story
from tests.stories import assert_story, playbook


@pytest.mark.parametrize("task", ["{type: http, url: x", "{type: playbook, path: child"])
def test_each_item_has_its_own_inputs(task: str) -> None:
    """All items read one mapping."""
    body = f"""
        workload: {{common: {{region: eu}}, ids: [1, 2, 3]}}
        workflow:
        - {{step: start, next: each}}
        - {{step: each, type: iterator, mode: async, distribute: true, element: id,
            collection: "{{{{ workload.ids }}}}",
            task: {task}, with: "{{{{ workload.common }}}}", args: {{id: "{{{{ id }}}}"}}}}}}
        """
    jobs = [line for line in play_story(playbook(body), "> execution_start").splitlines() if '"region"' in line]
    assert [line[line.index('{"') :] for line in jobs] == [f'{{"region": "eu", "id": {n}}}' for n in (1, 2, 3)]


def test_parallel_steps_have_their_own_inputs() -> None:
    """The shared result does not change, for `end` either."""
    assert_story(
        """
        workflow:
        - {step: start, next: get}
        - {step: get, type: http, url: x, next: [one, two]}
        - {step: one, type: http, url: x, with: "{{ get }}", args: {id: 1, all: "{{ get }}"}, next: end}
        - {step: two, type: http, url: x, with: "{{ get }}", args: {n: 2}, next: end}
        - {step: end, join: all, result: "{{ get }}"}
        """,
        """
        > execution_start
            event step_started get
            job   get
        > action_completed get {"n": 1}
            event step_completed get
            event step_started one
            event step_started two
            job   one {"n": 1, "id": 1, "all": {"n": 1}}
            job   two {"n": 2}
        > action_completed one
            event step_completed one
        > action_completed two
            event step_completed two
            event execution_complete {"n": 1}
        """,
    )

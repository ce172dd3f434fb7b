"""Jobs in the form for a NoETL server: this worker runs them like any other."""

from __future__ import annotations

import pytest

from noetl_broker.broker.model.rules import Rules
from tests.broker.test_jobs import jobs_of
from tests.worker.conftest import Perform

GIVEN = '"def main(**given): return given"'
ITERATED = f"""
workflow:
- {{step: start, next: {{step: s, args: {{c: 3}}}}}}
- step: s
  type: iterator
  collection: [1, 2]
  element: n
  data: {{a: Oslo, b: 2}}
  task: {{type: python, code: {GIVEN}, with: {{b: "{{{{ n }}}}"}}, data: {{d: "{{{{ b }}}} in {{{{ env.CITY }}}}"}}}}
"""
PLAIN = f"""
workflow:
- {{step: start, next: {{step: s, params: {{c: "{{{{ 1 + 2 }}}}"}}}}}}
- {{step: s, type: python, code: {GIVEN}, data: {{a: "{{{{ env.CITY }}}}", b: 2}}}}
"""


@pytest.mark.parametrize("body", [ITERATED, PLAIN])
async def test_a_job_in_the_noetl_form_has_the_same_result(perform: Perform, body: str) -> None:
    """Duplicate inputs give the same values, and items see the inputs of their step."""
    plain, beside = (jobs_of(body, rules=Rules(beside_noetl=beside))[0] for beside in (False, True))
    assert plain.action != beside.action
    expected = await perform(plain.action, context=plain.context)
    assert expected[0]["a"] == "Oslo" if isinstance(expected, list) else expected == {"a": "Oslo", "b": 2, "c": 3}
    assert await perform(beside.action, context=beside.context) == expected

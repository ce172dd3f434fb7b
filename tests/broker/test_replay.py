"""What a replay keeps in memory does not grow with the length of the history."""

from __future__ import annotations

from noetl_broker.broker.replay import Retaking
from tests.histories import recorded

LOOP = """
workflow:
- {step: start, next: go}
- step: go
  type: python
  code: x
  args: {n: "{{ result.n | default(0) }}"}
  next: [{when: "{{ go.n < 3000 }}", step: go}, {else: [{step: end}]}]
- {step: end, result: "{{ go.n }}"}
"""


def test_a_long_loop_is_forgotten_as_it_goes() -> None:
    """Of 3,000 visits what no later turn can ask for: and each decides as it did."""
    visits = [f'> action_completed go#{visit} {{"n": {visit}}}' for visit in range(1, 3001)]
    history = recorded(LOOP, "\n".join(["> execution_start", *visits]))
    retaking = Retaking(history, in_parts=True)
    assert [turn.turn.number for turn in history.turns if retaking.take(turn).found] == []
    assert (retaking.state.status, retaking.state.total) == ("COMPLETED", 3002)
    assert len(retaking.known.answers) < 1000


def test_what_a_join_waits_with_is_kept() -> None:
    """The result that was handed to it long ago is there when it is released."""
    body = LOOP.replace("next: go}", "next: [go, other]}", 1).replace("[{step: end}]", "[{step: both}]")
    body += "- {step: other, type: python, code: x, next: both}\n"
    body += '- {step: both, type: python, code: x, args: {r: "{{ result }}", n: "{{ go.n }}"}}\n'
    visits = [f'> action_completed go#{visit} {{"n": {visit}}}' for visit in range(1, 3001)]
    history = recorded(body, "\n".join(["> execution_start", "> action_completed other 7", *visits]))
    retaking = Retaking(history, in_parts=True)
    *_, last = map(retaking.take, history.turns)
    assert [job.action["args"] for job in last.decision.jobs] == [{"r": 7, "n": 3000}]
    assert len(retaking.known.answers) < 1000

"""The memory of a replay does not grow with the length of the history."""

from __future__ import annotations

from noetl_broker.history.replay import Replay
from tests.forks import history_of
from tests.stories import playbook

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


def test_the_memory_of_a_replay_does_not_grow_with_a_loop() -> None:
    """After 3,000 visits only what a later turn can read is kept, and every turn decides the same."""
    visits = [f'> action_completed go#{visit} {{"n": {visit}}}' for visit in range(1, 3001)]
    history = history_of(playbook(LOOP), "\n".join(["> execution_start", *visits]))
    replay = Replay(history, in_parts=True)
    assert [turn.turn.number for turn in history.turns if replay.apply(turn).differences] == []
    assert (replay.state.status, replay.state.total) == ("COMPLETED", 3002)
    assert len(replay.known.answers) < 1000


def test_a_result_that_waits_at_a_join_is_kept() -> None:
    """It is still there when the join is released."""
    body = LOOP.replace("next: go}", "next: [go, other]}", 1).replace("[{step: end}]", "[{step: both}]")
    body += "- {step: other, type: python, code: x, next: both}\n"
    body += '- {step: both, type: python, code: x, args: {r: "{{ result }}", n: "{{ go.n }}"}}\n'
    visits = [f'> action_completed go#{visit} {{"n": {visit}}}' for visit in range(1, 3001)]
    history = history_of(playbook(body), "\n".join(["> execution_start", "> action_completed other 7", *visits]))
    replay = Replay(history, in_parts=True)
    *_, last = map(replay.apply, history.turns)
    assert [job.action["args"] for job in last.decision.jobs] == [{"r": 7, "n": 3000}]
    assert len(replay.known.answers) < 1000

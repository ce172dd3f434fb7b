"""An `end` that other tokens outlive: what it was given counts until the execution is over, in whatever order."""

from __future__ import annotations

import json
from textwrap import dedent
from typing import Any

import pytest

from noetl_broker.broker.context import Known
from noetl_broker.broker.core import take_turn
from noetl_broker.broker.forks import Malformed, decode_fork
from noetl_broker.broker.memory import remember
from noetl_broker.broker.model import Turn
from noetl_broker.broker.plans import plan_fork, plan_retry
from noetl_broker.broker.replay import retake
from noetl_broker.broker.state import ExecutionState, decode, encode
from noetl_broker.broker.story import STORY_EXECUTION, STORY_START, read_events
from noetl_broker.errors import OperatorFault
from tests.explaining import execution_lines, facts_of
from tests.forking import fork_history, fork_story, history_of, told
from tests.stories import assert_story, playbook

ANY = """
workflow:
- {step: start, next: [a, b]}
- {step: a, type: python, code: x, next: {step: end, args: {x: 1, large: "{{ workload }}"}}}
- {step: b, type: python, code: x}
- {step: end, join: any, result: "{{ x }}"}
"""
OWN = """
workflow:
- {step: start, next: [a, b]}
- {step: a, type: python, code: x, next: {step: end, args: {x: 1}}}
- {step: b, type: python, code: x, next: c}
- {step: c, type: python, code: x}
- {step: end, join: any, type: python, code: x, args: {y: "{{ result + 1 }}"}, result: "{{ args }}"}
"""


def states_of(body: str, story: str) -> list[dict[str, Any]]:
    """The states after the turns of a story, each read back from its row before the next; and how it ended."""
    compiled, known = playbook(body), Known(complete=True)
    state, rows = ExecutionState(), []
    for number, event in enumerate(read_events(dedent(story)), 1):
        turn = Turn(STORY_EXECUTION, number, STORY_START)
        state, decision = take_turn(compiled, state, event, turn, known)
        remember(known, event, turn, decision)
        written = json.dumps(encode(state))
        assert decode(json.loads(written)) == state
        state = decode(json.loads(written))
        ended = {} if decision.ended is None else {"result": decision.ended.result, "error": decision.ended.error}
        rows.append(json.loads(written) | ended)
    return rows


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_an_end_with_a_join_gives_the_same_result_in_any_order(order: str) -> None:
    """What the transition gave it is still there when the other token ends."""
    first, second = order[0], order[1]
    story = f"> execution_start\n> action_completed {first} 1\n> action_completed {second} 2"
    *_, last = states_of(ANY, story)
    assert (last["status"], last["result"]) == ("COMPLETED", 1)


def test_an_end_with_an_action_remembers_its_inputs() -> None:
    """Those of its transition and its own, though two turns come after its own."""
    assert_story(
        OWN,
        """
        > execution_start
            event step_started a
            event step_started b
            job   a
            job   b
        > action_completed a 7
            event step_completed a
            event step_started end
            job   end {"y": 8, "x": 1}
        > action_completed end "done"
            event step_completed end
        > action_completed b 1
            event step_completed b
            event step_started c
            job   c
        > action_completed c 1
            event step_completed c
            event execution_complete {"x": 1, "y": 8}
        """,
    )


def test_the_latest_visit_of_an_end_counts() -> None:
    """`join: each`: its inputs and what it was handed."""
    assert_story(
        """
        workflow:
        - {step: start, next: [a, b, c]}
        - {step: a, type: python, code: x, next: {step: end, args: {x: a}}}
        - {step: b, type: python, code: x, next: {step: end, args: {x: b}}}
        - {step: c, type: python, code: x}
        - {step: end, join: each, save: {storage: postgres, data: {x: "{{ x }}", r: "{{ result }}"}}}
        """,
        """
        > execution_start
            event step_started a
            event step_started b
            event step_started c
            job   a
            job   b
            job   c
        > action_completed b 2
            event step_completed b
        > action_completed a 1
            event step_completed a
        > action_completed c 3
            event step_completed c
            event execution_complete {"x": "a", "r": 1}
        """,
    )


def test_what_only_a_worker_can_finish_is_no_value_later_either() -> None:
    """The text of a template that was left for a worker never passes for the value."""
    body = """
        workload: {t: {x: "{{ secret.token }}"}}
        workflow:
        - {step: start, next: [a, b]}
        - {step: a, type: python, code: x, next: {step: end, args: "{{ workload.t }}"}}
        - {step: b, type: python, code: x}
        - {step: end, join: any, result: "{{ x }}"}
        """
    _, reached, over = states_of(body, "> execution_start\n> action_completed a 1\n> action_completed b 2")
    assert (reached["end_inputs"], reached["end_left"]) == ({"x": "{{ secret.token }}"}, [["x"]])
    assert (over["status"], over["error"]["message"]) == ("FAILED", "only a worker can finish `x`")


def test_the_state_keeps_what_the_result_reads_and_no_longer_than_needed() -> None:
    """Neither inputs that nobody reads again, nor those of an execution that is over."""
    _, reached, over = states_of(ANY, "> execution_start\n> action_completed a 1\n> action_completed b 2")
    assert (reached["end_turn"], reached["end_inputs"]) == (2, {"x": 1})
    assert (over["end_reached"], over["end_turn"], over.get("end_inputs")) == (True, 2, None)


def test_a_state_from_before_is_read() -> None:
    """It says that `end` was reached, and nothing of inputs."""
    old = {"status": "RUNNING", "seen": "f", "total": 3, "end_reached": True, "end_turn": 2}
    state = decode(old)
    assert state.end is not None
    assert (state.end.result, state.end.inputs, state.end.left) == (2, {}, ())
    assert encode(state) == old


def test_a_retry_takes_over_what_end_was_given() -> None:
    """The execution failed after it had reached `end`; brought back, it has that result."""
    source = history_of(playbook(ANY), '> execution_start\n> action_completed a 1\n> action_failed b {"message": "no"}')
    assert fork_story(source, plan_retry(source), "> action_completed b 2") == told("""
        > fork
            event step_started b
            job   b
        > action_completed b 2
            event step_completed b
            event execution_complete 1
    """)


def test_a_fork_whose_end_has_no_inputs_but_something_else_is_refused() -> None:
    """It is data from outside."""
    source = history_of(playbook(ANY), '> execution_start\n> action_completed a 1\n> action_failed b {"message": "no"}')
    document = plan_retry(source).document
    results = [{**one, "event_id": 7} for one in document["results"]]
    assert decode_fork({**document, "results": results}).end is not None
    with pytest.raises(Malformed):
        decode_fork({**document, "results": results, "end": {"result": None, "inputs": [1]}})


def test_a_result_that_failed_later_is_told_with_what_end_was_given() -> None:
    """Not with what the step saw that ended last."""
    body = ANY.replace("{{ x }}", "{{ x.y }}")
    history = history_of(playbook(body), "> execution_start\n> action_completed a 1\n> action_completed b 2")
    lines = [line.strip() for line in execution_lines(history, facts_of(history)).splitlines()]
    assert "x was an input of end" in lines


FORKED = "> execution_start\n> action_completed a 7\n"
TO_C = '> action_completed end "done"\n> action_completed b 1\n'
ROUTED = ANY.replace("{{ workload }}", "{{ a }}").replace(
    "- {step: b, type: python, code: x}", "- {step: b, type: python, code: x, next: c}\n- {step: c, type: route}"
)


def last_line(text: str) -> str:
    """The last thing that a story tells."""
    return text.splitlines()[-1].strip()


def test_a_fork_from_a_step_after_it_takes_over_what_end_was_given() -> None:
    """As a retry does; and so does a fork of that fork."""
    source = history_of(playbook(OWN), FORKED + TO_C)
    plan = plan_fork(source, "c")
    done = "> action_completed c 1"
    assert last_line(fork_story(source, plan, done)) == 'event execution_complete {"x": 1, "y": 8}'
    fork = fork_history(source, plan, done)
    assert [turn.decision.events for turn in retake(fork)] == [turn.events for turn in fork.turns]
    again = plan_fork(fork, "c")
    assert last_line(fork_story(fork, again, done)) == 'event execution_complete {"x": 1, "y": 8}'


def test_a_fork_from_a_step_before_it_reaches_end_anew() -> None:
    """What it was given then counts no more."""
    source = history_of(playbook(OWN), FORKED + TO_C)
    assert "end" not in plan_fork(source, "a").document
    assert "end" not in plan_fork(source, "end").document


@pytest.mark.parametrize(
    "old, new, result",
    [
        ("x: 1", 'x: "{{ result + 1 }}"', 8),
        ("{{ x }}", "{{ args.large }}", 7),
        ("{step: end, join: any, result", "{step: end, join: any, args: {x: 5, z: 3}, result", 1),
        ("{{ x }}", "{{ result }}", 7),
        ("next: {step: end,", "next: {step: c,", 1),
    ],
)
def test_a_fork_on_an_edited_playbook_reaches_end_again_there(old: str, new: str, result: int) -> None:
    """Its transition and its inputs are those of that playbook; as it was, where no transition leads to it there."""
    source = history_of(playbook(ROUTED), FORKED + "> action_completed b 1")
    assert last_line(fork_story(source, plan_fork(source, "c"))) == "event execution_complete 1"
    edited = playbook(ROUTED.replace(old, new))
    plan = plan_fork(source, "c", playbook=edited)
    assert last_line(fork_story(source, plan, playbook=edited)) == f"event execution_complete {result}"


def test_a_fork_with_a_result_given_by_hand_gives_end_what_comes_of_it() -> None:
    """The transition to `end` is rendered again; what its action was given stays."""
    source = history_of(playbook(ROUTED.replace("x: 1", 'x: "{{ a + 1 }}"')), FORKED + "> action_completed b 1")
    assert last_line(fork_story(source, plan_fork(source, "c", values={"a": 2}))) == "event execution_complete 3"
    with pytest.raises(OperatorFault, match="step end cannot be entered with these results"):
        plan_fork(source, "c", values={"a": "text"})
    own = history_of(playbook(OWN), FORKED + TO_C)
    story = fork_story(own, plan_fork(own, "c", values={"a": 2}), "> action_completed c 1")
    assert last_line(story) == 'event execution_complete {"x": 1, "y": 8}'


def test_a_fork_on_a_playbook_that_reads_more_of_an_end_with_an_action_has_it() -> None:
    """Also where the old one read none of its inputs, so that nothing kept them."""
    source = history_of(playbook(OWN.replace("{{ args }}", "{{ result }}")), FORKED + TO_C)
    edited = playbook(OWN.replace("{{ args }}", "{{ args.x + args.y }}"))
    story = fork_story(source, plan_fork(source, "c", playbook=edited), "> action_completed c 1", playbook=edited)
    assert last_line(story) == "event execution_complete 9"


def test_a_fork_on_a_playbook_without_an_end_has_the_data_of_its_branches() -> None:
    """There is nothing that was reached."""
    source = history_of(playbook(OWN), FORKED + TO_C)
    body = OWN.replace("next: {step: end, args: {x: 1}}", "next: []").rpartition("- {step: end")[0]
    plan = plan_fork(source, "c", playbook=playbook(body))
    assert "end" not in plan.document

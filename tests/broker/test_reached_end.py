"""An `end` that other tokens outlive keeps its inputs until the execution ends."""

from __future__ import annotations

import json
from textwrap import dedent
from typing import Any

import pytest

from noetl_broker.broker.arrivals.forks import MalformedFork, decode_fork
from noetl_broker.broker.core import Session
from noetl_broker.broker.state.state import decode, encode
from noetl_broker.errors import OperatorFault
from noetl_broker.history.fork_plan import plan_fork
from noetl_broker.history.recovery_plan import plan_recovery
from noetl_broker.history.replay import replay_history
from noetl_broker.history.story import STORY_START, read_events
from tests.explanations import execution_lines, facts_of
from tests.forks import fork_history, fork_story, history_of
from tests.stories import assert_story, dedented, playbook

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
    """Return the states after the turns of a story and its outcome. Each state is read back from its row."""
    session, rows = Session(playbook(body)), []
    for event in read_events(dedent(story)):
        decision = session.apply(event, STORY_START)
        written = json.dumps(encode(session.state))
        assert decode(json.loads(written)) == session.state
        session.state = decode(json.loads(written))
        ended = {} if decision.ended is None else {"result": decision.ended.result, "error": decision.ended.error}
        rows.append(json.loads(written) | ended)
    return rows


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_an_end_with_a_join_gives_the_same_result_in_any_order(order: str) -> None:
    """The inputs of its transition are kept until the other token ends."""
    first, second = order[0], order[1]
    story = f"> execution_start\n> action_completed {first} 1\n> action_completed {second} 2"
    *_, last = states_of(ANY, story)
    assert (last["status"], last["result"]) == ("COMPLETED", 1)


def test_an_end_with_an_action_keeps_its_inputs() -> None:
    """Inputs of its transition and its own, over two later turns."""
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
    """With `join: each`: its inputs and `result`."""
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


def test_the_state_keeps_inputs_of_end_that_the_result_reads() -> None:
    """Other inputs are dropped, and all inputs after the end."""
    _, reached, over = states_of(ANY, "> execution_start\n> action_completed a 1\n> action_completed b 2")
    assert (reached["end_turn"], reached["end_inputs"]) == (2, {"x": 1})
    assert (over["end_reached"], over["end_turn"], over.get("end_inputs")) == (True, 2, None)


def test_a_state_without_the_inputs_of_end_is_read() -> None:
    """It only says that `end` was reached."""
    document = {"status": "RUNNING", "seen": "f", "total": 3, "end_reached": True, "end_turn": 2}
    state = decode(document)
    assert state.end is not None
    assert (state.end.result, state.end.inputs) == (2, {})
    assert encode(state) == document


def test_a_retry_keeps_the_inputs_of_end() -> None:
    """The execution failed after it had reached `end`."""
    source = history_of(playbook(ANY), '> execution_start\n> action_completed a 1\n> action_failed b {"message": "no"}')
    assert fork_story(source, plan_recovery(source), "> action_completed b 2") == dedented("""
        > fork
            event step_started b
            job   b
        > action_completed b 2
            event step_completed b
            event execution_complete 1
    """)


def test_a_fork_whose_inputs_of_end_are_no_mapping_is_refused() -> None:
    """A fork plan is data from outside."""
    source = history_of(playbook(ANY), '> execution_start\n> action_completed a 1\n> action_failed b {"message": "no"}')
    document = plan_recovery(source).document
    results = [{**one, "event_id": 7} for one in document["results"]]
    assert decode_fork({**document, "results": results}, playbook(ANY)).state.end is not None
    with pytest.raises(MalformedFork):
        decode_fork({**document, "results": results, "state": document["state"] | {"end_inputs": [1]}}, playbook(ANY))


def test_explain_shows_the_inputs_of_end_for_a_failed_result() -> None:
    """Not those of the step that ended last."""
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
    """Return the last line of a story."""
    return text.splitlines()[-1].strip()


def test_a_fork_from_a_later_step_keeps_the_inputs_of_end() -> None:
    """A fork of that fork does too."""
    source = history_of(playbook(OWN), FORKED + TO_C)
    plan = plan_fork(source, "c")
    done = "> action_completed c 1"
    assert last_line(fork_story(source, plan, done)) == 'event execution_complete {"x": 1, "y": 8}'
    fork = fork_history(source, plan, done)
    assert [turn.decision.events for turn in replay_history(fork)[0]] == [turn.events for turn in fork.turns]
    again = plan_fork(fork, "c")
    assert last_line(fork_story(fork, again, done)) == 'event execution_complete {"x": 1, "y": 8}'


def test_a_fork_from_an_earlier_step_reaches_end_again() -> None:
    """Its old inputs do not count."""
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
def test_a_fork_on_an_edited_playbook_renders_the_inputs_of_end_again(old: str, new: str, result: int) -> None:
    """Without a transition to `end` the old inputs stay."""
    source = history_of(playbook(ROUTED), FORKED + "> action_completed b 1")
    assert last_line(fork_story(source, plan_fork(source, "c"))) == "event execution_complete 1"
    edited = playbook(ROUTED.replace(old, new))
    plan = plan_fork(source, "c", playbook=edited)
    assert last_line(fork_story(source, plan, playbook=edited)) == f"event execution_complete {result}"


def test_a_fork_with_a_given_result_renders_the_inputs_of_end_again() -> None:
    """The inputs of its action do not change."""
    source = history_of(playbook(ROUTED.replace("x: 1", 'x: "{{ a + 1 }}"')), FORKED + "> action_completed b 1")
    assert last_line(fork_story(source, plan_fork(source, "c", values={"a": 2}))) == "event execution_complete 3"
    with pytest.raises(OperatorFault, match="step end cannot be entered with these results"):
        plan_fork(source, "c", values={"a": "text"})
    own = history_of(playbook(OWN), FORKED + TO_C)
    story = fork_story(own, plan_fork(own, "c", values={"a": 2}), "> action_completed c 1")
    assert last_line(story) == 'event execution_complete {"x": 1, "y": 8}'


def test_a_fork_on_a_playbook_that_reads_more_inputs_of_end_has_them() -> None:
    """The old playbook read none of them, so no state has them."""
    source = history_of(playbook(OWN.replace("{{ args }}", "{{ result }}")), FORKED + TO_C)
    edited = playbook(OWN.replace("{{ args }}", "{{ args.x + args.y }}"))
    story = fork_story(source, plan_fork(source, "c", playbook=edited), "> action_completed c 1", playbook=edited)
    assert last_line(story) == "event execution_complete 9"


def test_a_fork_on_a_playbook_without_an_end_has_the_data_of_its_branches() -> None:
    """The result is that of the branch ends."""
    source = history_of(playbook(OWN), FORKED + TO_C)
    body = OWN.replace("next: {step: end, args: {x: 1}}", "next: []").rpartition("- {step: end")[0]
    plan = plan_fork(source, "c", playbook=playbook(body))
    assert "end" not in plan.document

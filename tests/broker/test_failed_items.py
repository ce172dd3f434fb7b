"""`{{ it.failed }}` lists the failed items of an iterator; an iterator fails if all its items failed."""

from __future__ import annotations

import json
from textwrap import dedent
from typing import Any

import pytest

from noetl_broker import JobFailed, simulate
from noetl_broker.broker.draft.known import result_of
from noetl_broker.broker.model.limits import ITEM_ERROR, shorten_error
from noetl_broker.broker.model.values import JSON
from noetl_broker.history.recovery_plan import plan_recovery
from noetl_broker.history.replay import replay_history
from noetl_broker.history.story import play_story, play_turns, read_events
from noetl_broker.template.output import size_of
from noetl_broker.worker.deferred import mark_deferred, renderer_of
from tests.forks import history_of
from tests.stories import assert_story, playbook

HOW = {
    "children": 'task: {type: playbook, path: p, args: {v: "{{ n }}"}}',
    "jobs": "distribute: true, task: {type: python, code: x}",
}
EACH = """
workflow:
- {step: start, next: it}
- {step: it, type: iterator, collection: COLLECTION, element: n, mode: async, on_error: continue, HOW, next: see}
- {step: see, type: python, code: x, args: {failed: "{{ it.failed }}", ok: "{{ it }}"}, next: end}
- {step: end, result: "{{ it.failed }}"}
"""
START = "> execution_start\n"


def each(how: str = "children", *, items: int = 3) -> str:
    """Return an iterator over some items with `on_error: continue`."""
    return EACH.replace("COLLECTION", str([*range(items)])).replace("HOW", HOW[how])


def ends(how: str, *outcomes: JSON) -> str:
    """End the items in order: with a result, or fail them with a text."""
    words = {"children": ("execution_complete", "execution_failed"), "jobs": ("action_completed", "action_failed")}[how]
    story = ""
    for index, outcome in enumerate(outcomes):
        failed = isinstance(outcome, str)
        story += f"> {words[failed]} it[{index}] {json.dumps({'message': outcome} if failed else outcome)}\n"
    return story


def jobs(body: str, story: str) -> list[dict[str, Any]]:
    """Return the inputs of the jobs of the step `see`."""
    turns = play_turns(playbook(body), read_events(story))
    return [job.action["args"] for _, decision, _ in turns for job in decision.jobs if job.step == "see"]


@pytest.mark.parametrize("how", HOW)
def test_later_steps_read_which_items_failed(how: str) -> None:
    """Index and error of each, in the order of the items."""
    story = START + ends(how, "no", 2, "never") + "> iterator_completed it [null, 2, null]\n"
    failed = [
        {"error": {"step": "it", "message": "no"}, "index": 0},
        {"error": {"step": "it", "message": "never"}, "index": 2},
    ]
    assert jobs(each(how), story) == [{"failed": failed, "ok": [None, 2, None]}]
    ended = history_of(playbook(each(how)), f"{story}> action_completed see 1").ended
    assert ended is not None
    assert ended.result == failed


@pytest.mark.parametrize("how", HOW)
def test_without_failed_items_the_list_is_empty(how: str) -> None:
    """For a collection without items too."""
    assert jobs(each(how, items=1), START + ends(how, 1) + "> iterator_completed it [1]") == [{"failed": [], "ok": [1]}]
    assert jobs(each(how, items=0), START + "> iterator_completed it []") == [{"failed": [], "ok": []}]


@pytest.mark.parametrize("template", ["it.failed | length", "results['it'].failed | length"])
def test_the_next_of_the_iterator_reads_its_failed_items(template: str) -> None:
    """In the turn in which it completes."""
    body = each().replace("next: see}", f'next: [{{when: "{{{{ {template} > 1 }}}}", step: end}}, {{else: [see]}}]}}')
    some = START + ends("children", "no", 2, "no") + "> iterator_completed it [null, 2, null]"
    assert play_story(playbook(body), some).splitlines()[-1].startswith("    event execution_complete")
    assert jobs(body, some.replace('failed it[2] {"message": "no"}', "complete it[2] 3")) != []


def test_result_has_failed_items_of_the_iterator() -> None:
    """`next` reads it as `result.failed`."""
    body = each().replace("next: see}", 'next: [{step: see, args: {failed: "{{ result.failed | length }}"}}]}')
    story = START + ends("children", "no", 2, 3) + "> iterator_completed it [null, 2, 3]"
    assert jobs(body, story) == [{"failed": 1, "ok": [None, 2, 3]}]


def test_a_step_without_items_has_no_failed_items() -> None:
    """Its data may have the key `failed`. Else it is undefined."""
    body = """
        workflow:
        - {step: start, next: it}
        - {step: it, type: python, code: x, next: see}
        - {step: see, type: python, code: x, args: {failed: "{{ it.failed | default('none') }}"}}
        """
    assert jobs(body, START + "> action_completed it [1]") == [{"failed": "none"}]
    assert jobs(body, START + '> action_completed it {"failed": 4}') == [{"failed": 4}]
    envelope = '{"data": [1], "meta": {"failed": [{"index": 0, "error": null}]}}'
    assert jobs(body, f"{START}> action_completed it {envelope}") == [{"failed": "none"}]


def test_failed_items_are_those_of_the_latest_visit() -> None:
    """As the list of results."""
    body = each(items=2).replace("next: see}", 'next: [{when: "{{ it.failed }}", step: it}, {else: [see]}]}')
    story = START + ends("children", "no", 2) + "> iterator_completed it [null, 2]\n"
    story += "> execution_complete it#2[0] 1\n> execution_complete it#2[1] 2\n> iterator_completed it#2 [1, 2]"
    assert jobs(body, story) == [{"failed": [], "ok": [1, 2]}]


def test_the_error_of_failed_items_names_their_number_and_one_message() -> None:
    """Its `type` differs from that of one item. The other fields are those of the last item."""
    history = history_of(
        playbook(each(items=1)), START + '> execution_failed it[0] {"message": "no", "type": "x", "status_code": 404}'
    )
    assert history.ended is not None
    assert history.ended.error == {
        "step": "it", "message": "the only item failed; item 0: no", "type": "all_items_failed", "status_code": 404,
        "index": 0,
    }  # fmt: skip


def test_a_loop_has_an_on_error_beside_that_of_its_items() -> None:
    """The `on_error` of the items does not apply to the step."""
    body = """
        workflow:
        - {step: start, next: it}
        - step: it
          type: python
          code: x
          loop: {collection: [1, 2], element: n, on_error: continue, distribute: true, mode: async}
          on_error: OWN
          next: see
        - {step: see, type: python, code: x, args: {status: "{{ it.status }}", failed: "{{ it.failed | length }}"}}
        """
    story = START + ends("jobs", "no", "no")
    assert jobs(body.replace("OWN", "continue"), story) == [{"status": "FAILED", "failed": 2}]
    ended = history_of(playbook(body.replace("OWN", "fail")), story).ended
    assert ended is not None
    assert ended.status == "FAILED"


BY_WORKER = """
workflow:
- {step: start, next: it}
- step: it
  type: iterator
  collection: [1, 2]
  element: n
  on_error: continue
  task: {type: python, code: "def main(n): pass", args: {n: "{{ n }}"}}
  next: see
- {step: see, type: python, code: x, args: {failed: "{{ it.failed }}", ok: "{{ it }}"}}
"""
FAILED = {"index": 0, "error": {"message": "no", "type": "x"}}


def test_a_worker_that_iterates_reports_failed_items_in_its_result() -> None:
    """In `meta.failed` of the envelope of its list. A plain list means no failed items."""
    story = f"{START}> action_completed it {json.dumps({'data': [None, 2], 'meta': {'failed': [FAILED]}})}"
    assert jobs(BY_WORKER, story) == [{"failed": [FAILED], "ok": [None, 2]}]
    assert jobs(BY_WORKER, f"{START}> action_completed it [1, 2]") == [{"failed": [], "ok": [1, 2]}]


def test_a_worker_whose_items_all_failed_fails_its_step() -> None:
    """The worker completes its job, and the rules of the execution decide."""
    failed = [FAILED, {"index": 1, "error": None}]
    result = json.dumps({"data": [None, None], "meta": {"failed": failed}})
    assert_story(
        BY_WORKER,
        f"""
        > execution_start
            event step_started it
            job   it
        > action_completed it {result}
            event step_failed it "all 2 items failed; item 0: no"
            event execution_failed "all 2 items failed; item 0: no"
            cancel all work
        """,
    )


@pytest.mark.parametrize("last", ["worker", "child"])
def test_a_worker_whose_children_all_failed_fails_its_step(last: str) -> None:
    """When both the worker and the last child have ended."""
    child_failed = '> iteration_started it {"child_execution_id": 71}\n> execution_failed it[0] {"message": "no"}\n'
    events = [child_failed, "> action_completed it [null]\n"]
    if last == "child":
        first, _, second = child_failed.partition("\n")
        events = [f"{first}\n> action_completed it [null]\n", second]
    lines = play_story(playbook(BY_WORKER), START + "".join(events)).splitlines()
    message = "the only item failed" + ("; item 0: no" if last == "child" else "")
    assert [line.strip() for line in lines[-3:]] == [
        f'event step_failed it "{message}"', f'event execution_failed "{message}"', "cancel all work",
    ]  # fmt: skip


def test_a_deferred_string_reads_failed_items() -> None:
    """The job has the list if a deferred string can read it."""
    body = each().replace("it.failed }}", "secret.x }} of {{ it.failed | length }}", 1)
    story = START + ends("children", "no", 2, 3) + "> iterator_completed it [null, 2, 3]"
    turns = play_turns(playbook(body), read_events(story))
    [job] = [job for _, decision, _ in turns for job in decision.jobs if job.step == "see"]
    action = mark_deferred(json.loads(json.dumps(job.action)))
    renderer = renderer_of(
        action, {**job.context, "workload": {}}, {"execution_id": 1, "node_id": "1:see"}, {"NOETL_SECRET_X": "key"}
    )
    assert renderer.render(action["args"], ("args",))["failed"] == "key of 1"
    plain = body.replace(" of {{ it.failed | length }}", " of {{ it | length }}")
    turns = play_turns(playbook(plain), read_events(story))
    assert [job.context.get("outcomes") for _, one, _ in turns for job in one.jobs if job.step == "see"] == [None]


def test_a_long_error_is_cut_in_the_list_of_failed_items() -> None:
    """The event of the item has the whole error."""
    error = {"message": "m" * 1000, "type": "KeyError", "status_code": 500, "traceback": "t" * 4000}
    short = shorten_error({"step": "it", **error}, ITEM_ERROR)
    assert short == {
        "step": "it", "type": "KeyError", "status_code": 500, "message": "m" * 250, "traceback": "t" * 40,
        "original_bytes": len(json.dumps({"step": "it", **error})),
    }  # fmt: skip
    assert size_of(short) < 500
    history = history_of(playbook(each()), f"{START}> execution_failed it[0] {json.dumps(error)}")
    assert history.turns[-1].events[0].error["traceback"] == error["traceback"]


def test_the_list_of_a_worker_is_no_envelope_of_the_author() -> None:
    """Nothing that the author returned is hidden."""
    found = result_of("action_completed", {"data": [1, None], "meta": {"failed": [{"index": 1}]}}, None)
    assert (found.failed, found.unwrapped) == ([{"index": 1}], False)


def test_a_simulation_lists_failed_items() -> None:
    """As a broker does."""
    head = "apiVersion: noetl.io/v1\nkind: Playbook\nmetadata: {name: story, path: story}\n"
    story = simulate(
        head + dedent(each("jobs")).replace("code: x", "code: result = 1"),
        {"it": lambda job: JobFailed("no", status_code=404) if job.item_index == 1 else job.item_index, "see": 1},
    )
    error = {"step": "it", "message": "no", "type": "failure", "status_code": 404}
    assert story.result == [{"index": 1, "error": error}]


def test_a_retry_after_the_iterator_reads_its_failed_items() -> None:
    """The plan has the result of the iterator with its list."""
    story = START + ends("children", "no", 2, 3) + "> iterator_completed it [null, 2, 3]\n"
    source = history_of(playbook(each()), story + '> action_failed see {"message": "no"}')
    [taken] = [one for one in plan_recovery(source).document["results"] if one["step"] == "it"]
    assert (taken["status"], taken["visit"]) == ("COMPLETED", 1)


def test_a_replay_of_a_long_history_keeps_failed_items() -> None:
    """It drops data that no later turn can read."""
    body, items = each(items=400).replace("mode: async", "mode: async, concurrency: 400"), range(400)
    story = START + "> iteration_due it\n" * 3
    story += ends("children", *("no" if n % 2 else n for n in items))
    story += f"> iterator_completed it {json.dumps([None if n % 2 else n for n in items])}\n"
    [*_, last] = replay_history(history_of(playbook(body), story))[0]
    [job] = last.decision.jobs
    assert [one["index"] for one in job.action["args"]["failed"]] == [*range(1, 400, 2)]


def test_a_worker_that_does_not_know_tolerate_fails_its_step_all_the_same() -> None:
    """The broker counts the failed items that the worker reports."""
    body = BY_WORKER.replace("[1, 2]", "[1, 2, 3, 4]").replace("on_error: continue", "tolerate: 1")
    failed = [FAILED, {**FAILED, "index": 2}]
    story = f"{START}> action_completed it {json.dumps({'data': [None, 2, None, 4], 'meta': {'failed': failed}})}"
    ended = history_of(playbook(body), story).ended
    assert ended is not None
    assert ended.error is not None
    assert ended.error["message"] == "2 of 4 items failed, and tolerate is 1; item 0: no"
    assert jobs(body.replace("tolerate: 1", "tolerate: 50%"), story) == [{"failed": failed, "ok": [None, 2, None, 4]}]

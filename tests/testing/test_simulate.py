"""`simulate`: a playbook without database and worker, with the answers of a test."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from noetl_broker import Job, JobFailed, Playbooks, SimulationFault, Story, in_turn, run_code, simulate
from noetl_broker.history.story import play_story
from noetl_broker.playbook import PlaybookError, PlaybookRules, check, compile_playbook
from noetl_broker.playbook.blocks import all_blocks
from noetl_broker.resources import playbooks_folder
from tests.playbooks.outside import simulated
from tests.playbooks.test_examples import RUNS
from tests.stories import document

EXAMPLES = playbooks_folder()
# Their workers need a database, or run the items of an iterator themselves.
NOT_IN_PYTHON = {"import_orders", "iterator", "nested_child", "nested_iterator", "record_sale"}


def every_step(file: Path) -> list[str]:
    """The steps that have jobs."""
    outer = compile_playbook(file.read_bytes(), rules=PlaybookRules())
    steps = [step for playbook in (outer, *all_blocks(outer)) for step in playbook.steps.values()]
    tasks = [step if step.iteration is None else step.iteration.task for step in steps]
    return [task.name for task in tasks if task.kind == "action"]


def played(name: str, answers: dict[str, Any], payload: dict[str, Any] | None = None, **outside: Any) -> Story:
    """The story of an example with these answers and all other examples."""
    return simulate(EXAMPLES / f"{name}.yaml", answers, payload=payload, playbooks=EXAMPLES.glob("*.yaml"), **outside)


@pytest.mark.parametrize("name,payload,result", [run for run in RUNS if run[0] not in NOT_IN_PYTHON])
def test_examples_give_the_results_that_they_give_with_a_broker(
    name: str, payload: dict[str, Any], result: object
) -> None:
    """With their own code as the answers; tests/playbooks/test_examples.py has the same results from a database."""
    children = (*EXAMPLES.glob(f"{name}_*.yaml"), EXAMPLES / "checked_order.yaml")
    files = [EXAMPLES / f"{name}.yaml", *children]
    answers = dict.fromkeys([step for file in files for step in every_step(file)], run_code)
    story = played(name, answers, payload, **simulated(name, payload))
    assert (story.status, story.result, story.error) == ("COMPLETED", result, None)


def test_the_story_of_a_simulation_can_be_played() -> None:
    """The core decides the same on the text of `str(story)`."""
    story = played("diamond", dict.fromkeys(every_step(EXAMPLES / "diamond.yaml"), run_code), {"amount": 5000})
    playbook = compile_playbook((EXAMPLES / "diamond.yaml").read_bytes(), rules=PlaybookRules())
    assert play_story(playbook, str(story)) == str(story)


def test_visits_are_in_order_with_inputs_and_results() -> None:
    """A router, like `start` here, has none."""
    story = played("conditional", {"measure": {"city": "Rome", "temperature": 30}, "warn": {"message": "hot"}})
    assert [(visit.step, visit.inputs, visit.status, visit.result) for visit in story.steps] == [
        ("measure", {"city": "Paris"}, "COMPLETED", {"city": "Rome", "temperature": 30}),
        ("warn", {"city": "Rome", "excess": 5}, "COMPLETED", {"message": "hot"}),
    ]


def test_answers_in_turn_are_used_for_attempts() -> None:
    """An exception fails an attempt; the core decides whether to retry."""
    busy = ZeroDivisionError("division by zero")
    story = played("retry", {"prepare": None, "unreliable": in_turn(busy, busy, {"attempts": 3})})
    assert story.result == {"attempts": 3}
    assert [job.attempt for job in story.jobs if job.step == "unreliable"] == [1, 2, 3]


def test_a_failed_step_has_type_details_and_retryable() -> None:
    """As given to JobFailed."""
    gone = JobFailed("gone", kind="http", retryable=False, status_code=410)
    story = played("retry", {"prepare": None, "unreliable": gone})
    expected = {"step": "unreliable", "message": "gone", "type": "http", "status_code": 410}
    assert (story.status, story.error, story.names) == ("FAILED", expected, ["prepare", "unreliable"])


def test_a_function_answers_the_job_of_each_item() -> None:
    """Results are gathered by index; a failed item gives null."""
    seen = []

    def convert(job: Job) -> float:
        seen.append((job.name, job.item_index))
        return float(job.args["celsius"])

    story = played("distributed_iterator", {"convert": convert})
    assert (story.result["fahrenheit"], seen[2]) == ([12.0, 17.5, None, 9.0], ("convert[2]", 2))


def test_a_called_playbook_is_simulated_and_restarted_when_it_fails() -> None:
    """Each start is a child execution."""
    ring = in_turn(ZeroDivisionError("division by zero"), {"rows": [{"rings": 2}]})
    story = played("nested_child", {"ring": ring, "sign": run_code})
    assert [child.status for child in story.children] == ["FAILED", "COMPLETED"]
    assert story.result == {"received": "a book", "rings": 2}


def test_code_finds_what_its_step_imports() -> None:
    """As in a worker."""
    body = """
    workflow:
    - {step: start, next: join}
    - {step: join, type: python, libs: {paths: os.path}, code: "def main(): return paths.join('a', 'b')", next: end}
    - {step: end, result: "{{ join }}"}
    """
    assert simulate(document(body), {"join": run_code}).result == "a/b"


def test_an_answer_replaces_the_child() -> None:
    """The playbook is not simulated and need not exist. A failed answer is retried, as the child would be started."""
    story = simulate(EXAMPLES / "nested_child.yaml", {"deliver": {"received": "a book"}})
    assert (story.result, story.children, story.jobs[0].args["parcel"]) == ({"received": "a book"}, (), "a book")
    answer = in_turn(ZeroDivisionError("division by zero"), {"received": 1})
    story = simulate(EXAMPLES / "nested_child.yaml", {"deliver": answer})
    assert (story.result, [job.attempt for job in story.jobs]) == ({"received": 1}, [1, 2])


def test_an_answer_replaces_the_child_of_each_item() -> None:
    """Each item is one job."""
    charge = in_turn({"amount": 5}, JobFailed("no"))
    story = played("iterator_playbook", {"charge": charge})
    assert [(job.name, job.args["number"]) for job in story.jobs] == [("charge[0]", 1), ("charge[1]", 2)]
    assert (story.status, story.error["message"], story.error["index"]) == ("FAILED", "no", 1)


def test_a_result_of_a_child_that_looks_like_an_envelope_is_not_unwrapped() -> None:
    """Of a step's child and of an iterator's, simulated or answered."""
    body = """
    workflow:
    - {step: start, next: each}
    - {step: each, type: iterator, collection: [1, 2], element: n, next: call,
       task: {type: playbook, path: child, args: {n: "{{ n }}"}}}
    - {step: call, type: playbook, path: child, args: {n: 3}, next: end}
    - {step: end, result: {each: "{{ each }}", call: "{{ call }}", id: "{{ call.id }}"}}
    """
    gave = "{id: '{{ workload.n }}', status: success, data: {n: 0}}"
    child = document(f"workflow: [{{step: start, next: end}}, {{step: end, result: {gave}}}]", path="child")
    one, two, three = ({"id": n, "status": "success", "data": {"n": 0}} for n in (1, 2, 3))
    expected = {"each": [one, two], "call": three, "id": 3}
    assert simulate(document(body), playbooks=[child]).result == expected
    assert simulate(document(body), {"each": in_turn(one, two), "call": three}).result == expected


def test_an_iterator_that_a_worker_runs_is_one_job() -> None:
    """Its answer is the list of results."""
    story = played("iterator", {"shout": [{"word": "A"}], "price": ["free"]})
    assert story.result == {"shouted": [{"word": "A"}], "bought": ["free"]}


def test_an_answer_for_path_and_step_wins_over_one_for_the_step() -> None:
    """An answer for path and step wins over one for the step."""
    path = "examples/conditional"
    cold = {"city": "Oslo", "temperature": 0}
    story = played("conditional", {"note": {"message": ""}, f"{path}:measure": cold, "measure": 2})
    assert story.names == ["measure", "note"]


def test_the_job_with_the_highest_priority_is_answered_first() -> None:
    """As a worker would lease it. A failed branch cancels the job of the other, and children."""
    body = """
    workflow:
    - {step: start, next: [call, slow, quick]}
    - {step: call, type: playbook, path: child}
    - {step: slow, type: python, code: result = 1}
    - {step: quick, type: python, code: result = 1, priority: 9}
    """
    child = document("workflow: [{step: start, next: a}, {step: a, type: http, url: x}]", path="child")
    story = simulate(document(body), {"slow": 1, "quick": 2, "a": 3}, playbooks=[child])
    assert ([job.step for job in story.jobs], story.status) == (["quick", "slow"], "COMPLETED")
    story = simulate(document(body), {"quick": JobFailed("no"), "slow": 2, "a": 3}, playbooks=[child])
    assert (story.status, [job.step for job in story.jobs]) == ("FAILED", ["quick"])
    assert {visit.step: visit.status for visit in story.steps} == {
        "call": "CANCELLED", "slow": "CANCELLED", "quick": "FAILED",
    }  # fmt: skip
    assert [(one.status, one.jobs) for one in story.children] == [("CANCELLED", ())]


def test_the_type_of_an_error_is_kept_in_every_parent() -> None:
    """Each parent names its own child; `retry_when` can read `status_code`."""
    call = "workflow: [{step: start, next: call}, {step: call, type: playbook, path: %s, retry: %s}]"
    top = document(call % ("middle", "{max_attempts: 2, retry_when: status_code == 503}"))
    middle = document(call % ("low", "1"), path="middle")
    low = document("workflow: [{step: start, next: get}, {step: get, type: http, url: x}]", path="low")
    answers = {"low:get": JobFailed("busy", type="HTTPError", status_code=503)}
    story = simulate(top, answers, playbooks=[middle, low])
    assert (story.error["type"], story.error["status_code"], story.error["message"]) == ("HTTPError", 503, "busy")
    assert (story.error["step"], story.error["child_step"]) == ("call", "call")
    assert [child.path for child in story.children] == ["middle", "middle"]


@pytest.mark.parametrize("step", ["type: http, url: x", "type: playbook, path: child"])
def test_jobs_and_children_of_a_turn_that_fails_are_not_started(step: str) -> None:
    """They need no answers."""
    nope = '{step: b, type: http, url: "{{ nope }}"}'
    body = document(f"workflow: [{{step: start, next: [a, b]}}, {{step: a, {step}}}, {nope}]")
    child = document("workflow: [{step: start, next: end}, {step: end}]", path="child")
    story = simulate(body, playbooks=[child])
    assert (story.status, story.jobs, story.children) == ("FAILED", (), ())


@pytest.mark.parametrize(
    "playbook, answers, complaint",
    [
        ("conditional", {}, "step measure (type python) of examples/conditional has no answer"),
        ("conditional", {"mesure": 1}, "there is no such step; did you mean"),
        ("retry", {"prepare": in_turn(), "unreliable": 1}, "job prepare of examples/retry needs one more answer than"),
        ("conditional", {"measure": object()}, "the answer to job measure is not JSON"),
    ],
)
def test_a_missing_or_invalid_answer_is_an_error_of_the_test(
    playbook: str, answers: dict[str, Any], complaint: str
) -> None:
    """With a remedy, and not a failure of the step. A missing playbook is one, too."""
    with pytest.raises(SimulationFault, match=re.escape(complaint)):
        played(playbook, answers)
    with pytest.raises(SimulationFault, match="calls examples/nested_child_courier, which the simulation does not"):
        simulate(EXAMPLES / "nested_child.yaml")


@pytest.mark.parametrize(
    "keys",
    [
        "next: nowhere",
        "nxt: end",
        "type: http, url: u, on_eror: continue",
        "type: http, url: u, timout: 5",
        "type: http, method: PSOT",
        "type: python, code: 'def main(: pass'",
        "type: python, code: 'x = 1'",
        "type: http, url: u, retry: {retry_when: \"error.type == 'x'\"}",
    ],
)
def test_an_invalid_playbook_is_refused_as_at_registration(tmp_path: Path, keys: str) -> None:
    """With the same findings, by `simulate` and by the fixture; warnings are no errors."""
    text = document(f"workflow: [{{step: start, {keys}}}, {{step: unreachable}}]")
    file = tmp_path / "story.yaml"
    file.write_text(text, encoding="utf-8")
    expected = [found for found in check(text, file=str(file), rules=PlaybookRules()) if found.severity == "error"]
    assert expected
    for refused in (partial(simulate, file), partial(Playbooks(tmp_path).simulate, "story")):
        with pytest.raises(PlaybookError) as caught:
            refused()
        assert caught.value.findings == tuple(expected)
        assert caught.value.__notes__ == ["\n".join(map(str, expected))]


def test_a_failed_assertion_in_an_answer_fails_the_test() -> None:
    """It does not fail the step."""

    def check(job: Job) -> None:
        assert job.args == {"city": "Rome"}

    with pytest.raises(AssertionError):
        played("conditional", {"measure": check})


def test_a_simulation_imports_neither_asyncpg_nor_the_worker() -> None:
    """A simulation imports neither asyncpg nor the worker."""
    code = "import sys, noetl_broker as n; n.simulate; print({'asyncpg', 'aiohttp', 'click'} & sys.modules.keys())"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"

"""`replay` for operators: one execution, many, a past state, as a test, against an edited playbook."""

from __future__ import annotations

import re
from typing import Any

import pytest
from click.testing import Result

from noetl_broker.broker.model.rules import Rules
from tests.brokers import complete_jobs, drain, register, start
from tests.cli.conftest import Command, execute, rows, write_playbook
from tests.histories import run_eventful
from tests.postgres import Database
from tests.stories import assert_story

FORK = """
workload: {limit: 1}
workflow:
- {step: start, next: measure}
- step: measure
  type: python
  code: result = 1
  next:
  - {when: "{{ measure.n > workload.limit }}", step: high}
  - else: [{step: low}]
- {step: high, type: python, code: result = 1, args: {n: "{{ measure.n }}"}, next: both}
- {step: low, type: python, code: result = 1, next: both}
- {step: both, type: python, code: result = 1}
"""


@pytest.fixture
async def forked(database: Database) -> int:
    """Run one execution of FORK until its second job waits, and two to their ends; give the id of the first."""
    await register(database, FORK)
    running, *_ = await start(database, count=3)
    await drain(database)
    await complete_jobs(database, {"n": 2})
    await drain(database)
    for _ in range(2):
        await complete_jobs_of_others(database, running)
        await drain(database)
    return running


async def complete_jobs_of_others(database: Database, execution_id: int) -> None:
    """Complete the queued jobs of all other executions."""
    hold = "update noetl.queue set available_at = {} where execution_id = {} and status = 'queued'"
    execute(database, hold.format("'infinity'", execution_id))
    await complete_jobs(database, {"n": 3})
    execute(database, hold.format("now()", execution_id))


@pytest.fixture
async def eventful(database: Database) -> int:
    """Run an execution with a loop, a retry, a child and items; give its id."""
    return await run_eventful(database)


def test_replay_of_an_id_prints_the_story(command: Command, forked: int) -> None:
    """Up to the current turn of a running execution."""
    result = command("replay", forked)
    assert result.exit_code == 0
    assert result.stdout == (
        "> execution_start\n"
        "    event step_started measure\n"
        "    job   measure\n"
        '> action_completed measure {"n": 2}\n'
        "    event step_completed measure\n"
        "    event step_started high\n"
        '    job   high {"n": 2}\n'
        f"execution {forked}: 2 turns so far (it is running), no difference\n"
    )


def test_replay_of_a_filter_prints_totals(command: Command, forked: int) -> None:
    """Filters choose the executions. In a pipe there is no progress bar."""
    assert _sum(command("replay", "--all")) == "3 executions, 10 turns, 0 different"
    assert _sum(command("replay", "--path", "sto*", "--status", "completed")) == "2 executions, 8 turns, 0 different"
    assert _sum(command("replay", "--path", "other")) == "0 executions, 0 turns, 0 different"
    assert _sum(command("replay", "--since", "1h")) == "3 executions, 10 turns, 0 different"
    assert _sum(command("replay", "--since", "2100-01-01")) == "0 executions, 0 turns, 0 different"
    assert command("replay", forked, forked).stdout.count("no difference") == 2


def _sum(result: Result) -> str:
    assert (result.exit_code, result.stderr) == (0, "")
    summary, pace, rest = result.stdout.partition(" (")
    assert re.fullmatch(r"[\d,]+ executions/s\)\n", rest), pace
    return summary


def test_a_difference_is_shown_as_a_diff(command: Command, database: Database, forked: int) -> None:
    """With its place; the story ends there. Exit code 1."""
    execute(database, f"update noetl.queue set priority = 9 where node_id = '{forked}:high'")
    result = command("replay", forked)
    assert result.exit_code == 1
    story, _, summary = result.stdout.partition(f"execution {forked}: 1 difference\n")
    assert story.endswith('    job   high {"n": 2}\n')
    [event_id] = rows(database, "select event_id from noetl.turn where turn = 2 and execution_id = %s", forked)[0]
    assert summary == (
        f"  turn 2, action_completed measure (event {event_id}): job high\n"
        "    --- written\n"
        "    +++ decided\n"
        '       "max_attempts": 1,\n'
        '       "node_type": "python",\n'
        '    -  "priority": 9,\n'
        '    +  "priority": 5,\n'
        '       "timeout": null\n'
        "     }\n"
    )
    of_all = command("replay", "--all")
    assert (of_all.exit_code, summary in of_all.stdout) == (1, True)
    found = command.json("replay", "--all")
    assert (found["executions"], found["turns"], found["differing"]) == (3, 10, 1)
    [difference] = found["different"][0]["differences"]
    head = [difference[key] for key in ("turn", "event_id", "event_type", "step", "what")]
    assert head == [2, str(event_id), "action_completed", "measure", "job high"]
    assert (difference["written"]["priority"], difference["decided"]["priority"]) == (9, 5)


DEAD_ENDS = [
    ("delete from noetl.catalog", "the catalog has no row"),
    ("update noetl.catalog set content = 'x'", "playbook story does not compile"),
    ("delete from noetl.execution", "noetl.execution has no row of it"),
    ("update noetl.execution set rules = '{\"x\": 1}'", "its rows are not such as the broker"),
    ("update noetl.queue set action = 'x'", "its rows are not such as the broker writes"),
    ("delete from noetl.event where event_type = 'execution_start'", "turn 1, missing"),
    ("delete from noetl.turn where turn = 1", "turn 1: it is missing"),
    ("update noetl.execution_state set tokens = '[]'", "  state"),
    ('update noetl.turn set facts = \'{"attempt": "x"}\'', "0 different"),
]


@pytest.mark.parametrize("change, words", DEAD_ENDS)
def test_replay_reports_what_is_missing(
    command: Command, database: Database, forked: int, change: str, words: str
) -> None:
    """In every form of the command, and the other executions are replayed."""
    execute(database, change)
    result = command("replay", "--all", "--debug")
    assert (words in result.stdout, result.stderr) == (True, ""), result.stdout
    assert "3 executions, " in result.stdout
    assert result.exit_code == (0 if words == "0 different" else 1)
    for form in (["--until", "turn:2"], ["--story"], ["--against", write_playbook(command.folder, FORK, path="story")]):
        answer = command("replay", forked, *form)
        assert ("fault of the program" in answer.stderr, "Traceback" in answer.stderr) == (False, False)


def test_an_execution_without_turns_says_why(command: Command, database: Database, forked: int) -> None:
    """It is unread, is a dead letter, or is older than the broker."""
    [(waiting,)] = rows(database, "select noetl.start_execution('story')")
    assert "has no turns yet: its start waits for a broker" in command("replay", waiting).stderr
    execute(database, "insert into noetl.dead_letter select event_id, execution_id, 'boom' from noetl.inbox")
    assert "deciding on its start failed (boom)" in command("replay", waiting).stderr
    execute(database, "delete from noetl.dead_letter; delete from noetl.inbox")
    assert "it ran before this broker took over, or was removed" in command("replay", waiting).stderr
    event = f"(select max(event_id) from noetl.event where execution_id = {forked})"
    execute(database, f"insert into noetl.dead_letter values ({event}, {forked}, 'boom')")
    assert "1 event of it was set aside and has no turn" in command("replay", forked).stdout


def test_replay_until_shows_the_state_after_a_turn(command: Command, database: Database, eventful: int) -> None:
    """By turn number or event id: tokens, joins and results."""
    found = command.json("replay", eventful, "--until", "turn:3")
    assert found["decision"][-1] == "    retry count 0 s"
    assert [(live["step"], live["inputs"], live["failures"]) for live in found["live"]] == [("count", {"n": 0}, 1)]
    assert found["waiting"] == [
        {"step": "both", "join": "all", "arrived_from": ["left"], "waits_for": [{"step": "count", "visit": 1}]}
    ]
    assert {step: result["data"] for step, result in found["results"].items()} == {"left": {"got": None}}
    text = command("replay", eventful, "--until", "turn:3").stdout
    assert text.startswith(f"execution {eventful}  story  RUNNING after turn 3, ")
    event_ids = rows(
        database,
        "select e.event_id from noetl.event e left join noetl.turn t using (execution_id, event_id)"
        " where e.execution_id = %s and (t.turn = 3 or e.meta ->> 'turn' = '3')",
        eventful,
    )
    assert len(event_ids) == 2
    assert {command("replay", eventful, "--until", event_id).stdout for (event_id,) in event_ids} == {text}
    items = command.json("replay", eventful, "--until", "turn:9")["live"]
    assert [(live["step"], live["items"]["ended"], live["open_items"]) for live in items] == [
        ("each", 0, [0, 1]),
        ("words", 1, [1]),
    ]
    assert "has no turn 99: its last is 16" in command("replay", eventful, "--until", "turn:99").stderr
    assert "has no event 7" in command("replay", eventful, "--until", "7").stderr


def test_a_printed_story_is_a_test_that_passes(command: Command, database: Database, eventful: int) -> None:
    """The printed test gives the same story: for the parent and each of its children."""
    ids = [row[0] for row in rows(database, "select execution_id from noetl.execution order by 1")]
    printed = command("replay", *ids, "--story")
    assert (printed.exit_code, printed.stderr) == (0, "")
    namespace: dict[str, Any] = {"assert_story": assert_story, "Rules": Rules}
    exec(printed.stdout, namespace)  # noqa: S102 - what a person would paste
    tests = {name: made for name, made in namespace.items() if name.startswith("test_")}
    assert [*tests] == [f"test_execution_{one}_of_{'story' if one == eventful else 'child'}" for one in ids]
    for test in tests.values():
        test()
    for expected in ("child call child", "words[2]", "count#2", "attempt 1  (duplicate)", "\\luck", "; depth 1"):
        assert expected in printed.stdout


def test_a_story_that_diverges_from_its_execution_says_so(command: Command) -> None:
    """A test has other ids and times, and a condition may read them."""
    body = (
        "workflow:\n- {step: start, next: [{when: 'execution_id > 1', step: a}]}\n"
        "- {step: a, type: python, code: result = 1}\n"
    )
    command("register", write_playbook(command.folder, body))
    execution_id = int(command("start", "examples/story").stdout)
    command("run", "--drain")
    printed = command("replay", execution_id, "--story")
    assert (printed.exit_code, "diverges from execution" in printed.stderr) == (1, True)


def test_replay_against_an_edited_playbook_counts_divergences(command: Command, forked: int) -> None:
    """Without ids all executions of its path: a table counts where and why they diverge."""
    edited = write_playbook(command.folder, FORK.replace("> workload.limit", "> 2"), path="story")
    result = command("replay", "--against", edited)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[1].split("  ")[0] == "3"
    because = "{{ measure.n > 2 }} is false, {{ measure.n > workload.limit }} was true"
    [group] = command.json("replay", "--against", edited)["groups"]
    head = [group[key] for key in ("executions", "step", "what", "because", "was", "instead")]
    assert head == [3, "measure", "another step", because, "starts high", "starts low"]
    same = command("replay", forked, "--against", write_playbook(command.folder, FORK, path="story"))
    assert same.exit_code == 0
    assert same.stdout.startswith("1 execution against ")
    assert "1 go the same way (1 of them still running), 0 diverge" in same.stdout


def test_an_execution_whose_failure_is_gone_continues_on_the_edit(command: Command) -> None:
    """`replay --against` says so, and names the retry that continues it."""
    broken = (
        "workload: {limit: 2}\nworkflow:\n- {step: start, next: r}\n"
        "- {step: r, type: route, next: [{when: '{{ limits > 1 }}', step: end}]}\n"
        "- {step: end, result: '{{ limit }}'}\n"
    )
    command("register", write_playbook(command.folder, broken))
    execution_id = int(command("start", "examples/story").stdout)
    command("run", "--drain")
    edited = write_playbook(command.folder, broken.replace("limits", "limit"))
    result = command("replay", "--against", edited)
    assert result.exit_code == 1
    says = result.stdout.splitlines()
    assert "the failure is gone  {{ limits > 1 }}: `limits` is undefined" in says[1]
    assert "0 go the same way, 1 diverge (1 of them because the failure is gone)" in says[-2]
    retry = f"retry {execution_id} --version latest"
    assert says[-1] == f"noetl-broker register {edited}, then noetl-broker {retry}"
    command("register", edited)
    retried = command.json(*retry.split())["recovered_as"]
    command("run", "--drain")
    assert command.json("status", retried)["result"] == 2


def test_replay_against_compares_nothing_without_executions_or_a_playbook(command: Command, forked: int) -> None:
    """A misspelt path would look like a harmless change. The errors of the playbook are printed as by `validate`."""
    missed = command("replay", "--against", write_playbook(command.folder, FORK, path="stroy"))
    nothing = "no execution was compared; noetl-broker executions lists what there is\n"
    assert (missed.exit_code, missed.stderr) == (0, nothing)
    wrong = write_playbook(command.folder, "workflow: []", path="story")
    command.refuses([(f"replay {forked} --against {wrong}", 1, "nothing was compared")])
    assert "error: " in command("replay", forked, "--against", wrong).stderr


def test_a_wrong_call_of_replay_says_what_is_right(command: Command) -> None:
    """A usage error: exit code 2."""
    cases = [
        ("7 --until x", "--until takes the id of an event, or turn:4"),
        ("--all --until turn:1", "--until takes the ID of one execution"),
        ("--all --story", "--story takes the IDs of executions"),
        ("7 --story --until turn:1", "exclude each other"),
        ("7 --ways-only", "--ways-only belongs to --against"),
        ("7 --against missing.yaml", "missing.yaml cannot be read"),
    ]
    command.refuses([(call, 2, words) for call, words in cases], "replay")

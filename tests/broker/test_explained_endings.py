"""How an execution ended, and why: its result, the step and the event that failed it, who cancelled it."""

from __future__ import annotations

from noetl_broker.broker.facts import ForkFact
from noetl_broker.broker.model import Emitted
from tests.explaining import execution_lines, facts_of, step_lines, told
from tests.forking import history_of
from tests.stories import playbook

PAIR = """
workflow:
- {step: start, next: [a, b]}
- {step: a, type: python, code: x, retry: 2, next: j}
- {step: b, type: python, code: x, next: j}
- {step: j, type: python, code: x, args: {n: "{{ a.n }}"}, next: end}
- {step: end}
"""


def explained(body: str, story: str, **more: object) -> str:
    """What is said of the execution that a story makes."""
    history = history_of(playbook(body), story)
    return execution_lines(history, facts_of(history, **more))


def test_a_completed_execution_says_where_its_result_is_from() -> None:
    """The branch ends, or `end.result`, or nothing."""
    story = '> execution_start\n> action_completed a {"n": 1}\n> action_completed b 2\n> action_completed j 3'
    assert explained(PAIR, story) == told("""
        execution 1 (story version 1) completed after 1 min 30 s, with the result 3
          it completed on action_completed (event 104, turn 4): nothing lived any more
            its result is the data of j
          it went through start, a, b, j and end
    """)
    said = explained(PAIR.replace("{step: end}", "{step: end, result: 7}"), story)
    assert "its result is what end.result says" in said
    two = """
        workflow:
        - {step: start, next: [a, b]}
        - {step: a, type: python, code: x}
        - {step: b, type: python, code: x}
        """
    assert "its result is the data of a and b, where branches ended" in explained(
        two, "> execution_start\n> action_completed a 1\n> action_completed b 2"
    )
    none = "workflow:\n- {step: start, next: end}\n- {step: end}"
    assert "it has no result: no branch ended with data" in explained(none, "> execution_start")


def test_a_failed_execution_says_what_failed_and_what_else_lived() -> None:
    """The attempts before, the message, and how it is brought back."""
    story = """
        > execution_start
        > action_failed a {"message": "busy"}
        > action_failed a {"message": "no network"}
        """
    assert explained(PAIR, story) == told("""
        execution 1 (story version 1) failed after 1 min 30 s, in step a: no network
          a failed on action_failed (event 103, turn 3)
            attempt 1 of 2 had failed before: busy
            b still ran, and was cancelled
          it went through start, a and b
          noetl-broker retry 1 brings it back from where it failed
    """)


CHILDREN = """
workflow:
- {step: start, next: c}
- {step: c, type: playbook, path: child}
"""
ITEMS = """
workflow:
- {step: start, next: c}
- {step: c, type: iterator, collection: [1, 2], element: n, mode: async, task: {type: playbook, path: child}}
"""


def test_the_failure_of_a_child_or_an_item_says_whose_it_was() -> None:
    """With the command that goes on from there; of the execution and of the step."""
    told_child = '{"message": "no", "child_execution_id": 77, "child_step": "s"}'
    child = history_of(playbook(CHILDREN), f"> execution_start\n> action_failed c {told_child}")
    says = "that was execution 77, in its step s: noetl-broker explain 77"
    assert execution_lines(child, facts_of(child)).splitlines()[2] == f"    {says}"
    assert step_lines(child, "c").splitlines()[-1] == f"      {says}"
    item = history_of(playbook(ITEMS), '> execution_start\n> execution_failed c[1] {"message": "no"}')
    assert execution_lines(item, facts_of(item)).splitlines()[2] == "    that was item 1"


def test_the_result_of_a_child_says_whose_it_was() -> None:
    """The letter names it."""
    source = history_of(playbook(CHILDREN), "> execution_start\n> action_completed c 5")
    first, letter = source.turns
    turns = (first, letter._replace(event=letter.event._replace(meta={"child_execution_id": 77})))
    history = type(source)(**{name: getattr(source, name) for name in source.__slots__} | {"turns": turns})
    said = "    it gave 5, with action_completed (event 102, turn 2) of execution 77"
    assert said in step_lines(history, "c").splitlines()


def test_a_step_that_the_end_cut_off_says_by_what() -> None:
    """It has no end of its own: the execution's is why it gave nothing."""
    failed = history_of(playbook(PAIR), '> execution_start\n> action_failed a {"message": "no"}; not retryable')
    assert step_lines(failed, "b").splitlines()[0] == (
        "b of execution 1 (story version 1, FAILED) still ran when the execution failed, in step a: no"
    )
    cancelled = history_of(playbook(PAIR), '> execution_start\n> execution_cancel {"reason": "too late"}')
    assert step_lines(cancelled, "b").splitlines()[0] == (
        "b of execution 1 (story version 1, CANCELLED) still ran when the execution was cancelled: too late"
    )


def test_a_template_that_failed_is_told_with_what_it_read() -> None:
    """Of a `when`, of inputs, of a field: the text, its place, the values and their sources."""
    story = '> execution_start\n> action_completed a {"v": 1}\n> action_completed b 2'
    complaint = "`a.n` is undefined: there is no such key in a mapping"
    assert explained(PAIR, story).replace(complaint, "COMPLAINT") == told("""
        execution 1 (story version 1) failed after 1 min 30 s, in step j: COMPLAINT
          j failed on action_completed (event 103, turn 3)
            the template {{ a.n }} at workflow[3].args.n
              a.n was undefined
              a was the result of a: action_completed (event 102, turn 2)
          it went through start, a, b and j
          noetl-broker retry 1 brings it back from where it failed
    """)
    field = """
        workflow:
        - {step: start, next: a}
        - {step: a, type: http, args: {city: Rome}, url: "{{ city }}/{{ nothing }}"}
        """
    assert [line.strip() for line in explained(field, "> execution_start").splitlines()[2:7]] == [
        "the template {{ city }}/{{ nothing }} at workflow[1].url",
        'city was "Rome"',
        "nothing was undefined",
        "city was an input of a",
        "no input, step or key of the workload is called nothing",
    ]


def test_a_failure_that_waited_at_a_join_is_told() -> None:
    """What had come to the join is lost with it."""
    story = "> execution_start\n> action_completed b 2" + 2 * '\n> action_failed a {"message": "x"}'
    assert "    j waited for the others" in explained(PAIR, story).splitlines()


def test_a_failed_execution_that_came_back_says_as_which() -> None:
    """Instead of the command."""
    story = '> execution_start\n> action_failed b {"message": "no"}'
    said = explained(PAIR, story, forks=(ForkFact(9, "COMPLETED", retry=False), ForkFact(8, "RUNNING", retry=True)))
    assert said.splitlines()[-1] == "  it was brought back as execution 8, which is RUNNING"


def test_a_cancelled_execution_says_by_what() -> None:
    """The event, its reason, and what lived."""
    said = explained(PAIR, '> execution_start\n> execution_cancel {"reason": "wrong city"}')
    assert said == told("""
        execution 1 (story version 1) was cancelled after 1 min 30 s: wrong city
          it was cancelled on execution_cancel (event 102, turn 2)
            a and b still ran, and were cancelled
          it went through start, a and b
    """)


def test_a_deadline_is_no_failure_of_a_step() -> None:
    """The execution failed by itself."""
    history = history_of(playbook(PAIR, metadata="deadline: 5"), "> execution_start\n> execution_deadline")
    assert execution_lines(history, facts_of(history)).splitlines()[:2] == [
        "execution 1 (story version 1) failed after 1 min 30 s: the deadline of 5 s passed",
        "  it failed on execution_deadline (event 102, turn 2)",
    ]


def test_an_end_that_would_go_otherwise_now_says_so() -> None:
    """What the rules of today would have started is no way that it took."""
    error = {"message": "playbook story does not compile: the type `dbt` is not known"}
    refused = Emitted("execution_failed", "FAILED", error=error, meta={"turn": 1})
    source = history_of(playbook(PAIR), "> execution_start")
    turns = (source.turns[0]._replace(events=(refused,)),)
    changed = type(source)(**{name: getattr(source, name) for name in source.__slots__} | {"turns": turns})
    assert execution_lines(changed, facts_of(changed, status="FAILED")).splitlines()[1:] == [
        "  it failed on execution_start (event 101, turn 1)",
        "    by the rules of this program turn 1 would go otherwise (noetl-broker replay shows how)",
        "  noetl-broker retry 1 brings it back from where it failed",
    ]


def test_an_end_that_no_turn_wrote_says_so() -> None:
    """Turns are missing, or another broker ran it."""
    history = history_of(playbook(PAIR), "> execution_start")
    said = execution_lines(history, facts_of(history, status="FAILED"))
    assert "no turn of it wrote its end" in said


def test_a_child_and_a_fork_say_whose_they_are() -> None:
    """In the headline."""
    history = history_of(playbook(PAIR), "> execution_start")
    assert execution_lines(history, facts_of(history, parent=5)).splitlines()[0].endswith("; a child of 5")
    assert execution_lines(history, facts_of(history, forked_from=5)).splitlines()[0].endswith("; it was forked from 5")

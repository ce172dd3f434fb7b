"""What a running execution waits for: workers, leases, retries, children, items, joins, mail, and brokers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from noetl_broker.broker.facts import ChildFact, Letter, TypeFact
from noetl_broker.broker.history import History
from tests.explaining import NOW, execution_lines, facts_of, job, step_lines, told
from tests.forking import history_of
from tests.stories import playbook

ONE = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, retry: {max_attempts: 3, initial_delay: 40, jitter: false}, next: end}
- {step: end}
"""
MINUTE = timedelta(minutes=1)


def waits(history: History, **more: Any) -> list[str]:
    """What is said of the execution, without the headline and the way that it went."""
    lines = execution_lines(history, facts_of(history, **more)).splitlines()[1:]
    return [line.removeprefix("  ") for line in lines if not line.startswith("  it went through")]


def started() -> History:
    """A playbook of one step, just begun."""
    return history_of(playbook(ONE), "> execution_start")


@pytest.mark.parametrize(
    "columns, types, expected",
    [
        (
            {},
            {"python": TypeFact(3, 0, NOW - 90 * MINUTE)},
            """
            the job of a waits for a worker of type python for 4 min 0 s
              3 jobs of type python wait, none is leased; the last worker for it was seen 1 h 30 min ago: IS ONE RUNNING
            """,
        ),
        (
            {},
            {"python": TypeFact(1, 2, NOW)},
            """
            the job of a waits for a worker of type python for 4 min 0 s
              1 job of type python waits, 2 are leased
            """,
        ),
        (
            {"status": "dead", "attempts": 1, "said": "dead", "said_at": NOW - MINUTE},
            {},
            """
            a NoETL server has set the job of a to dead 1 min 0 s ago
              where no event of it comes, the broker decides from that (missing_event_seconds)
            """,
        ),
        (
            {"lost_leases": 2, "attempts": 2},
            {},
            "the job of a waits for a worker of type python for 4 min 0 s, after 2 lost leases",
        ),
        (
            {
                "status": "leased", "worker": "w1", "attempts": 1, "timeout": 300.0, "lease_until": NOW + MINUTE / 2,
                "last_heartbeat": NOW - MINUTE / 6, "first_leased_at": NOW - 2 * MINUTE,
            },
            {},
            """
            worker w1 works on a for 2 min 0 s
              the lease ends in 30.0 s, the worker was heard of 10.0 s ago
              it times out in 3 min 0 s (timeout 300 s)
            """,
        ),
        (
            {
                "status": "leased", "worker": "w1", "attempts": 3, "lost_leases": 2, "timeout": 60.0,
                "lease_until": NOW + MINUTE, "last_heartbeat": NOW, "first_leased_at": NOW - 2 * MINUTE,
            },
            {},
            """
            worker w1 works on a, which was first leased 2 min 0 s ago
              lease 3 ends in 1 min 0 s, the worker was heard of 0 ms ago
              its timeout passed 1 min 0 s ago (timeout 60 s)
              before that it lost 2 leases
            """,
        ),
        (
            {"status": "leased", "worker": "w1", "attempts": 1, "lease_until": NOW - MINUTE},
            {},
            "the lease of w1 on the job of a ran out 1 min 0 s ago: a broker queues it again",
        ),
        (
            {"status": "leased", "worker": "w1", "attempts": 1, "lease_until": NOW - MINUTE, "foreign_lease": True},
            {},
            "the lease of w1 on the job of a ran out 1 min 0 s ago: it counts while its pool lives",
        ),
        (
            {"status": "done"},
            {},
            """
            the job of a is done, and no event of it waits to be read
              noetl-broker reevaluate 1 looks for it
            """,
        ),
        ({"status": "cancelled"}, {}, "the job of a is cancelled, which is no state to wait in"),
    ],
)  # fmt: skip
def test_an_open_job_says_who_has_it(columns: dict[str, Any], types: dict[str, TypeFact], expected: str) -> None:
    """By the database's clock."""
    found = waits(started(), jobs={("a", 1, None): job(**columns)}, types=types)
    running = "is one running? (noetl-broker worker)"
    assert found == told(expected).replace("IS ONE RUNNING", running).strip().splitlines()


def test_a_retry_says_when_it_is_due_and_how_the_attempt_before_failed() -> None:
    """Until then; from then on it waits for a worker."""
    history = history_of(playbook(ONE), '> execution_start\n> action_failed a {"message": "no network"}')
    later = {("a", 1, None): job(status="retry", max_attempts=3, available_at=NOW + MINUTE / 3)}
    assert waits(history, jobs=later) == ["a is tried again in 20.0 s", "  attempt 1 of 3 failed: no network"]
    due = {("a", 1, None): job(status="retry", max_attempts=3, available_at=NOW - MINUTE)}
    assert waits(history, jobs=due) == [
        "the job of a waits for a worker of type python for 1 min 0 s",
        "  attempt 1 of 3 failed: no network",
    ]


def test_an_event_that_is_not_read_is_told_with_its_visit() -> None:
    """Once; and that nobody is there to read it."""
    letter = Letter(7, "action_completed", ("a", 1, None), NOW - MINUTE)
    found = waits(started(), jobs={("a", 1, None): job(status="done")}, unread=(letter,), brokers=0)
    assert found == [
        "a has ended or failed, and no broker has decided on it yet",
        "  action_completed of a (event 7) waits for 1 min 0 s to be read",
        "no broker is connected to this database: noetl-broker run",
    ]


def test_mail_that_was_set_aside_says_why_and_how_it_comes_back() -> None:
    """With the command."""
    letter = Letter(7, "action_completed", ("a", 1, None), NOW - MINUTE, "KeyError: x")
    assert waits(started(), set_aside=(letter,)) == [
        "a has ended or failed, and no broker has decided on it yet",
        "  action_completed of a (event 7) was set aside 1 min 0 s ago: KeyError: x",
        "    when that is mended: noetl-broker reevaluate 1",
    ]


def test_mail_that_was_set_aside_for_want_of_the_playbook_is_told() -> None:
    """No visit can be told of without the playbook, and the mail of a live one is no secret for it."""
    source, gone = started(), "the catalog has no row 5 (playbook story)"
    history = type(source)(**{name: getattr(source, name) for name in source.__slots__} | {"playbook": gone})
    letter = Letter(7, "action_completed", ("a", 1, None), NOW - MINUTE, f"PlaybookFault: {gone}")
    assert waits(history, set_aside=(letter,)) == [
        f"it cannot go on: {gone}",
        f"action_completed of a (event 7) was set aside 1 min 0 s ago: PlaybookFault: {gone}",
        "  when that is mended: noetl-broker reevaluate 1",
    ]


def test_an_execution_that_nobody_has_read_waits_for_a_broker() -> None:
    """There is no history of it."""
    letter = Letter(7, "execution_start", None, NOW - MINUTE)
    facts = facts_of(started(), unread=(letter,), brokers=0)
    assert execution_lines(None, facts) == told("""
        execution 1 (story version 1) is RUNNING for 10 min 0 s
          execution_start (event 7) waits for 1 min 0 s to be read
          no broker is connected to this database: noetl-broker run
    """)


def test_many_letters_are_not_all_told() -> None:
    """Five are enough to see."""
    letters = tuple(Letter(number, "action_failed", None, NOW) for number in range(9))
    assert waits(started(), jobs={("a", 1, None): job()}, unread=letters)[-1] == "… and 4 more events"


def test_a_step_that_waits_for_a_playbook_says_where_that_stands() -> None:
    """Its id, its path, the steps that live in it."""
    history = history_of(
        playbook("workflow:\n- {step: start, next: k}\n- {step: k, type: playbook, path: child, retry: 2}"),
        "> execution_start",
    )
    child = ChildFact(77, "child", ("k", 1, None), NOW - MINUTE, ("fetch", "load"))
    delegated = {("k", 1, None): job(status="delegated", available_at=None)}
    assert waits(history, jobs=delegated, children=(child,)) == [
        "k waits for the playbook that it started",
        "  execution 77 (child) runs for 1 min 0 s, at fetch and load",
    ]
    again = {("k", 1, None): job(status="delegated", available_at=NOW + MINUTE)}
    assert waits(history, jobs=again) == ["the playbook of k failed, and is started again in 1 min 0 s"]
    assert waits(history, jobs=delegated) == ["k waits for a playbook, and none of its children runs"]


def test_an_iterator_says_how_far_it_has_got() -> None:
    """Its counts, and what its open items wait for."""
    history = history_of(
        playbook("""
        workflow:
        - {step: start, next: each}
        - step: each
          type: iterator
          collection: [1, 2, 3]
          element: n
          mode: async
          concurrency: 2
          distribute: true
          task: {type: python, code: x}
        """),
        "> execution_start\n> action_completed each[0] 1",
    )
    jobs = {("each", 1, None): job(status="delegated", available_at=None), ("each", 1, 1): job(), ("each", 1, 2): job()}
    assert waits(history, jobs=jobs) == [
        "each has 3 items: 1 ended (0 failed), 2 open, 0 not begun",
        "  the job of each[1] waits for a worker of type python for 4 min 0 s",
        "  the job of each[2] waits for a worker of type python for 4 min 0 s",
    ]


JOINS = """
workflow:
- {step: start, next: [a, b, c]}
- {step: a, type: python, code: x, next: j}
- {step: b, type: python, code: x, next: d}
- {step: c, type: python, code: x, next: k}
- {step: d, type: python, code: x, next: j}
- {step: j, type: python, code: x, next: k}
- {step: k, type: python, code: x, next: end}
- {step: end}
"""


def test_a_waiting_join_says_who_can_still_come_to_it() -> None:
    """By the graph; with the way, where it is not one arc alone. Another waiting join is told as well."""
    history = history_of(playbook(JOINS), "> execution_start\n> action_completed a 1\n> action_completed c 3")
    assert step_lines(history, "j") == told("""
        j of execution 1 (story version 1, RUNNING) waits before it runs
          join j waits for what can reach it
            a came to it already
            b runs and can still come to it (b → d → j)
    """)
    assert step_lines(history, "k") == told("""
        k of execution 1 (story version 1, RUNNING) waits before it runs
          join k waits for what can reach it
            c came to it already
            b runs and can still come to it (b → d → j → k)
            join j waits too, and can still come to it
    """)
    assert waits(history, jobs={("b", 1, None): job()})[1:] == [
        "join j waits for what can reach it",
        "  a came to it already",
        "  b runs and can still come to it (b → d → j)",
        "join k waits for what can reach it",
        "  c came to it already",
        "  b runs and can still come to it (b → d → j → k)",
        "  join j waits too, and can still come to it",
    ]


def test_the_end_waits_until_nothing_else_lives() -> None:
    """Whether it can come to it or not."""
    history = history_of(
        playbook("""
        workflow:
        - {step: start, next: [a, b]}
        - {step: a, type: python, code: x, next: end}
        - {step: b, type: python, code: x}
        - {step: end}
        """),
        "> execution_start\n> action_completed a 1",
    )
    assert step_lines(history, "end") == told("""
        end of execution 1 (story version 1, RUNNING) waits before it runs
          join end waits until nothing else lives
            a came to it already
            b runs and can still come to it
    """)


def test_an_execution_in_which_nothing_moves_says_so() -> None:
    """No live visit, no mail: that is a fault of ours."""
    history = started()
    history = type(history)(
        **{name: getattr(history, name) for name in history.__slots__}
        | {"state": {"status": "RUNNING", "seen": "1", "total": 1}, "turns": ()}
    )
    assert waits(history) == ["nothing lives in it and no mail waits: noetl-broker replay shows what is wrong"]


SPENT = """
workflow:
- {step: start, next: [quick, slow, third]}
- {step: quick, type: python, code: x, next: first}
- {step: slow, type: python, code: x, next: SLOW}
- {step: third, type: python, code: x, next: [both, first]}
- {step: both, join: all, type: python, code: x, next: first}
- {step: first, join: any, type: python, code: x, next: end}
- {step: end}
"""


def test_a_spent_token_is_not_said_to_come_to_the_end() -> None:
    """It ends at the join for which it was spent, and `end` only waits until it lives no more."""
    body = SPENT.replace("SLOW", "first")
    history = history_of(playbook(body), "> execution_start\n> action_completed quick 1\n> action_completed first 3")
    assert step_lines(history, "end") == told("""
        end of execution 1 (story version 1, RUNNING) waits before it runs
          join end waits until nothing else lives
            first came to it already
            slow runs and comes to it no more: it ends at join first, for which it was spent
            third runs and comes to it no more: it ends at join first, for which it was spent
    """)


def test_a_waiting_join_of_spent_tokens_is_not_said_to_come_to_the_end() -> None:
    """What will leave it is spent as well."""
    body = SPENT.replace("SLOW", "both")
    story = "> execution_start\n> action_completed slow 1\n> action_completed quick 1\n> action_completed first 3"
    history = history_of(playbook(body), story)
    assert step_lines(history, "end") == told("""
        end of execution 1 (story version 1, RUNNING) waits before it runs
          join end waits until nothing else lives
            first came to it already
            third runs and comes to it no more: it ends at join first, for which it was spent
            join both waits too, and comes to it no more: it ends at join first, for which it was spent
    """)
    assert step_lines(history, "both") == told("""
        both of execution 1 (story version 1, RUNNING) waits before it runs
          join both waits for what can reach it
            slow came to it already
            third runs and can still come to it
    """)


def test_a_spent_token_that_can_come_by_another_way_is_said_to_take_that() -> None:
    """Not by the join at which it would end, though that way is shorter."""
    body = """
        workflow:
        - {step: start, next: [quick, slow]}
        - {step: quick, type: python, code: x, next: first}
        - {step: slow, type: python, code: x, next: [first, audit]}
        - {step: audit, type: python, code: x, next: note}
        - {step: note, type: python, code: x, next: end}
        - {step: first, join: any, type: python, code: x, next: end}
        - {step: end}
        """
    history = history_of(playbook(body), "> execution_start\n> action_completed quick 1\n> action_completed first 3")
    assert step_lines(history, "end").splitlines()[-1].strip() == (
        "slow runs and can still come to it (slow → audit → note → end)"
    )


def test_a_spent_token_that_comes_to_another_join_of_the_group_is_said_so() -> None:
    """The joins of a group wait for each other: `a` alone it could not come to."""
    body = """
        workflow:
        - {step: start, next: [quick, slow]}
        - {step: quick, type: python, code: x, next: first}
        - {step: slow, type: python, code: x, next: [first, b]}
        - {step: first, join: any, type: python, code: x, next: [a, b]}
        - {step: a, join: all, type: python, code: x, next: b}
        - {step: b, join: all, type: python, code: x, next: [{when: "{{ b == 1 }}", step: first}]}
        """
    history = history_of(playbook(body), "> execution_start\n> action_completed quick 1\n> action_completed first 3")
    assert step_lines(history, "a") == told("""
        a of execution 1 (story version 1, RUNNING) waits before it runs
          join a waits for what can reach it
            first came to it already
            slow runs and can still come to join b, which waits together with it
    """)

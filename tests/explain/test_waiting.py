"""Explains what a running execution waits for: workers, leases, retries, children, items, joins, events, brokers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from noetl_broker.explain.facts import ChildFact, JobTypeFact, ThrottleFact, UnreadEvent
from noetl_broker.history.record import History
from tests.explanations import NOW, execution_lines, facts_of, job, step_lines
from tests.forks import history_of
from tests.stories import dedented, playbook

ONE = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, retry: {max_attempts: 3, initial_delay: 40, jitter: false}, next: end}
- {step: end}
"""
MINUTE = timedelta(minutes=1)
API = ThrottleFact("api", "k", 2, None, leased=2, ready=0, before=1, paused=False, holders=(5, 7))


def waits(history: History, **more: Any) -> list[str]:
    """The explanation of the execution, without headline and path."""
    lines = execution_lines(history, facts_of(history, **more)).splitlines()[1:]
    return [line.removeprefix("  ") for line in lines if not line.startswith("  it went through")]


def started() -> History:
    """An execution of one step, just started."""
    return history_of(playbook(ONE), "> execution_start")


@pytest.mark.parametrize(
    "columns, types, expected",
    [
        (
            {},
            {("python", "default"): JobTypeFact(3, 0, NOW - 90 * MINUTE)},
            """
            the job of a has been waiting for a worker of type python for 4 min 0 s
              3 jobs of type python wait, none is leased; the last such worker was seen 1 h 30 min ago START A WORKER
            """,
        ),
        (
            {"start_by": NOW + MINUTE},
            {},
            """
            the job of a has been waiting for a worker of type python for 4 min 0 s
              it fails in 1 min 0 s if no worker leases it (start_timeout)
            """,
        ),
        (
            {"start_by": NOW - MINUTE},
            {},
            """
            the job of a has been waiting for a worker of type python for 4 min 0 s
              its start_timeout passed 1 min 0 s ago
            """,
        ),
        (
            {},
            {("python", "default"): JobTypeFact(1, 2, NOW)},
            """
            the job of a has been waiting for a worker of type python for 4 min 0 s
              1 job of type python waits, 2 are leased
            """,
        ),
        (
            {"status": "dead", "attempts": 1, "server_status": "dead", "server_status_at": NOW - MINUTE},
            {},
            """
            a NoETL server set the job of a to dead 1 min 0 s ago
              if its event does not come, the broker uses that status (missing_event_seconds)
            """,
        ),
        (
            {"lost_leases": 2, "attempts": 2},
            {},
            "the job of a has been waiting for a worker of type python for 4 min 0 s, after 2 lost leases",
        ),
        (
            {
                "status": "leased", "worker": "w1", "attempts": 1, "timeout": 300.0, "lease_until": NOW + MINUTE / 2,
                "last_heartbeat": NOW - MINUTE / 6, "first_leased_at": NOW - 2 * MINUTE,
            },
            {},
            """
            worker w1 has been working on a for 2 min 0 s
              the lease ends in 30.0 s; the last heartbeat was 10.0 s ago
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
            worker w1 is working on a, first leased 2 min 0 s ago
              lease 3 ends in 1 min 0 s; the last heartbeat was 0 ms ago
              its timeout passed 1 min 0 s ago (timeout 60 s)
              it lost 2 leases
            """,
        ),
        (
            {"status": "leased", "worker": "w1", "attempts": 1, "lease_until": NOW - MINUTE},
            {},
            "the lease of w1 on the job of a expired 1 min 0 s ago: a broker will queue the job again",
        ),
        (
            {"status": "leased", "worker": "w1", "attempts": 1, "lease_until": NOW - MINUTE, "foreign_lease": True},
            {},
            "the lease of w1 on the job of a expired 1 min 0 s ago: it is valid while its worker pool lives",
        ),
        (
            {"status": "done"},
            {},
            """
            the job of a is done, but its event is not in the inbox
              noetl-broker reevaluate 1 looks for the event
            """,
        ),
        ({"status": "cancelled"}, {}, "the job of a is cancelled, so no worker will run it"),
        (
            {"status": "held", "throttle": API},
            {},
            ("the job of a waits for a slot of the throttle api k (2 at a time):"
            " 2 leased (5 and 7), 0 ready, 1 waits before it"),
        ),
        (
            {"status": "held", "throttle": API._replace(leased=0, before=0, holders=()), "available_at": NOW + MINUTE},
            {},
            "a will be retried in 1 min 0 s; then it asks for a slot of the throttle api k (2 at a time)",
        ),
        (
            {"throttle": API._replace(concurrency=None, rate=0.5, key=""), "available_at": NOW + MINUTE / 60},
            {},
            "the job of a may begin in 1.0 s, by the throttle api (30/m)",
        ),
        (
            {"status": "held", "throttle": API._replace(paused=True)},
            {},
            "the job of a is held until the execution is resumed",
        ),
    ],
)  # fmt: skip
def test_an_open_job_is_explained_by_its_status_and_lease(
    columns: dict[str, Any], types: dict[str, JobTypeFact], expected: str
) -> None:
    """Times are relative to the database's clock."""
    found = waits(started(), jobs={("a", 1, None): job(**columns)}, types=types)
    start_one = "(start one: noetl-broker worker)"
    assert found == dedented(expected).replace("START A WORKER", start_one).strip().splitlines()


def test_a_job_of_an_own_type_waits_for_an_own_worker() -> None:
    """The program's worker does not know the type."""
    own = {("a", 1, None): job(type="resize")}
    found = waits(started(), jobs=own, types={("resize", "default"): JobTypeFact(1, 0, None)})
    assert found[-1].endswith("no such worker was seen lately (start your worker for resize)")


def test_a_job_that_no_worker_serves_names_its_pool() -> None:
    """With the option that starts such a worker."""
    own = {("a", 1, None): job(pool="gpu")}
    fact = JobTypeFact(1, 0, None, "no worker serves python in pool gpu; one job waits for 4 min 0 s")
    assert waits(started(), jobs=own, types={("python", "gpu"): fact}) == [
        "the job of a has been waiting for a worker of type python in pool gpu for 4 min 0 s",
        f"  {fact.unserved} (start one: noetl-broker worker --pool gpu)",
    ]


def test_a_retry_names_its_due_time_and_the_failed_attempt() -> None:
    """When it is due, it waits for a worker."""
    history = history_of(playbook(ONE), '> execution_start\n> action_failed a {"message": "no network"}')
    later = {("a", 1, None): job(status="retry", max_attempts=3, available_at=NOW + MINUTE / 3)}
    assert waits(history, jobs=later) == ["a will be retried in 20.0 s", "  attempt 1 of 3 failed: no network"]
    due = {("a", 1, None): job(status="retry", max_attempts=3, available_at=NOW - MINUTE)}
    assert waits(history, jobs=due) == [
        "the job of a has been waiting for a worker of type python for 1 min 0 s",
        "  attempt 1 of 3 failed: no network",
    ]


def test_an_unread_event_is_explained_with_its_visit() -> None:
    """Once, and that no broker is connected."""
    letter = UnreadEvent(7, "action_completed", ("a", 1, None), NOW - MINUTE)
    found = waits(started(), jobs={("a", 1, None): job(status="done")}, unread=(letter,), brokers=0)
    assert found == [
        "a has an event that no broker has read yet",
        "  action_completed of a (event 7) has been unread for 1 min 0 s",
        "no broker is connected to this database (start one: noetl-broker run)",
    ]


def test_a_dead_letter_names_its_reason_and_the_command_for_it() -> None:
    """A dead letter names its reason and the command for it."""
    letter = UnreadEvent(7, "action_completed", ("a", 1, None), NOW - MINUTE, "KeyError: x")
    assert waits(started(), dead_letters=(letter,)) == [
        "a has an event that no broker has read yet",
        "  action_completed of a (event 7) was moved to the dead letters 1 min 0 s ago: KeyError: x",
        "    after that is fixed: noetl-broker reevaluate 1",
    ]


def test_dead_letters_of_an_execution_without_playbook_are_named() -> None:
    """Also those of open visits, which cannot be explained without the playbook."""
    source, gone = started(), "the catalog has no row 5 (playbook story)"
    history = type(source)(**{name: getattr(source, name) for name in source.__slots__} | {"playbook": gone})
    letter = UnreadEvent(7, "action_completed", ("a", 1, None), NOW - MINUTE, f"PlaybookFault: {gone}")
    assert waits(history, dead_letters=(letter,)) == [
        f"it cannot continue: {gone}",
        f"action_completed of a (event 7) was moved to the dead letters 1 min 0 s ago: PlaybookFault: {gone}",
        "  after that is fixed: noetl-broker reevaluate 1",
    ]


def test_an_unread_execution_waits_for_a_broker() -> None:
    """There is no history of it."""
    letter = UnreadEvent(7, "execution_start", None, NOW - MINUTE)
    facts = facts_of(started(), unread=(letter,), brokers=0)
    assert execution_lines(None, facts) == dedented("""
        execution 1 (story version 1) has been RUNNING for 10 min 0 s
          execution_start (event 7) has been unread for 1 min 0 s
          no broker is connected to this database (start one: noetl-broker run)
    """)


def test_at_most_five_unread_events_are_named() -> None:
    """At most five unread events are named."""
    letters = tuple(UnreadEvent(number, "action_failed", None, NOW) for number in range(9))
    assert waits(started(), jobs={("a", 1, None): job()}, unread=letters)[-1] == "… and 4 more events"


def test_a_step_that_waits_for_a_playbook_names_the_child() -> None:
    """Its id, its path, its open steps."""
    history = history_of(
        playbook("workflow:\n- {step: start, next: k}\n- {step: k, type: playbook, path: child, retry: 2}"),
        "> execution_start",
    )
    child = ChildFact(77, "child", ("k", 1, None), NOW - MINUTE, ("fetch", "load"))
    delegated = {("k", 1, None): job(status="delegated", available_at=None)}
    assert waits(history, jobs=delegated, children=(child,)) == [
        "k is waiting for the playbook that it started",
        "  execution 77 (child) has been running for 1 min 0 s, at fetch and load",
    ]
    again = {("k", 1, None): job(status="delegated", available_at=NOW + MINUTE)}
    assert waits(history, jobs=again) == ["the playbook of k failed and will start again in 1 min 0 s"]
    assert waits(history, jobs=delegated) == ["k is waiting for a playbook, but none of its children is running"]


def test_an_iterator_shows_its_progress() -> None:
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
        "each has 3 items: 1 ended (0 failed), 2 open, 0 not started",
        "  the job of each[1] has been waiting for a worker of type python for 4 min 0 s",
        "  the job of each[2] has been waiting for a worker of type python for 4 min 0 s",
    ]


def test_a_worker_that_iterates_is_said_to_hide_its_items() -> None:
    """And how they become visible."""
    body = """
        workflow:
        - {step: start, next: each}
        - {step: each, type: python, code: x, loop: {collection: [1, 2], element: n}, args: {n: "{{ n }}"}}
        """
    lines = waits(history_of(playbook(body), "> execution_start"), jobs={("each", 1, None): job()})
    assert lines[1:] == [
        "  one worker runs all its items, which are known when it ends; with distribute: true each has a job"
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


def test_a_waiting_join_names_what_can_still_reach_it() -> None:
    """With the path where it is longer than one arc. Other waiting joins are named too."""
    history = history_of(playbook(JOINS), "> execution_start\n> action_completed a 1\n> action_completed c 3")
    assert step_lines(history, "j") == dedented("""
        j of execution 1 (story version 1, RUNNING) has not run: its join is waiting
          join j waits for everything that can reach it
            tokens have arrived from a
            b is running and can still reach it (b → d → j)
    """)
    assert step_lines(history, "k") == dedented("""
        k of execution 1 (story version 1, RUNNING) has not run: its join is waiting
          join k waits for everything that can reach it
            tokens have arrived from c
            b is running and can still reach it (b → d → j → k)
            join j is waiting too and can still reach it
    """)
    assert waits(history, jobs={("b", 1, None): job()})[1:] == [
        "join j waits for everything that can reach it",
        "  tokens have arrived from a",
        "  b is running and can still reach it (b → d → j)",
        "join k waits for everything that can reach it",
        "  tokens have arrived from c",
        "  b is running and can still reach it (b → d → j → k)",
        "  join j is waiting too and can still reach it",
    ]


def test_end_waits_until_nothing_else_is_open() -> None:
    """Whether it can be reached or not."""
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
    assert step_lines(history, "end") == dedented("""
        end of execution 1 (story version 1, RUNNING) has not run: its join is waiting
          join end waits until nothing else is open
            tokens have arrived from a
            b is running and can still reach it
    """)


def test_an_execution_that_is_stuck_is_reported() -> None:
    """No open visit and no unread event: a bug of the broker."""
    history = started()
    history = type(history)(
        **{name: getattr(history, name) for name in history.__slots__}
        | {"state": {"status": "RUNNING", "seen": "1", "total": 1}, "turns": ()}
    )
    assert waits(history) == ["nothing is open and no event is unread: noetl-broker replay shows what is wrong"]


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


def test_a_spent_token_is_said_to_end_before_end() -> None:
    """It ends at its join; `end` waits only until it has ended."""
    body = SPENT.replace("SLOW", "first")
    history = history_of(playbook(body), "> execution_start\n> action_completed quick 1\n> action_completed first 3")
    assert step_lines(history, "end") == dedented("""
        end of execution 1 (story version 1, RUNNING) has not run: its join is waiting
          join end waits until nothing else is open
            tokens have arrived from first
            slow is running and cannot reach it: its token is spent and ends at join first
            third is running and cannot reach it: its token is spent and ends at join first
    """)


def test_a_waiting_join_of_spent_tokens_is_said_to_end_before_end() -> None:
    """Its token is spent as well."""
    body = SPENT.replace("SLOW", "both")
    story = "> execution_start\n> action_completed slow 1\n> action_completed quick 1\n> action_completed first 3"
    history = history_of(playbook(body), story)
    assert step_lines(history, "end") == dedented("""
        end of execution 1 (story version 1, RUNNING) has not run: its join is waiting
          join end waits until nothing else is open
            tokens have arrived from first
            third is running and cannot reach it: its token is spent and ends at join first
            join both is waiting too and cannot reach it: its token is spent and ends at join first
    """)
    assert step_lines(history, "both") == dedented("""
        both of execution 1 (story version 1, RUNNING) has not run: its join is waiting
          join both waits for everything that can reach it
            tokens have arrived from slow
            third is running and can still reach it
    """)


def test_a_spent_token_is_said_to_take_the_path_around_its_join() -> None:
    """Although the path through the join is shorter."""
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
        "slow is running and can still reach it (slow → audit → note → end)"
    )


def test_a_spent_token_that_reaches_another_join_of_the_group_is_reported() -> None:
    """The joins of a group wait for each other."""
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
    assert step_lines(history, "a") == dedented("""
        a of execution 1 (story version 1, RUNNING) has not run: its join is waiting
          join a waits for everything that can reach it
            tokens have arrived from first
            slow is running and can still reach join b, which waits with it
    """)

"""Runs an execution with a loop, a retry, a join, a child and items on a real database, for tests of replays."""

from __future__ import annotations

from tests.brokers import drain, execute, register, rows, start, value
from tests.postgres import Database

# A loop, a retry with another lease, a join of two branches, a child, items as children and as jobs.
EVENTFUL = """
workload: {rounds: 2, words: [a, b, c]}
workflow:
- {step: start, next: [count, left]}
- step: count
  type: python
  code: |
    def main(n):
        return {"n": n + 1}
  args: {n: "{{ count.n | default(0) }}"}
  retry: {max_attempts: 3, initial_delay: 0, jitter: false}
  next:
  - {when: "{{ count.n < workload.rounds }}", step: count}
  - else: [{step: both, args: {n: "{{ count.n }}"}}]
- {step: left, type: python, code: x, next: both}
- {step: both, type: python, code: x, next: call}
- {step: call, type: playbook, path: child, args: {n: "{{ count.n }}"}, next: [each, words]}
- step: each
  type: iterator
  collection: [1, 2]
  element: n
  mode: async
  task: {type: playbook, path: child, args: {n: "{{ n }}"}}
  next: end
- step: words
  type: iterator
  collection: "{{ workload.words }}"
  element: word
  distribute: true
  args: {mark: "!"}
  task: {type: python, code: x, args: {text: "{{ word }}{{ mark }}"}}
  next: end
- {step: end, result: {call: "{{ call }}", each: "{{ each }}", words: "{{ words }}"}}
"""
CHILD = """
workload: {n: 0}
workflow:
- {step: start, next: work}
- {step: work, type: python, code: x, args: {n: "{{ workload.n }}"}, next: end}
- {step: end, result: {was: "{{ work.n }}"}}
"""

LEASE = "select queue_id, attempts, node_name, action::jsonb -> 'args' from noetl.lease_jobs('w', 1)"
COMPLETE = "select noetl.complete_job($1, 'w', $2, $3)"
FAIL = "select noetl.fail_job($1, 'w', $2, $3)"


async def run_eventful(database: Database) -> int:
    """Run it to its end, job by job; return its id. The first `count` fails once, and its failure is sent twice."""
    await register(database, EVENTFUL)
    await register(database, CHILD, path="child")
    [execution_id] = await start(database)
    failed = False
    while await value(database, "select count(*) from noetl.execution where status = 'RUNNING'"):
        await drain(database)
        await execute(database, "update noetl.queue set available_at = now() where status = 'retry'")
        for queue_id, attempt, step, inputs in await rows(database, LEASE):
            if step == "count" and not failed:
                failed = True
                await execute(database, FAIL, queue_id, attempt, {"message": "no \\luck", "at": "line 1\nline 2"})
                await drain(database)
                await resend_event(database, execution_id, "action_failed")
                continue
            answer = {"n": inputs["n"] + (step == "count")} if step in {"count", "work"} else {"got": inputs}
            await execute(database, COMPLETE, queue_id, attempt, answer)
    await resend_event(database, execution_id, "action_completed")
    await drain(database)
    return execution_id


async def resend_event(database: Database, execution_id: int, event_type: str) -> None:
    """Insert an event again, like a worker that got no answer."""
    await execute(
        database,
        "insert into noetl.event (execution_id, event_type, node_id, node_name, result, error, meta)"
        " select execution_id, event_type, node_id, node_name, result, error, meta from noetl.event"
        " where execution_id = $1 and event_type = $2 order by created_at limit 1",
        execution_id,
        event_type,
    )

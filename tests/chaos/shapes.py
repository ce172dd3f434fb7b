"""Twelve kinds of playbooks on which faults are tried, and the answers of their workers."""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.brokers import register
from tests.postgres import Database

CHAIN = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: [{when: "a.ok", step: b}]}
- {step: b, type: python, code: x, args: {was: "{{ a.ok }}"}, next: end}
- {step: end, result: "{{ b.ok }}"}
"""
DIAMOND = """
workload: {weight: 3}
workflow:
- {step: start, next: fan}
- {step: fan, next: [a, b, c]}
- {step: a, type: python, code: x, next: j}
- {step: b, type: python, code: x, next: j}
- {step: c, type: python, code: x, next: [{when: "c.ok", step: j}, {else: [{step: a}]}]}
- {step: j, type: python, code: x, args: {weight: "{{ workload.weight }}"}, next: end}
- {step: end}
"""
LOOP = """
workflow:
- {step: start, next: count}
- step: count
  type: python
  code: x
  args: {n: "{{ count.n | default(0) }}"}
  next: [{when: "{{ count.n < 3 }}", step: count}, {else: [{step: end}]}]
- {step: end, result: "{{ count.n }}"}
"""
RETRY = """
workflow:
- {step: start, next: shaky}
- step: shaky
  type: python
  code: x
  retry: {max_attempts: 3, initial_delay: 0, jitter: false}
  next: lost
- {step: lost, type: python, code: x, on_error: continue, next: end}
- {step: end, result: "{{ lost.status }}"}
"""
FAMILY = """
workflow:
- {step: start, next: call}
- {step: call, type: playbook, path: child, args: {n: 1}, next: each}
- step: each
  type: iterator
  collection: [1, 2, 3]
  element: n
  mode: async
  concurrency: 2
  task: {type: playbook, path: child, args: {n: "{{ n }}"}}
  next: words
- step: words
  type: iterator
  collection: [x, y]
  element: word
  distribute: true
  task: {type: python, code: x, args: {text: "{{ word }}"}}
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
# `b` and `c` win. Of the losers, `ab` is queued, `late` has answered, the others wait for jobs, children and a moment.
RACE = """
workflow:
- {step: start, next: [aa, b, c, call, each, words, late, days]}
- {step: aa, type: python, code: x, next: ab}
- {step: ab, type: python, code: x, next: first}
- {step: b, type: python, code: x, next: first}
- {step: c, type: python, code: x, next: first}
- {step: call, type: playbook, path: long, next: first}
- {step: each, type: iterator, collection: [1, 2], element: n, task: {type: playbook, path: long}, next: first}
- step: words
  type: iterator
  collection: [x, y]
  element: word
  distribute: true
  task: {type: python, code: x, args: {text: "{{ word }}"}}
  next: first
- {step: late, type: python, code: x, next: first}
- {step: days, type: wait, for: 3d, next: first}
- {step: first, join: {need: 2, losers: cancel}, type: python, code: x, next: end}
- {step: end, result: "{{ first.ok }}"}
"""
# `past` ends in the turn of its beginning. The test makes the timers of `soon` and of the retried child due.
WAITS = """
workflow:
- {step: start, next: [soon, past, call]}
- {step: soon, type: wait, for: 1h, next: a}
- {step: past, type: wait, until: "2026-01-01T00:00:00Z", next: {step: b, args: {at: "{{ past.waited_until }}"}}}
- step: call
  type: playbook
  path: failing
  retry: {max_attempts: 2, initial_delay: 60, jitter: false}
  on_error: continue
- {step: a, type: python, code: x, args: {at: "{{ soon.waited_until }}"}, next: soon_again}
- {step: soon_again, type: wait, for: 1h, next: end}
- {step: b, type: python, code: x, next: end}
- {step: end, result: {a: "{{ a }}", b: "{{ b }}", again: "{{ soon_again }}"}}
"""
# It is paused after its first turn, with its child, and resumed once nothing moves.
HELD = """
workflow:
- {step: start, next: [a, call]}
- {step: a, type: python, code: x, next: j}
- {step: call, type: playbook, path: child, args: {n: 1}, next: j}
- {step: j, type: python, code: x, args: {was: "{{ call.was }}"}, next: end}
- {step: end}
"""
# The test decides `ask`, and makes the timeout of `nobody` due.
ASKED = """
workflow:
- {step: start, next: [ask, nobody]}
- {step: ask, type: approval, form: {n: {type: integer, default: 7}}, timeout: 9d, next: a}
- {step: nobody, type: approval, timeout: 1h, on_error: continue, next: b}
- {step: a, type: python, code: x, args: {n: "{{ ask.n }}", by: "{{ ask.by }}"}, next: end}
- {step: b, type: python, code: x, args: {why: "{{ nobody.error.type }}"}, next: end}
- {step: end, result: {a: "{{ a }}", b: "{{ b }}"}}
"""
# The first signal does not fit `heard`, so it is kept for `again`; the second one comes after it.
SIGNALS = """
workflow:
- {step: start, next: [heard, work]}
- {step: heard, type: wait, signal: [news, other], key: k, when: "{{ signal.payload.n > 1 }}", timeout: 3d, next: again}
- {step: again, type: wait, signal: news, key: k, next: j}
- {step: work, type: python, code: x, next: tell}
- {step: tell, type: signal, signal: news, key: k, payload: {n: 1}, next: more}
- {step: more, type: python, code: x, next: tell_again}
- {step: tell_again, type: signal, signal: news, key: k, payload: {n: 2}, next: j}
- {step: j, type: python, code: x, args: {heard: "{{ heard }}", again: "{{ again }}"}, next: end}
- {step: end, result: "{{ j }}"}
"""
# `lost` fails it. Then the items are undone, the child by itself, and `pay` at the second attempt. Its
# `on_failure` starts in the turn of the end.
UNDONE = """
workflow:
- {step: start, next: pay}
- step: pay
  type: python
  code: x
  compensate:
    {type: python, code: x, args: {of: "{{ result }}"}, retry: {max_attempts: 2, initial_delay: 0, jitter: false}}
  next: trip
- {step: trip, type: playbook, path: undoing, args: {n: 1}, next: words}
- step: words
  type: iterator
  collection: [x, y, z]
  element: word
  mode: async
  task:
    type: python
    code: x
    args: {text: "{{ word }}"}
    compensate: {type: python, code: x, args: {was: "{{ word }}", got: "{{ result.got.text }}"}}
  next: lost
- {step: lost, type: python, code: x, next: end}
- {step: end}
"""
UNDOING = """
workload: {n: 0}
workflow:
- {step: start, next: book}
- {step: book, type: python, code: x, compensate: {type: python, code: x, args: {m: "{{ workload.n }}"}}, next: tell}
- {step: tell, type: python, code: x, compensate: {type: playbook, path: child, args: {n: 3}}, next: end}
- {step: end}
"""
# One child runs at a time, whichever comes first.
THROTTLED = """
workflow:
- {step: start, next: [a, b, c]}
- {step: a, type: playbook, path: single, next: j}
- {step: b, type: playbook, path: single, next: j}
- {step: c, type: playbook, path: single, next: j}
- {step: j, type: python, code: x, next: end}
- {step: end}
"""
FAILING = """
workflow:
- {step: start, next: work}
- {step: work, type: python, code: "{{ nothing }}", args: {n: "{{ nothing }}"}}
"""
LONG = """
workflow:
- {step: start, next: work}
- {step: work, type: python, code: x, next: more}
- {step: more, type: python, code: x}
"""
SHAPES = {
    "chain": CHAIN,
    "diamond": DIAMOND,
    "loop": LOOP,
    "retry": RETRY,
    "family": FAMILY,
    "race": RACE,
    "waits": WAITS,
    "held": HELD,
    "asked": ASKED,
    "signals": SIGNALS,
    "undone": UNDONE,
    "throttled": THROTTLED,
}


class Answer(NamedTuple):
    """The answer of a worker to a job."""

    ok: bool
    value: Any


def answer(step: str, attempt: int, inputs: dict[str, Any]) -> Answer:
    """Give the answer to a job; the same job always gets the same answer."""
    if step == "lost" or (step == "shaky" and attempt < 3) or (step == "pay!undo" and attempt < 2):
        return Answer(ok=False, value={"message": "no luck"})
    if "n" in inputs:
        return Answer(ok=True, value={"n": inputs["n"] + 1})
    return Answer(ok=True, value={"ok": True, "got": inputs})


async def register_shapes(database: Database) -> None:
    """Register all of them by their names."""
    for path, body in {**SHAPES, "child": CHILD, "long": LONG, "failing": FAILING, "undoing": UNDOING}.items():
        alarm = "on_failure: {path: child}" if path == "undone" else ""
        await register(database, body, path=path, metadata=alarm)
    await register(database, CHILD, path="single", metadata="concurrency: {}")

"""Five shapes of playbook that a fault is tried on, and what the workers answer to their jobs."""

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
SHAPES = {"chain": CHAIN, "diamond": DIAMOND, "loop": LOOP, "retry": RETRY, "family": FAMILY}


class Answer(NamedTuple):
    """What a worker says of a job."""

    ok: bool
    value: Any


def answer(step: str, attempt: int, inputs: dict[str, Any]) -> Answer:
    """Say the same of the same job, whoever asks and how often."""
    if step == "lost" or (step == "shaky" and attempt < 3):
        return Answer(ok=False, value={"message": "no luck"})
    if "n" in inputs:
        return Answer(ok=True, value={"n": inputs["n"] + 1})
    return Answer(ok=True, value={"ok": True, "got": inputs})


async def register_shapes(database: Database) -> None:
    """Put all of them into the catalog, by their names."""
    for path, body in {**SHAPES, "child": CHILD}.items():
        await register(database, body, path=path)

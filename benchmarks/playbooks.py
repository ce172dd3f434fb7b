"""The playbooks of the benchmarks, and the result of their jobs."""

from __future__ import annotations

from typing import Final

STEPS: Final = 10
RESULT: Final = {"n": 7, "pad": "x" * 1000}  # more than a kilobyte
# The required keys of each job type. A worker can lease one type, so that two loads are separate.
BODIES: Final = {"python": 'code: "def main(x): return x"', "http": "url: http://127.0.0.1/"}
HEAD: Final = "apiVersion: noetl.io/v1\nkind: Playbook\nmetadata: {{name: {path}, path: {path}}}\n"


def one_step(kind: str) -> str:
    """Return a playbook of one job, `plain`."""
    return HEAD.format(path="plain") + f"workflow:\n- {{step: start, next: job}}\n- {{step: job, type: {kind}}}\n"


def chain(path: str, steps: int = STEPS, *, kind: str = "python") -> str:
    """Return a playbook of steps in a row, each with one condition and one rendered input."""
    lines = [HEAD.format(path=path), "workload: {limit: 5}\nworkflow:\n- {step: start, next: s1}\n"]
    for number in range(1, steps + 1):
        following = f"s{number + 1}" if number < steps else "end"
        lines.append(
            f"- step: s{number}\n"
            f"  type: {kind}\n"
            f"  {BODIES[kind]}\n"
            f'  args: {{x: "{{{{ workload.limit + {number} }}}}"}}\n'
            f'  next:\n  - {{when: "{{{{ result.n > workload.limit }}}}", step: {following}}}\n'
            "  - {else: [{step: end}]}\n"
        )
    lines.append(f'- {{step: end, result: {{n: "{{{{ s{steps}.n }}}}"}}}}\n')
    return "".join(lines)


def loop(path: str, visits: int) -> str:
    """Return a playbook with one step that loops `visits` times."""
    return HEAD.format(path=path) + (
        "workload: {limit: 5}\nworkflow:\n- {step: start, next: again}\n"
        "- step: again\n  type: http\n  url: http://127.0.0.1/\n"
        f'  next:\n  - {{when: "{{{{ result.n < {visits} }}}}", step: again}}\n'
        "  - {else: [{step: end}]}\n- {step: end}\n"
    )


def wide(path: str, concurrency: int, *, child: str) -> str:
    """Return a playbook with an iterator whose items are executions of another playbook."""
    return HEAD.format(path=path) + (
        "workload: {n: 100}\nworkflow:\n- {step: start, next: each}\n"
        '- step: each\n  type: iterator\n  collection: "{{ range(workload.n) | list }}"\n'
        f"  element: i\n  mode: async\n  concurrency: {concurrency}\n"
        f'  task: {{type: playbook, path: {child}, args: {{i: "{{{{ i }}}}"}}}}\n'
        "  next: end\n- {step: end, result: {done: true}}\n"
    )


def leaf(path: str) -> str:
    """Return the playbook of one item."""
    return HEAD.format(path=path) + (
        'workflow:\n- {step: start, next: end}\n- {step: end, result: {i: "{{ workload.i }}"}}\n'
    )

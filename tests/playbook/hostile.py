"""A program that reads documents, and checks values, which without limits take minutes or hours.

It prints one JSON line for each: its name, the number of findings, and their characters. The operating system ends it
if it hangs: then lines are missing.
"""

from __future__ import annotations

import json
import resource
from typing import Any

from noetl_broker.playbook import check
from noetl_broker.playbook.value_schema import faults_of
from tests.playbook.documents import HEAD, RULES

HANGING_SECONDS = 120  # of the processor, for all together; they take about ten


def many(form: str, count: int) -> str:
    """Return a text repeated, with its number in place of `#`."""
    return "".join(form.replace("#", str(number)) for number in range(count))


STEPS = "workflow:\n- {step: start, next: s0}\n"
WIDE = many("k#: #, ", 20_000)
HOSTILE = {
    "bad targets": f"workflow:\n- {{step: start, next: [{many('step_number_#, ', 12_000)}]}}\n"
    + many("- {step: stop_number_#}\n", 3_000),
    "alike targets": f"workflow:\n- {{step: start, next: [{many('ababababababababx#, ', 12_000)}]}}\n"
    + many("- {step: babababababababay#}\n", 9_000),
    "unknown keys": STEPS + "- {step: s0, type: http, " + many("timeoot#: 1, ", 15_000) + "}\n",
    "unknown names": STEPS
    + "- {step: s0, type: http, args: {"
    + many('k#: "{{ name_# }}", ', 4_000)
    + "}}\n"
    + many("- {step: nume_#}\n", 4_000),
    "all to all": STEPS + many(f"- {{step: s#, type: http, next: [{many('s#, ', 200)}]}}\n", 200),
    "conditions": f"workflow:\n- {{step: start, next: [{many('{when: x == #, step: s0}, ', 4_000)}]}}\n- step: s0\n",
    "loops": f"workflow:\n- {{step: start, next: [{many('s#, ', 4_000)}]}}\n"
    + many("- {step: s#, type: http, next: s#}\n", 4_000),
    "a join of many inputs": f"workflow:\n- {{step: start, next: [{many('s#, ', 1_500)}]}}\n"
    + many("- {step: s#, type: http, next: [{when: x == #, step: j, args: {k: 1}}, {step: j, args: {k: 2}}]}\n", 1_500)
    + "- {step: j, type: http}\n",
    "an action of many steps": f"workbook:\n- {{name: w, type: http, args: {{{WIDE}}}}}\n{STEPS}"
    + many("- {step: s#, type: workbook, task: w}\n", 8_000),
    "defaults of many targets": (
        f"workflow:\n- {{step: start, next: [{{args: {{{WIDE}}}, then: [{many('s0, ', 20_000)}]}}]}}\n"
        "- {step: s0, type: http}\n"
    ),
    "a worker's words": "workload: {"
    + many('k#: "{{ env.x# }}", ', 4_000)
    + many('l#: "{{ k# }}", ', 4_000)
    + "}\n"
    + f"workflow:\n- {{step: start, next: [{many('{when: l# > 1, step: s0}, ', 1_500)}]}}\n- step: s0\n",
    "a chain of defaults": "workload: {k: '{{ env.x }}', k0: '{{ k }}', "
    + "".join(f"k{number + 1}: '{{{{ k{number} }}}}', " for number in range(4_000))
    + "}\nworkflow: [{step: start}]\n",
    "long names above many": "workload: {" + f"{'n' * 300_000}: [" + many('"{{ a# }}", ', 9_000) + "]}\n" + STEPS,
    "doubled keys": "workload: {" + "k: 1, " * 40_000 + "}\nworkflow: [{step: start}]\n",
}
VALUES: dict[str, tuple[Any, Any]] = {
    "numbers of one hash": ({"uniqueItems": True}, [*(n * (2**61 - 1) for n in range(60_000)), 0]),
    "a long enum": ({"allOf": [{"items": {"enum": [*range(5_000)]}}] * 50}, [-1] * 5_000),
    "many schemas": ({"not": {"items": {"anyOf": [*[{"maxLength": 0}] * 1_000, True]}}}, ["x"] * 10_000),
    "large numbers": ({"items": {"multipleOf": 3}}, [10**4_000] * 200_000),
    "large items": ({"uniqueItems": True}, [["x" * 1_000_000] * 16] * 4),
}

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CPU, (HANGING_SECONDS, HANGING_SECONDS))
    for name, body in HOSTILE.items():
        lines = [str(one) for one in check(HEAD + body, file="hostile.yaml", rules=RULES)]
        print(json.dumps([name, len(lines), sum(map(len, lines))]), flush=True)
    for name, (schema, value) in VALUES.items():
        lines = [fault.message for fault in faults_of(schema, value)]
        print(json.dumps([name, len(lines), sum(map(len, lines))]), flush=True)

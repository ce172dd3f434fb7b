"""Documents that need far more work than their size are checked in seconds."""

from __future__ import annotations

import pytest

from noetl_broker.playbook import PlaybookRules, check
from tests.playbook.documents import HEAD, RULES, document_findings, findings_of
from tests.processor_time import within

# Processor time on a slow machine. Without limits each document takes minutes or hours.
MOST_SECONDS = 20.0


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


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_every_document_is_read_in_seconds(body: str) -> None:
    """Its findings are a list."""
    found = within(MOST_SECONDS, lambda: check(HEAD + body, file="hostile.yaml", rules=RULES))
    assert len(found) <= 2_002
    assert sum(len(str(one)) for one in found) < 1_000_000


def test_findings_past_a_thousand_are_counted() -> None:
    """The last line has the number of further findings. An error among them stays an error."""
    found = findings_of("workload: {" + "k: 1, " * 1_500 + "}\nworkflow: [{step: start}]\n")
    assert len(found) == 1_001
    assert found[-1] == "-2:1 error too-many-findings : … and 499 more errors (fix these, and check again)"


def test_a_thousand_warnings_hide_no_error() -> None:
    """Errors and warnings have separate limits."""
    keys = many("k#: 1, ", 1_500)
    found = findings_of(f"workflow:\n- {{step: start, next: a}}\n- {{step: a, type: http, {keys} join: 1}}\n")
    assert [one for one in found if " error " in one] == [one for one in found if "bad-value" in one or "`join`" in one]
    assert sum(" error " in one for one in found) == 1


def test_a_document_that_takes_too_much_work_is_refused() -> None:
    """The hint has the remedy."""
    source = HEAD + STEPS + many("- {step: s#}\n", 50)
    [found] = document_findings(source, PlaybookRules(most_work=100))
    assert found.startswith(
        "1:1 error too-much-work : reading the document takes more than 100 steps of work (split it"
    )


def test_the_first_findings_have_a_suggestion() -> None:
    """The number of words to compare is limited."""
    targets = many("step_numbr_#, ", 300)
    found = findings_of(f"workflow:\n- {{step: start, next: [{targets}]}}\n" + many("- {step: step_number_#}\n", 300))
    assert "(did you mean `step_number_0`?)" in found[0]
    assert "(add the step, or remove the transition)" in found[-1]

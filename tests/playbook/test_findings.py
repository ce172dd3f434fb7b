"""What is wrong in a document is found, each at its place and with a remedy; see the tables of bad_documents.py."""

from __future__ import annotations

import pytest

from noetl_broker.playbook import PlaybookRules
from noetl_broker.playbook.codes import MEANINGS
from tests.playbook.bad_documents import DOCUMENTS, STEPS, WORKFLOWS, Case, cases
from tests.playbook.documents import HEAD, RULES, document_findings, findings_of, findings_of_programs

STEP = "workflow: [{step: start, next: a}, {step: a, type: python, code: %s}]"
PROGRAMS = {
    "bad-code": STEP % "'def main('",
    "no-main": STEP % "'a = 1'",
    "missing-input": STEP % "'def main(b): return b'",
    "unused-input": STEP % "'def main(): return 1', args: {b: 1}",
    "no-else": STEP % "'def main(): return 1', next: [{when: a.b, step: end}]}, {step: end",
}
BOUNDS: dict[str, tuple[str | bytes, PlaybookRules]] = {
    "long-name": (f"{HEAD}workflow: [{{step: start, next: {'n' * 256}}}, {{step: {'n' * 256}}}]", RULES),
    "not-utf8": (b"a: \xff", RULES),
    "too-deep": ("[" * 200, RULES),
    "too-large": ("a: 1", PlaybookRules(max_document_bytes=3)),
    "too-many-findings": (HEAD + "workload: {" + "k: 1, " * 1_500 + "}\nworkflow: [{step: start}]", RULES),
    "too-many-nodes": ("[1, 2, 3]", PlaybookRules(max_nodes=3)),
    "too-many-templates": (
        HEAD + "workload: {a: '{{ 1 }}', b: '{{ 2 }}'}\nworkflow: [{step: start}]",
        PlaybookRules(max_templates=1),
    ),
    "too-much-work": (HEAD + "workflow: [{step: start}]" + "\n" * 200, PlaybookRules(most_work=10)),
}
OF_THE_CATALOG = {"unknown-playbook", "bad-bucket"}  # what `validate` says that reads it


@pytest.mark.parametrize("title", DOCUMENTS)
def test_a_whole_document_has_its_findings(title: str) -> None:
    """In document order, and no others."""
    [case] = cases(DOCUMENTS[title])
    assert document_findings(case.text) == case.findings


@pytest.mark.parametrize("title", WORKFLOWS)
def test_a_workflow_has_its_findings(title: str) -> None:
    """In document order, and no others."""
    [case] = cases(WORKFLOWS[title])
    assert findings_of(case.text) == case.findings


@pytest.mark.parametrize("kind", STEPS)
def test_a_step_has_its_findings(kind: str) -> None:
    """Without a finding it is accepted."""
    for keys, findings in steps_of(STEPS[kind]):
        assert findings_of(f"workflow: [{{step: start, next: a}}, {{step: a, {keys}}}]") == findings, keys


def steps_of(table: str) -> list[Case]:
    """Return the steps of a table: several lines before a finding are several steps."""
    found: list[Case] = []
    for text, findings in cases(table):
        *accepted, last = text.splitlines()
        found += [Case(keys, []) for keys in accepted]
        found.append(Case(last, findings))
    return found


@pytest.mark.parametrize("code", PROGRAMS)
def test_a_program_has_its_finding(code: str) -> None:
    """And choices; lint/ has all about them."""
    assert code in codes(findings_of_programs(PROGRAMS[code]))


@pytest.mark.parametrize("code", BOUNDS)
def test_a_document_past_a_bound_has_its_finding(code: str) -> None:
    """Names, bytes, levels, values, templates, and work."""
    assert code in codes(document_findings(*BOUNDS[code]))


def test_each_code_has_a_meaning_and_a_document() -> None:
    """The table that SARIF needs has the codes of the documents here, and no others."""
    tables = [case for table in (DOCUMENTS, WORKFLOWS, STEPS) for text in table.values() for case in cases(text)]
    found = codes([line for case in tables for line in case.findings])
    assert MEANINGS.keys() == found | PROGRAMS.keys() | BOUNDS.keys() | OF_THE_CATALOG


def codes(findings: list[str]) -> set[str]:
    """Return the codes of findings."""
    return {line.split()[2] for line in findings}

"""Blocks: the steps of a child playbook in the document of its parent."""

from __future__ import annotations

import pytest

from noetl_broker.errors import PlaybookFault
from noetl_broker.playbook import PlaybookRules, compile_playbook
from noetl_broker.playbook.blocks import all_blocks
from tests.playbook.documents import compiled, document_findings, findings_of

STEPS = "[{step: start, next: x}, {step: x, type: http, url: '{{ n }}'}]"
NESTED = """
workflow:
- {step: start, next: pay}
- step: pay
  type: playbook
  args: {n: 1}
  workflow:
  - {step: start, next: each}
  - step: each
    type: iterator
    collection: [1]
    element: e
    task:
      args: {n: "{{ e }}"}
      workflow:
      - {step: start, next: x}
      - {step: x, type: http, url: "{{ n }}"}
"""


def test_a_block_has_the_path_of_its_step() -> None:
    """Of a block in a block, both steps. Its steps are at their places in the document."""
    blocks = all_blocks(compiled(NESTED))
    assert [(block.path, block.name, block.steps["start"].targets.__next__().step) for block in blocks] == [
        ("examples/weather#pay", "weather#pay", "each"),
        ("examples/weather#pay#each", "weather#pay#each", "x"),
    ]
    assert blocks[1].steps["x"].fields.at == "workflow[1].workflow[1].task.workflow[1]"
    assert findings_of(NESTED) == []


def test_a_text_is_compiled_for_a_block() -> None:
    """By its path; another version of the text may have no such block."""
    text = f"apiVersion: noetl.io/v1\nkind: Playbook\nmetadata: {{path: edited}}{NESTED}"
    assert compile_playbook(text, path="edited#pay#each", rules=PlaybookRules()).path == "edited#pay#each"
    assert compile_playbook(text, path="other#pay", rules=PlaybookRules()).path == "edited#pay"
    with pytest.raises(PlaybookFault, match=r"p\.yaml has no block edited#ship"):
        compile_playbook(text, file="p.yaml", path="edited#ship", rules=PlaybookRules())


def test_a_workbook_action_has_no_block() -> None:
    """It could call itself."""
    source = f"""
    workbook: [{{name: w, type: playbook, workflow: {STEPS}}}]
    workflow: [{{step: start, next: a}}, {{step: a, type: workbook, task: w}}]
    """
    assert findings_of(source) == [
        (
            "2:38 error bad-block workbook[0].workflow: the workbook action `w` has a `workflow` "
            "(write the block on the step)"
        )
    ]


def test_the_mark_of_a_block_is_refused_in_a_path() -> None:
    """A version that is registered already runs."""
    text = "apiVersion: noetl.io/v1\nkind: Playbook\nmetadata: {path: a#b}\nworkflow: [{step: start}]\n"
    assert document_findings(text) == [
        (
            "3:18 error bad-path metadata.path: the path a#b has a #, which is the mark of a block "
            "(use letters, digits, / and _)"
        )
    ]
    beside = text.replace("metadata: {path: a#b}", "path: a#b\nmetadata: {name: x}")
    assert [finding[:28] for finding in document_findings(beside)] == ["3:7 error bad-path path: the"]
    assert compile_playbook(text, path="a#b", rules=PlaybookRules()).path == "a#b"

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


def found(keys: str) -> list[str]:
    """Return the findings of a step with these keys, without their code."""
    source = f"workflow: [{{step: start, next: a}}, {{step: a, {keys}}}]"
    return [line.partition(" ")[2].partition(" ")[2] for line in findings_of(source)]


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


@pytest.mark.parametrize(
    "keys, expected",
    [
        (f"type: playbook, args: {{n: 1}}, workflow: {STEPS}", []),
        (f"type: playbook, args: '{{{{ workload }}}}', workflow: {STEPS}", []),
        (f"type: playbook, args: {{n: 1}}, loop: {{collection: [1], element: e}}, workflow: {STEPS}", []),
        (
            f"type: playbook, path: p, version: 3, args: {{n: 1}}, workflow: {STEPS}",
            [
                "bad-block workflow[1].path: the playbook step `a` has both `workflow` and `path` (keep one of them)",
                (
                    "bad-block workflow[1].version: the playbook step `a` has both `workflow` and `version` "
                    "(remove it: a block has the version of its playbook)"
                ),
            ],
        ),
        (
            "type: playbook, workflow: {step: start}",
            [
                (
                    "wrong-type workflow[1].workflow: `workflow` of the step `a` is a mapping, not a list of steps "
                    "(write workflow: [{step: start, next: …}])"
                )
            ],
        ),
        (
            "type: playbook, workflow: [{step: x, next: y}]",
            [
                "no-start workflow[1].workflow: the workflow has no step `start` (add {step: start, next: …})",
                ("unknown-step workflow[1].workflow[0].next: there is no step `y` (known are: x)"),
            ],
        ),
        (
            f"type: playbook, workflow: {STEPS}",
            [
                (
                    "unknown-name workflow[1].workflow[1].url: the template names `n`, which is neither a step, "
                    "a workload key nor a scope word (a block sees only the inputs of its step: add it to `args`)"
                )
            ],
        ),
        (
            f"type: playbook, args: {{n: 1}}, return_step: y, workflow: {STEPS}",
            ["unknown-step workflow[1].return_step: the block has no step `y` (known are: start, x)"],
        ),
        (
            f"type: playbook, args: {{n: 1}}, concurrency: {{key: '{{{{ m }}}}', limit: 0}}, workflow: {STEPS}",
            [
                (
                    "unknown-name workflow[1].concurrency.key: the template names `m`, which is neither a step, a "
                    "workload key nor a scope word (a block sees only the inputs of its step: add it to `args`)"
                ),
                (
                    "bad-value workflow[1].concurrency.limit: `limit` is 0, not an integer from 1 to 10000 "
                    "(write an integer from 1 to 10000)"
                ),
            ],
        ),
        (
            "type: playbook, path: p, concurrency: {limit: 1}",
            [
                (
                    "unused-key workflow[1].concurrency: `concurrency` of the step `a` has no effect "
                    "(write it in the metadata of that playbook)"
                )
            ],
        ),
        (
            f"workflow: {STEPS}",
            [
                (
                    "bad-type workflow[1].workflow: the step `a` has a `workflow`, and its type is route "
                    "(write type: playbook)"
                )
            ],
        ),
        (
            "type: http, url: x, workflow: [{step: start}]",
            [
                (
                    "bad-type workflow[1].workflow: the step `a` has a `workflow`, and its type is http "
                    "(write type: playbook)"
                )
            ],
        ),
    ],
)
def test_a_wrong_block_is_refused(keys: str, expected: list[str]) -> None:
    """At its place, and at the places of its steps."""
    assert found(keys) == expected


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
    assert compile_playbook(text, path="a#b", rules=PlaybookRules()).path == "a#b"

"""Errors at the top of a document: keys, metadata, names."""

from __future__ import annotations

import pytest

from tests.playbook.documents import document_findings, findings_of


def test_names_and_paths_over_255_characters_are_refused() -> None:
    """255 characters are allowed."""
    long, longest = "n" * 256, "n" * 255
    source = f"""\
apiVersion: noetl.io/v1
kind: Playbook
metadata: {{name: {long}, path: {long}}}
workbook: [{{name: {long}, type: python, code: result = 1}}]
workflow:
- {{step: start, next: [{long}, {longest}]}}
- {{step: {long}, type: workbook, task: {long}}}
- {{step: {longest}, type: python, code: result = 1}}
"""
    remedy = "(shorten it, and write the rest in `desc`)"
    assert document_findings(source) == [
        f"3:18 error long-name metadata.name: the `name` has 256 characters; it may have 255 {remedy}",
        f"3:282 error long-name metadata.path: the `path` has 256 characters; it may have 255 {remedy}",
        (
            "4:19 error long-name workbook[0].name: the name of an action of the workbook has 256 characters; "
            f"it may have 255 {remedy}"
        ),
        f"7:10 error long-name workflow[1].step: the name of a step has 256 characters; it may have 255 {remedy}",
    ]


@pytest.mark.parametrize("written", ["array", "[string, 'null']"])
def test_a_workload_schema_that_no_workload_fits_is_refused(written: str) -> None:
    """Every start would fail."""
    [found] = findings_of(f"workload_schema: {{type: {written}}}\nworkflow: [{{step: start}}]")
    assert found.startswith("1:25 error bad-schema workload_schema.type: the workload is an object, and `type` is ")
    assert findings_of("workload_schema: {type: [object, 'null']}\nworkflow: [{step: start}]") == []

"""Errors of approvals."""

from __future__ import annotations

import pytest

from tests.playbook.documents import findings_of


def found(keys: str) -> list[str]:
    """Return the findings of an approval with these keys, without their place."""
    source = f"workflow: [{{step: start, next: a}}, {{step: a, type: approval, {keys}}}]"
    return [line.partition(": ")[2] for line in findings_of(source)]


@pytest.mark.parametrize(
    "keys, expected",
    [
        ("retry: 3", "`retry` of the approval `a` has no meaning (remove it)"),
        ("title: [x]", "`title` is a list, not a text (write a text)"),
        ("assignees: [1]", "`assignees` is not a text or a list of texts (write assignees: [finance])"),
        (
            "form: [n]",
            "`form` is a list (write a schema for each field: {discount: {type: number, maximum: 30}})",
        ),
        (
            "form: {by: {type: string}}",
            "`by` is no field of a form: the decision itself has it (choose another name)",
        ),
        ("form: {n: number}", "`form.n` is a string, not a schema (write a mapping such as {type: string})"),
        ("form: {n: {typ: number}}", "unknown keyword `typ` in a schema (did you mean `type`?)"),
        (
            "form: {n: {pattern: x}}",
            (
                "the keyword `pattern` is not supported (list the values under `enum`, or bound the text by"
                " `minLength` and `maxLength`)"
            ),
        ),
        (
            "timeout: soon",
            ("`timeout` is 'soon', not a duration (write a number of seconds, 90s, 15m, 2h30m, 3d, 2w or P3DT12H)"),
        ),
        ("detials: {}", "unknown key `detials` on the approval step `a` (did you mean `details`?)"),
    ],
)
def test_a_wrong_key_is_named(keys: str, expected: str) -> None:
    """With what to write instead."""
    assert found(keys) == [expected]


@pytest.mark.parametrize(
    "keys",
    [
        "title: x",
        "form: {n: {type: integer, required: true}, comment: {type: string, maxLength: 80}}",
        'form: {n: {maximum: "{{ execution_id }}"}}',
        'form: "{{ workload.form }}"',
        "assignees: finance, timeout: P1D",
        'timeout: "{{ workload.limit }}", details: [1, 2], on_error: continue, desc: x',
    ],
)
def test_an_approval_is_accepted(keys: str) -> None:
    """Templates are checked when it begins."""
    assert [line for line in found(keys) if "error" in line or "form" in line] == []

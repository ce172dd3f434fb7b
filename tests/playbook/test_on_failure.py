"""`metadata.on_failure`: what registration refuses."""

from __future__ import annotations

import pytest

from tests.playbook.documents import document_findings


def found(written: str) -> list[str]:
    """Return the findings of a playbook with this `on_failure`, without their positions and codes."""
    head = f"apiVersion: noetl.io/v1\nkind: Playbook\nmetadata:\n  path: p\n  on_failure: {written}\n"
    lines = document_findings(f"{head}workload: {{team: a}}\nworkflow: [{{step: start}}]\n")
    return [line.partition(" metadata.on_failure")[2] for line in lines]


NO_PATH = "not the path of a playbook, without a template or a block (write path: folder/of/the/playbook)"


@pytest.mark.parametrize(
    "written, expected",
    [
        ("{path: ops/alarm, args: {team: '{{ workload.team }}', why: '{{ error.message }}'}}", []),
        ("ops/alarm", [": `on_failure` is a string, not a mapping (write on_failure: {path: folder/of/the/playbook})"]),
        ("{args: {}}", [": `on_failure` has no `path` (write path: folder/of/the/playbook)"]),
        ("{path: 5}", [f".path: `path` is 5, {NO_PATH}"]),
        ("{path: '{{ workload.team }}'}", [f".path: `path` is '{{{{ workload.team }}}}', {NO_PATH}"]),
        ("{path: p#pay}", [f".path: `path` is 'p#pay', {NO_PATH}"]),
        ("{path: p, arg: {}}", [".arg: unknown key `arg` in `on_failure` (did you mean `args`?)"]),
        ("{path: p, args: [1]}", [".args: `args` is a list, not a mapping (write args: {name: value})"]),
        (
            "{path: p, args: {error: 1}}",
            [".args.error: `args` of `on_failure` has the key `error`, which the broker gives (rename it)"],
        ),
        (
            "{path: p, args: {a: '{{ eror }}'}}",
            [
                (
                    ".args.a: the template names `eror`, which is neither a step, a workload key nor a scope word "
                    "(did you mean `error`?)"
                )
            ],
        ),
    ],
)
def test_a_wrong_on_failure_is_refused(written: str, expected: list[str]) -> None:
    """At its place, with what to write."""
    assert found(written) == expected

"""How waits for signals, `signal` steps and `metadata.on_signal` are read."""

from __future__ import annotations

import pytest

from tests.playbook.documents import document_findings
from tests.stories import document, playbook

STEP = "workflow:\n  - {step: start, next: a}\n  - {step: a, WRITTEN}\n"


def findings(written: str, metadata: str = "") -> list[str]:
    """Return the findings about a step."""
    found = document_findings(document(STEP.replace("WRITTEN", written), metadata=metadata))
    return [line.partition(" ")[2].partition(" ")[2] for line in found if "-main" not in line]


@pytest.mark.parametrize(
    "written, expected",
    [
        ("5", "bad-value metadata.on_signal: `on_signal` is a number"),
        ("{when: x}", "bad-value metadata.on_signal: `on_signal` names no signal"),
        (
            "{signal: '{{ x }}'}",
            "bad-value metadata.on_signal.signal: `signal` is '{{ x }}', not a text of 1 to 255 characters",
        ),
        ("{signal: x, wen: y}", "unknown-key metadata.on_signal.wen: unknown key `wen` in `on_signal`"),
        ("[{signal: x}, {signal: x}]", "duplicate-key metadata.on_signal[1]: `on_signal` names the signal 'x' twice"),
        ("{signal: x, when: a b}", "bad-when metadata.on_signal.when: bad `when`:"),
        (
            "{signal: x, when: '{{ workload.a }}'}",
            "bad-when metadata.on_signal.when: `when` of `on_signal` reads `workload`",
        ),
    ],
)
def test_a_bad_declaration_is_an_error(written: str, expected: str) -> None:
    """With its place and what to write."""
    [found] = findings("type: noop", f"on_signal: {written}")
    assert found.startswith(expected)


def test_the_word_signal_is_known_where_there_is_a_signal() -> None:
    """In the condition of a wait, and in a playbook that a signal starts."""
    assert findings("type: wait, signal: x, when: '{{ signal.payload.a }}'") == []
    assert (
        findings("type: python, code: 'def main(a): return a', args: {a: '{{ signal.key }}'}", "on_signal: {signal: x}")
        == []
    )
    [unknown] = findings("type: python, code: 'def main(a): return a', args: {a: '{{ signal.key }}'}")
    assert unknown.startswith("unknown-name workflow[1].args.a: the template names `signal`")


def test_declarations_are_one_or_a_list() -> None:
    """Each with its condition."""
    read = playbook(
        STEP.replace("WRITTEN", "type: noop"), metadata="on_signal: [{signal: x}, {signal: y, when: signal.key}]"
    )
    assert [(one.signal, one.when is None) for one in read.on_signal] == [("x", True), ("y", False)]

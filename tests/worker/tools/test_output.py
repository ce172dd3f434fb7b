"""What a step prints, in the worker's log: its start, and no part of a secret, wherever the start ends."""

from __future__ import annotations

import dataclasses

import pytest
from structlog.testing import CapturingLogger

from noetl_broker.worker import execute
from noetl_broker.worker.redaction import INSTEAD, Redactor
from noetl_broker.worker.tools.interpreters import OUTPUT_BYTES, Output
from noetl_broker.worker.tools.task import Lent
from tests.worker.conftest import Perform

KEY = "Zażółć-gęślą-jaźń-hunter2-0123456789-ab"
KNOWING = Redactor({"NOETL_SECRET_X": KEY}, None)


def told(printed: bytes, redactor: Redactor = KNOWING) -> str:
    """What is told of it, however it arrives."""
    texts = []
    for portion in (len(printed) or 1, 1_000):
        output = Output(spare_bytes=redactor.longest * 4)
        for at in range(0, len(printed), portion):
            output.add(printed[at : at + portion])
        texts.append(output.told(redactor))
    assert texts[0] == texts[1]
    return texts[0]


@pytest.mark.parametrize("inside", range(1, len(KEY.encode())))
def test_a_secret_that_the_end_would_cut_is_taken_out_whole(inside: int) -> None:
    """And what comes after it counts as not told."""
    before = "x" * (OUTPUT_BYTES - inside)
    assert told(f"{before}{KEY}".encode()) == before + INSTEAD
    assert told(f"{before}{KEY}{'y' * 9_000}".encode()) == f"{before}{INSTEAD}… (9000 more bytes)"


@pytest.mark.parametrize(
    "printed, expected",
    [
        (b"", ""),
        (b"x" * OUTPUT_BYTES, "x" * OUTPUT_BYTES),
        (b"x" * (OUTPUT_BYTES + 3), "x" * OUTPUT_BYTES + "… (3 more bytes)"),
        (b"\xff\xc5", "\ufffd\ufffd"),
        (b"x" * (OUTPUT_BYTES - 1) + "żż".encode(), "x" * (OUTPUT_BYTES - 1) + "\ufffd… (3 more bytes)"),
        (b"x" * OUTPUT_BYTES + KEY.encode(), "x" * OUTPUT_BYTES + f"… ({len(KEY.encode())} more bytes)"),
        (b"x" * (OUTPUT_BYTES - 1) + b"Za", "x" * (OUTPUT_BYTES - 1) + "Z… (1 more bytes)"),
    ],
)
def test_where_no_secret_stands_across_it_the_end_is_where_it_was(printed: bytes, expected: str) -> None:
    """With bytes that are no text, and with half of a character."""
    assert told(printed) == expected


def test_a_secret_that_is_no_text_is_found() -> None:
    """An environment may hold any bytes."""
    printed = b"x" * (OUTPUT_BYTES - 5) + b"ab\xff\xfecdefgh" + b"y"
    redactor = Redactor({"NOETL_SECRET_X": "ab\udcff\udcfecdefgh"}, None)
    assert told(printed, redactor) == "x" * (OUTPUT_BYTES - 5) + f"{INSTEAD}… (1 more bytes)"


async def test_the_log_of_a_step_holds_no_part_of_a_secret(
    perform: Perform, lent: Lent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of both streams, by the worker's own way of reading them."""
    code = (
        "import sys\n"
        "def main(t):\n"
        f"    print('x' * {OUTPUT_BYTES - 38} + t)\n"
        f"    print('y' * {OUTPUT_BYTES - 3} + t + 'z' * 100_000, file=sys.stderr)\n"
    )
    using = dataclasses.replace(lent, environment={**lent.environment, "NOETL_SECRET_API_TOKEN": KEY})
    log = CapturingLogger()
    monkeypatch.setattr(execute, "log", log)
    await perform({"type": "python", "code": code, "args": {"t": "{{ secret.api_token }}"}}, using=using)
    texts = {call.kwargs["stream"]: call.kwargs["text"].lstrip("xy") for call in log.calls}
    assert texts == {"stdout": f"{INSTEAD}… (1 more bytes)", "stderr": f"{INSTEAD}… (100001 more bytes)"}

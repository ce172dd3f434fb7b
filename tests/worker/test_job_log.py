"""The log of an attempt before it is sent: bounded, in order, and without any part of a secret."""

from __future__ import annotations

import random

import pytest

from noetl_broker.store.worker.jobs import Lease
from noetl_broker.worker.job_log import HALF_BYTES, HELD_CHARACTERS, JobLog
from noetl_broker.worker.redaction import REPLACEMENT, Redactor

KEY = "Zażółć-gęślą-jaźń-hunter2-0123456789-ab"
KNOWING = Redactor({"NOETL_SECRET_X": KEY}, None)
LINES = Redactor({"NOETL_SECRET_X": "abc\ndef\nhij"}, None)

Sent = list[tuple[str, str, int]]


def log_of(redactor: Redactor = KNOWING) -> JobLog:
    """Make the log of an attempt that nobody sends."""
    return JobLog(Lease(7, 1), redactor, lambda _: None)


def sent(log: JobLog, *, final: bool = False) -> Sent:
    """Give what a call of `take` gives to send."""
    log.take(final=final)
    parts = [(part.level, part.message, part.first_byte) for part in log.unsent]
    log.unsent.clear()
    return parts


def text_of(printed: bytes, *, redactor: Redactor = KNOWING, portion: int = 0, between: int = 0) -> str:
    """Give the whole text of a printed one, written in portions; `between`: how many are between two sends."""
    log = log_of(redactor)
    output, texts = log.output("info"), []
    for number, at in enumerate(range(0, len(printed), portion or len(printed) or 1), start=1):
        output.write(printed[at : at + (portion or len(printed))])
        if between and number % between == 0:
            texts += [text for _, text, _ in sent(log)]
    output.end()
    return "".join([*texts, *(text for _, text, _ in sent(log, final=True))])


def test_lines_are_sent_as_they_were_printed() -> None:
    """In the order in which they came, with the level of their stream and their place."""
    log = log_of()
    out, err = log.output("info"), log.output("warning")
    for output, text in ((out, b"one\n"), (err, b"two\nthree\n"), (out, b"four\n")):
        output.write(text)
    assert sent(log) == [("info", "one\n", 0), ("warning", "two\nthree\n", 4), ("info", "four\n", 14)]
    assert (sent(log), log.settle()) == ([], True)


def test_a_line_without_an_end_is_sent_when_nothing_follows() -> None:
    """Or when it is long. The end of the attempt ends it."""
    log = log_of()
    output = log.output("info")
    output.write(b"one\ntwo")
    assert [sent(log), log.settle(), sent(log), log.settle()] == [
        [("info", "one\n", 0)],
        False,
        [("info", "two", 4)],
        True,
    ]
    output.write(b" and " + b"x" * HELD_CHARACTERS)
    assert sent(log) == [("info", " and " + "x" * HELD_CHARACTERS, 7)]
    assert sent(log, final=True) == [("info", "\n", 12 + HELD_CHARACTERS)]


def test_the_end_of_a_stream_ends_its_line() -> None:
    """The streams of the items of an iterator share the log of an attempt."""
    log = log_of()
    first, second = log.output("info"), log.output("info")
    first.write(b"one")
    first.end()
    assert sent(log) == [("info", "one\n", 0)]
    second.write(b"two\n")
    assert sent(log) == [("info", "two\n", 4)]


def test_nothing_is_added_after_the_end() -> None:
    """A thread of a function may print on."""
    log = log_of()
    output = log.output("info")
    output.write(b"one")
    assert sent(log, final=True) == [("info", "one\n", 0)]
    output.write(b"late")
    assert (sent(log, final=True), log.settle()) == ([], True)


def test_an_output_that_is_opened_after_the_end_adds_nothing() -> None:
    """A thread of a function may print for the first time."""
    log = log_of()
    log.take(final=True)
    log.output("info").write(b"late")
    assert sent(log, final=True) == []


@pytest.mark.parametrize(
    "printed, expected",
    [
        (b"", ""),
        (b"\xff\xc5\n", "\ufffd\ufffd\n"),
        ("ż".encode()[:1], "\ufffd\n"),
        (b"a\x00b\x1b[31m\r\n", "a\ufffdb\x1b[31m\r\n"),
        (KEY.encode(), f"{REPLACEMENT}\n"),
        (f"{KEY}{KEY}x\n".encode(), f"{REPLACEMENT}{REPLACEMENT}x\n"),
        (KEY[:10].encode(), f"{KEY[:10]}\n"),
    ],
)
def test_any_bytes_become_text(printed: bytes, expected: str) -> None:
    """In any division into parts. Only NUL and invalid bytes are replaced."""
    assert [text_of(printed, portion=portion, between=1) for portion in (0, 1, 3)] == [expected] * 3


def test_a_secret_of_arbitrary_bytes_is_found() -> None:
    """An environment may hold any bytes."""
    redactor = Redactor({"NOETL_SECRET_X": "ab\udcff\udcfecdefgh"}, None)
    assert text_of(b"x ab\xff\xfecdefgh y\n", redactor=redactor, portion=1, between=1) == f"x {REPLACEMENT} y\n"


@pytest.mark.parametrize("portion", [1, 2, 5])
def test_a_secret_of_several_lines_is_found(portion: int) -> None:
    """Its lines are too short to be secrets by themselves."""
    printed = b"<abc\ndef\nhij>\nabc\ndef\nk\n"
    expected = f"<{REPLACEMENT}>\nabc\ndef\nk\n"
    assert text_of(printed, redactor=LINES, portion=portion, between=1) == expected


def test_of_a_flood_the_first_and_the_last_part_are_kept() -> None:
    """Whole lines begin after the gap. The place of a part counts what is missing."""
    log = log_of()
    printed = b"".join(b"line %06d\n" % n for n in range(100_000))
    output = log.output("info")
    for at in range(0, len(printed), 65_536):
        output.write(printed[at : at + 65_536])
    [(_, head, first), (_, tail, place)] = sent(log, final=True)
    assert (first, head.encode()) == (0, printed[: len(head)])
    assert (tail[:5], tail.encode()) == ("line ", printed[place:])
    assert (len(head), HALF_BYTES - 200 < len(tail) <= HALF_BYTES) == (HALF_BYTES, True)


def test_a_later_flood_keeps_the_place_of_the_rest() -> None:
    """What was sent before counts."""
    log = log_of()
    output = log.output("info")
    output.write(b"first\n" + b"a" * HALF_BYTES + b"\n")
    [(_, text, _)] = sent(log)
    output.write(b"b" * 3 * HALF_BYTES + b"\nlast\n")
    [(_, more, place)] = sent(log)
    assert (len(text), more[-6:], place + len(more)) == (HALF_BYTES + 7, "\nlast\n", 4 * HALF_BYTES + 13)


@pytest.mark.parametrize("seed", range(10))
def test_no_part_of_a_secret_stays_at_a_gap(seed: int) -> None:
    """Of two streams that print secrets at any speed, without and with ends of lines."""
    draw = random.Random(seed)
    log = log_of()
    outputs, texts = [log.output("info"), log.output("warning")], []
    for _ in range(300):
        words = draw.choices([KEY, ".", "\n"], [5, 5, draw.choice([0, 1])], k=draw.randint(1, 40))
        draw.choice(outputs).write("".join(words).encode() * draw.choice([1, 1, 1, 60]))
        if draw.random() < 0.05:
            texts += sent(log)
    texts += sent(log, final=True)
    places = [place for _, _, place in texts]
    assert places == sorted(places)
    found = "".join(text for _, text, _ in texts).replace(REPLACEMENT, "")
    assert set(found) <= {".", "\n", *KEY[:2]}
    assert not any(part in found for part in (KEY[:3], KEY[-6:], KEY[5:11]))

"""The corpus of escapes and bombs: none gives anything but JSON, and none takes more than an evaluation may."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.template.escapes import CORPUS, HARMLESS, REFUSED

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 0.25
LIMIT_BYTES = 100 << 20


class Attack(NamedTuple):
    """One template of the corpus with what came of it."""

    source: str
    ended: str
    said: str
    seconds: float
    bytes: int
    steps: int

    def __str__(self) -> str:
        """Show it on one line."""
        return f"{self.source[:160]!r}: {self.ended}, {self.said[:200]!r}, {self.seconds:.3f} s, {self.bytes >> 20} MiB"


def attacks(sources: list[str]) -> Iterator[Attack]:
    """Give what came of each template, evaluated in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
    finished = subprocess.run(
        [sys.executable, "-m", "tests.template.measuring"],
        input=json.dumps(sources),
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    answers: list[dict[str, Any]] = [json.loads(line) for line in finished.stdout.splitlines()]
    for source, answer in zip(sources, answers, strict=True):
        yield Attack(source, **answer)


@pytest.mark.parametrize("group", CORPUS)
def test_no_attack_gives_an_object_or_takes_more_than_it_may(group: str) -> None:
    """A quarter of a second and a hundred megabytes, and nothing that it was given is changed."""
    found = list(attacks(CORPUS[group]))
    allowed = {"value"} if group in HARMLESS else {"refused", "error"}
    assert [str(one) for one in found if one.ended not in allowed] == []
    assert [str(one) for one in found if one.seconds > LIMIT_SECONDS or one.bytes > LIMIT_BYTES] == []


def test_the_corpus_is_large_and_says_nothing_twice() -> None:
    """A hundred was asked for."""
    sources = [source for group in CORPUS.values() for source in group]
    assert len(sources) == len(set(sources))
    assert sum(map(len, REFUSED.values())) > 400

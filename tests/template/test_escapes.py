"""No template of the corpus gives anything but JSON or exceeds the limits of an evaluation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from noetl_broker.template.filters import FILTERS
from tests.template.escapes import CALLS, CORPUS, HARMLESS, REFUSED, WIDE
from tests.template.wild import FILTERED, USED

ROOT = Path(__file__).parents[2]
MUCH_BYTES = 100 << 20


class Attack(NamedTuple):
    """One template of the corpus and its measured outcome."""

    source: str
    ended: str
    detail: str
    bytes: int

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.source[:160]!r}: {self.ended}, {self.detail[:200]!r}, {self.bytes >> 20} MiB"


@pytest.fixture(scope="module")
def attacks() -> dict[str, Attack]:
    """Evaluate each template of the corpus in a process of its own; gives the outcomes by template."""
    sources = [source for group in CORPUS.values() for source in group]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
    finished = subprocess.run(
        [sys.executable, "-m", "tests.template.measuring"],
        input=json.dumps(sources),
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    answers: list[dict[str, Any]] = [json.loads(line) for line in finished.stdout.splitlines()]
    return {source: Attack(source, **answer) for source, answer in zip(sources, answers, strict=True)}


@pytest.mark.parametrize("group", CORPUS)
def test_no_attack_reaches_an_object_or_exceeds_the_limits(attacks: dict[str, Attack], group: str) -> None:
    """It neither hangs nor takes 100 MB. The given values do not change."""
    found = [attacks[source] for source in CORPUS[group]]
    allowed = {"value"} if group in HARMLESS else {"refused", "error"} | ({"value"} if group in WIDE else set())
    assert [str(one) for one in found if one.ended not in allowed] == []
    assert [str(one) for one in found if one.bytes > MUCH_BYTES] == []


def test_the_corpus_of_attacks_is_large_and_has_no_duplicates() -> None:
    """It has over 400 refused templates."""
    sources = [source for group in CORPUS.values() for source in group]
    assert len(sources) == len(set(sources))
    assert sum(map(len, REFUSED.values())) > 400


def test_the_corpora_have_each_filter() -> None:
    """With combining marks, long runs, deep and wide values; and among the random templates."""
    assert FILTERS.keys() == CALLS.keys()
    assert FILTERS.keys() <= USED | {*FILTERED["any", "any"]}

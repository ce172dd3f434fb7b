"""docs/contributing.md names files, targets and words that are there."""

from __future__ import annotations

import re

from tests.test_tidy import ROOT

PAGE = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
# Where the page says that a word stands.
WORDS = {
    "REACTIONS": "src/noetl_broker/broker/dispatcher.py",
    "def refusal": "src/noetl_broker/broker/dispatcher.py",
    "class Decision": "src/noetl_broker/broker/model.py",
    "class ExecutionState": "src/noetl_broker/broker/state.py",
    "OWN_KEYS": "src/noetl_broker/playbook/vocabulary.py",
    "TOOLS": "src/noetl_broker/worker/execute.py",
    "class ToolFault": "src/noetl_broker/worker/faults.py",
    "class Task": "src/noetl_broker/worker/tools/task.py",
    "SERVED_VERSIONS": "src/noetl_broker/store/migrate.py",
    "serves-from": "src/noetl_broker/store/migrate.py",
    "def assert_story": "tests/stories.py",
    "missing_rights": "src/noetl_broker/store/sql/migrate.sql",
}


def test_the_files_of_the_page_are_there() -> None:
    """And so are its folders."""
    named = set(re.findall(r"`((?:src|tests|migrations|deploy)/[\w/.]+)`", PAGE)) - {"migrations/NNNN_what.sql"}
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
    assert set(WORDS.values()) - named == set()


def test_its_words_stand_where_it_says() -> None:
    """A file that was divided takes them along."""
    gone = {word: file for word, file in WORDS.items() if word not in (ROOT / file).read_text(encoding="utf-8")}
    assert gone == {}


def test_its_targets_are_those_of_the_makefile() -> None:
    """Each `make …` can be made."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)", PAGE)) - targets == set()

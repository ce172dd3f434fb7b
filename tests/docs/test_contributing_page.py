"""CONTRIBUTING.md names files, words and targets that exist."""

from __future__ import annotations

import re

from tests.test_tidy import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PATH = re.compile(r"`((?:src|tests|migrations|deploy)/[\w/.]+)`")
# A word of the page, and the file in which the page says that it is.
WORDS = {
    "REACTIONS": "src/noetl_broker/broker/dispatcher.py",
    "RECORDED": "src/noetl_broker/broker/event_types.py",
    "STATUS_TABLE": "src/noetl_broker/broker/dispatcher.py",
    "VISIT_TABLE": "src/noetl_broker/broker/dispatcher.py",
    "KINDS": "src/noetl_broker/broker/steps.py",
    "lock_executions": "migrations/0007_claim.sql",
    "EVENT_TYPES": "src/noetl_broker/broker/event_types.py",
    "class Decision": "src/noetl_broker/broker/model.py",
    "class ExecutionState": "src/noetl_broker/broker/state.py",
    "noetl.is_mail": "migrations/0002_shared_functions.sql",
    "TRAITS": "src/noetl_broker/playbook/kinds.py",
    "SINCE": "src/noetl_broker/playbook/keywords.py",
    "StepKind": "src/noetl_broker/playbook/kinds.py",
    "READERS": "src/noetl_broker/playbook/steps.py",
    "OUTLINES": "src/noetl_broker/diagram/shapes.py",
    "BRACKETS": "src/noetl_broker/diagram/mermaid.py",
    "WAITING": "src/noetl_broker/broker/open_visits.py",
    "OBSERVED": "src/noetl_broker/daemon/metrics/database.py",
    "observe": "src/noetl_broker/store/sql/daemon/metrics.sql",
    "OWN_KEYS": "src/noetl_broker/playbook/keywords.py",
    "TOOLS": "src/noetl_broker/worker/tools/__init__.py",
    "class ToolFault": "src/noetl_broker/worker/errors.py",
    "class Task": "src/noetl_broker/worker/tools/task.py",
    "COMMANDS": "src/noetl_broker/cli/main.py",
    "METRICS": "src/noetl_broker/daemon/metrics/registry.py",
    "OWN_FILTERS": "src/noetl_broker/template/filters.py",
    "FROM_JINJA": "src/noetl_broker/template/filters.py",
    "COSTS": "src/noetl_broker/template/filter_costs.py",
    "SERVED_VERSIONS": "src/noetl_broker/store/migrations.py",
    "serves-from": "src/noetl_broker/store/migrations.py",
    "def assert_story": "tests/stories.py",
    "missing_rights": "src/noetl_broker/store/sql/admin/migrate.sql",
}


def test_each_named_file_exists() -> None:
    """Folders, too."""
    named = set(PATH.findall(PAGE)) - {"migrations/NNNN_what.sql"}
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
    assert set(WORDS.values()) - named == set()


def test_each_word_is_in_its_file() -> None:
    """A word that moves to another file moves on the page."""
    missing = {word: file for word, file in WORDS.items() if word not in (ROOT / file).read_text(encoding="utf-8")}
    assert missing == {}


def test_each_make_target_exists() -> None:
    """In the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", PAGE)) - targets == set()

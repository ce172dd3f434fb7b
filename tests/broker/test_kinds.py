"""Each kind of step has a row in each table of kinds."""

from __future__ import annotations

from collections.abc import Collection
from typing import get_args

from noetl_broker.broker.arrivals.steps import KINDS, Kind
from noetl_broker.broker.dispatcher import BY_VISIT
from noetl_broker.broker.state.state import Counts, Token
from noetl_broker.broker.undo.open_visits import WAITING
from noetl_broker.diagram.build import WAITS
from noetl_broker.diagram.mermaid import BRACKETS
from noetl_broker.diagram.shapes import OUTLINES
from noetl_broker.playbook.keywords import BROKER_TYPES
from noetl_broker.playbook.kinds import TRAITS, StepKind, WaitsFor
from noetl_broker.playbook.step_types import OWN_KEYS
from noetl_broker.playbook.steps import READERS

STEP_KINDS = set(get_args(StepKind))
NEVER = Kind._field_defaults["begin"]
TOKENS = (
    Token("s", 1),
    Token("s", 1, failures=1),
    Token("s", 1, failures=1, failed_attempt=1),
    Token("s", 1, items=Counts(2, 1)),
    Token("s", 1, items=Counts(2, 1), answered=True),
)


def test_each_kind_has_a_row_in_each_table() -> None:
    """A new kind lacks its row here before somebody runs, draws or explains it."""
    tables: dict[str, Collection[StepKind]] = {
        "KINDS": KINDS,
        "TRAITS": TRAITS,
        "BRACKETS": BRACKETS,
        "OUTLINES": OUTLINES,
    }
    assert {name: set(table) ^ STEP_KINDS for name, table in tables.items() if set(table) != STEP_KINDS} == {}


def test_each_kind_that_waits_for_an_event_has_a_style_while_it_waits() -> None:
    """A diagram shows what such a step waits for; others have a job, whose status it shows."""
    assert set(WAITS) == {kind for kind, traits in TRAITS.items() if traits.waits_for == "event"}


def test_each_type_that_the_broker_runs_has_keys_of_its_own() -> None:
    """Those that are read into a field of the step have a reader; an iterator has none."""
    assert set(OWN_KEYS) >= BROKER_TYPES
    assert set(READERS) == {name for name in BROKER_TYPES if OWN_KEYS[name]}


def test_what_open_visits_wait_for_is_a_column_of_the_visit_table() -> None:
    """And each column is what some visit waits for."""
    assert set(WAITING) == set(get_args(WaitsFor))
    columns = {waiting.column(token) for waiting in WAITING.values() for token in TOKENS}
    assert columns == {column for row in BY_VISIT.values() for column in row}


def test_a_kind_has_a_rule_for_each_end_of_what_it_waits_for() -> None:
    """No rule of a kind is missing, and none is never used."""
    needed: dict[str, set[str]] = {
        "nothing": set(),
        "worker": {"complete", "fail", "end_item", "gather"},
        "child": {"complete", "fail", "resume"},
        "items": {"fail", "end_item", "gather", "resume"},
        "event": {"complete", "fail"},
    }
    for kind, traits in TRAITS.items():
        rules = {name for name, rule in KINDS[kind]._asdict().items() if rule is not NEVER}
        begins = {"enter", "begin"} if traits.has_action else {"enter"}
        assert rules == begins | needed[traits.waits_for], kind

"""Each kind of effect is written, and by a statement that is run."""

from __future__ import annotations

from typing import get_args

from noetl_broker.broker.model.effects import Effect
from noetl_broker.store.queries import sql
from noetl_broker.store.turn.effects import AFTER, BEFORE, EFFECTS

OF_OTHERS = {"write_turns", "write_first_turns", "adopt_children", "write_slots", "write_posts"}  # write.py


def test_each_kind_of_effect_is_written() -> None:
    """By a statement of the store, which a batch runs."""
    run = {statement.name for statement in (*BEFORE, *AFTER)} | OF_OTHERS
    assert {*EFFECTS} == {*get_args(Effect)}
    assert {written.statement for written in EFFECTS.values()} - run == set()
    assert [name for name in run if not sql(name)] == []

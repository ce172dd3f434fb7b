"""The tests' own objects stay out of garbage collections, so that a collection is cheap."""

from __future__ import annotations

import gc

from tests.cli.conftest import Command


def test_after_a_run_in_this_process_the_objects_of_the_tests_are_frozen(lone_command: Command) -> None:
    """The end of `run` unfreezes everything."""
    lone_command.environment["NOETL_BROKER_DSN"] = "postgresql://postgres@127.0.0.1:1/nothing"
    assert lone_command("run", "--drain", "--fail-fast").exit_code == 69
    assert gc.get_freeze_count() > len(gc.get_objects())

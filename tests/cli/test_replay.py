"""`replay` as an operator uses it: many at once, one as a story, where it stood, as a test that pastes."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_broker.broker.model import Rules
from tests.cli.conftest import Command, rows
from tests.histories import run_eventful
from tests.postgres import Database
from tests.stories import assert_story


@pytest.fixture
async def eventful(database: Database) -> int:
    """Run an execution with a loop, a retry, a child and items; give its id."""
    return await run_eventful(database)


def test_a_story_pastes_into_a_test(command: Command, database: Database, eventful: int) -> None:
    """The printed test, run as it is, gives the story to the letter: of the parent and of each of its children."""
    ids = [row[0] for row in rows(database, "select execution_id from noetl.execution order by 1")]
    printed = command("replay", *ids, "--story")
    assert (printed.exit_code, printed.stderr) == (0, "")
    namespace: dict[str, Any] = {"assert_story": assert_story, "Rules": Rules}
    exec(printed.stdout, namespace)  # noqa: S102 - what a person would paste
    tests = {name: made for name, made in namespace.items() if name.startswith("test_")}
    assert [*tests] == [f"test_execution_{one}_of_{'story' if one == eventful else 'child'}" for one in ids]
    for test in tests.values():
        test()
    for expected in ("child call child", "words[2]", "count#2", "attempt 1  (duplicate)", "\\luck", "; depth 1"):
        assert expected in printed.stdout

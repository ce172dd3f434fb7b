"""The pytest plugin: a fixture that simulates the playbooks of a folder, and their stories where a test fails.

pytest loads it by itself where noetl-broker is installed. `noetl_playbooks` in pytest's settings names the folder
(`playbooks` unless it is set), below the folder of these settings; `noetl_step_types` further step types.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

from noetl_broker.playbook import Rules as PlaybookRules
from noetl_broker.simulation import SimulationFault, Story, simulate
from noetl_broker.simulation.play import compiled

STORIES = pytest.StashKey[list[Story]]()


class Playbooks:
    """The playbooks of a folder, by their paths (`metadata.path`) or the names of their files."""

    def __init__(self, folder: Path, step_types: frozenset[str], told: list[Story]) -> None:
        """Files are read when they are needed; `told` gets the story of each simulation."""
        self.folder = folder
        self._step_types = step_types
        self._told = told

    def simulate(
        self, playbook: str, answers: Mapping[str, Any] | None = None, *, payload: Mapping[str, Any] | None = None
    ) -> Story:
        """Play an execution as `noetl_broker.simulate` does; the playbooks that it calls are those of the folder."""
        files = self._files()
        by_path = {compiled(file, PlaybookRules(extra_step_types=self._step_types)).path: file for file in files}
        source = by_path.get(playbook) or next((file for file in files if playbook in {file.name, file.stem}), None)
        if source is None:
            there = ", ".join(sorted(by_path)) or "no playbook at all"
            raise SimulationFault(f"the folder {self.folder} has no playbook {playbook!r}; it has {there}")
        story = simulate(source, answers, payload=payload, playbooks=files, extra_step_types=self._step_types)
        self._told.append(story)
        return story

    def _files(self) -> list[Path]:
        if not self.folder.is_dir():
            raise SimulationFault(
                f"there is no folder {self.folder}; name that of your playbooks in pytest's settings: noetl_playbooks"
            )
        return sorted(file for ending in ("*.yaml", "*.yml") for file in self.folder.rglob(ending))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Tell pytest of the settings."""
    parser.addini(
        "noetl_playbooks", "folder of the playbooks that the fixture `playbooks` simulates", default="playbooks"
    )
    parser.addini("noetl_step_types", "further names that the type of a step may have", type="args", default=[])


@pytest.fixture
def playbooks(request: pytest.FixtureRequest) -> Playbooks:
    """The playbooks of the folder `noetl_playbooks`: `playbooks.simulate("path", answers={…}, payload={…})`."""
    told: list[Story] = request.node.stash.setdefault(STORIES, [])
    folder = request.config.rootpath / str(request.config.getini("noetl_playbooks"))
    return Playbooks(folder, frozenset(request.config.getini("noetl_step_types")), told)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the stories of a test that failed."""
    report = yield
    if report.when == "call" and report.failed:
        for story in item.stash.get(STORIES, []):
            report.sections.append((f"story of {story.path}: {story.status}", story.text))
    return report

"""The pytest plugin: a fixture that simulates the playbooks of a folder; a failing test shows their stories.

pytest loads it in every project, so it imports nothing before a test uses the fixture. Settings of pytest:
`noetl_playbooks` is the folder, relative to the settings (default `playbooks`); `noetl_step_types` are more step types.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

import noetl_broker

PLAYBOOKS = pytest.StashKey["noetl_broker.Playbooks"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the settings."""
    folder = "folder of the playbooks that the fixture `playbooks` simulates"
    parser.addini("noetl_playbooks", folder, default="playbooks")
    parser.addini("noetl_step_types", "more names that are allowed as the type of a step", type="args", default=[])


@pytest.fixture
def playbooks(request: pytest.FixtureRequest) -> noetl_broker.Playbooks:
    """The playbooks in `noetl_playbooks`: `playbooks.simulate("path", answers={…}, payload={…})`."""
    folder = request.config.rootpath / str(request.config.getini("noetl_playbooks"))
    step_types = request.config.getini("noetl_step_types")
    found = noetl_broker.Playbooks(folder, extra_step_types=step_types)
    request.node.stash[PLAYBOOKS] = found
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the stories to the report of a failed test."""
    report = yield
    if report.when == "call" and report.failed and PLAYBOOKS in item.stash:
        for story in item.stash[PLAYBOOKS].stories:
            report.sections.append((f"story of {story.path}: {story.status}", story.text))
    return report

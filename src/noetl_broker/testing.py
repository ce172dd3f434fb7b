"""The pytest plugin: a fixture that simulates the playbooks of a folder, and their stories where a test fails.

pytest loads it by itself where noetl-broker is installed, so it loads nothing before a test asks for the fixture.
`noetl_playbooks` in pytest's settings names the folder (`playbooks` unless it is set), below the folder of these
settings; `noetl_step_types` further step types.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

import noetl_broker

PLAYBOOKS = pytest.StashKey["noetl_broker.Playbooks"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Tell pytest of the settings."""
    folder = "folder of the playbooks that the fixture `playbooks` simulates"
    parser.addini("noetl_playbooks", folder, default="playbooks")
    parser.addini("noetl_step_types", "further names that the type of a step may have", type="args", default=[])


@pytest.fixture
def playbooks(request: pytest.FixtureRequest) -> noetl_broker.Playbooks:
    """The playbooks of the folder `noetl_playbooks`: `playbooks.simulate("path", answers={…}, payload={…})`."""
    folder = request.config.rootpath / str(request.config.getini("noetl_playbooks"))
    step_types = request.config.getini("noetl_step_types")
    found = noetl_broker.Playbooks(folder, extra_step_types=step_types)
    request.node.stash[PLAYBOOKS] = found
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the stories of a test that failed."""
    report = yield
    if report.when == "call" and report.failed and PLAYBOOKS in item.stash:
        for story in item.stash[PLAYBOOKS].stories:
            report.sections.append((f"story of {story.path}: {story.status}", story.text))
    return report

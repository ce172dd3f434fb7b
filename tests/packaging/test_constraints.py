"""constraints.txt pins each library of the program and its extras to a version that they allow."""

from __future__ import annotations

import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.test_tidy import ROOT


def test_each_requirement_is_pinned_to_a_version_that_it_allows() -> None:
    """Those of the program and of `dev`, with which the tests run. `bench` and `release` are tools of `make`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {
        name: texts for name, texts in project["optional-dependencies"].items() if name not in {"bench", "release"}
    }
    wanted = [Requirement(text) for texts in (project["dependencies"], *extras.values()) for text in texts]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    pinned = {canonicalize_name(name): version for name, version in pins.items()}
    faults = [
        str(requirement)
        for requirement in wanted
        if (name := canonicalize_name(requirement.name)) != "noetl-broker"
        and (name not in pinned or not requirement.specifier.contains(pinned[name]))
    ]
    assert faults == []

"""The playbooks of a folder, simulated by their paths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from noetl_broker.playbook import Rules
from noetl_broker.simulation.answers import SimulationFault
from noetl_broker.simulation.play import compiled, simulate
from noetl_broker.simulation.told import Story


class Playbooks:
    """The playbooks of a folder and the folders in it, by their paths (`metadata.path`) or the names of their files.

    `stories` are those of all simulations so far.
    """

    def __init__(self, folder: Path, *, extra_step_types: Iterable[str] = ()) -> None:
        """Files are read when they are needed."""
        self.folder = folder
        self.stories: list[Story] = []
        self._step_types = frozenset(extra_step_types)

    def simulate(
        self, playbook: str, answers: Mapping[str, Any] | None = None, *, payload: Mapping[str, Any] | None = None
    ) -> Story:
        """Play an execution as `noetl_broker.simulate` does; the playbooks that it calls are those of the folder."""
        rules = Rules(extra_step_types=self._step_types)
        by_file = {file: compiled(file, rules) for file in self._files()}
        names = {name: found for file, found in by_file.items() for name in (file.stem, file.name)}
        names |= {found.path: found for found in by_file.values()}
        if playbook not in names:
            there = ", ".join(sorted(found.path for found in by_file.values())) or "no playbook at all"
            raise SimulationFault(f"the folder {self.folder} has no playbook {playbook!r}; it has {there}")
        story = simulate(names[playbook], answers, payload=payload, playbooks=by_file.values())
        self.stories.append(story)
        return story

    def _files(self) -> list[Path]:
        if not self.folder.is_dir():
            raise SimulationFault(
                f"there is no folder {self.folder}; name that of your playbooks in pytest's settings: noetl_playbooks"
            )
        return sorted(file for ending in ("*.yaml", "*.yml") for file in self.folder.rglob(ending))

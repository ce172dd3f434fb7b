"""Simulates the playbooks of a folder by their paths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from noetl_broker.playbook import PlaybookRules
from noetl_broker.testing.answers import SimulationFault
from noetl_broker.testing.result import Story
from noetl_broker.testing.simulate import compiled, simulate


class Playbooks:
    """The playbooks in a folder and its subfolders, by `metadata.path` or file name.

    `stories` are the stories of all simulations so far.
    """

    def __init__(self, folder: Path, *, extra_step_types: Iterable[str] = ()) -> None:
        """Files are read when they are needed."""
        self.folder = folder
        self.stories: list[Story] = []
        self._step_types = frozenset(extra_step_types)

    def simulate(
        self,
        playbook: str,
        answers: Mapping[str, Any] | None = None,
        *,
        payload: Mapping[str, Any] | None = None,
        extra_step_types: Iterable[str] = (),
        approvals: Mapping[str, Any] | None = None,
        signals: Sequence[Mapping[str, Any]] = (),
        pauses: Sequence[Mapping[str, Any]] = (),
    ) -> Story:
        """Simulate an execution like `noetl_broker.simulate`; it can call every playbook of the folder.

        `extra_step_types` count beside those of the folder.
        """
        rules = PlaybookRules(extra_step_types=self._step_types.union(extra_step_types))
        by_file = {file: compiled(file, rules) for file in self._files()}
        names = {name: found for file, found in by_file.items() for name in (file.stem, file.name)}
        names |= {found.path: found for found in by_file.values()}
        if playbook not in names:
            known = ", ".join(sorted(found.path for found in by_file.values())) or "no playbook"
            raise SimulationFault(f"the folder {self.folder} has no playbook {playbook!r}; it has {known}")
        family = by_file.values()
        story = simulate(
            names[playbook],
            answers,
            payload=payload,
            playbooks=family,
            approvals=approvals,
            signals=signals,
            pauses=pauses,
        )
        self.stories.append(story)
        return story

    def _files(self) -> list[Path]:
        if not self.folder.is_dir():
            raise SimulationFault(
                f"there is no folder {self.folder}; set noetl_playbooks in pytest's settings to your playbooks' folder"
            )
        return sorted(file for ending in ("*.yaml", "*.yml") for file in self.folder.rglob(ending))

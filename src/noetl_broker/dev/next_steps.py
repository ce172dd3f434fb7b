"""The next steps that `dev` suggests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from noetl_broker.dev.places import program, shown_path
from noetl_broker.dev_folder import DevFolder
from noetl_broker.playbook import Playbook

FIRST_PLAYBOOK: Final = """\
apiVersion: noetl.io/v1
kind: Playbook
metadata: {path: examples/hello}
workflow: [{step: start, type: python, code: "def main(): return 'Hello'"}]
"""
SHOWN_STEPS: Final = 5  # short, and with something to see


def first_playbook(folder: Path) -> str:
    """Give a playbook to begin with, for a folder that has none."""
    file = shown_path(folder / "hello.yaml")
    return f"There is no playbook yet. Save these lines as {file}:\n\n{FIRST_PLAYBOOK}"


def next_steps(playbooks: Sequence[Playbook], place: DevFolder) -> str:
    """Give three commands for another terminal; they find the database from the current folder."""
    path = suggested(playbooks).path
    inside = place.parent in (Path.cwd(), *Path.cwd().parents)
    where = "in this folder" if inside else f"in {place.parent}"
    name = program()
    return (
        f"In another terminal, {where}:\n"
        f"  {name} start {path} --wait\n"
        f"  {name} executions\n"
        f"  {name} explain ID   why each step ran or not\n"
    )


def suggested(playbooks: Sequence[Playbook]) -> Playbook:
    """Give the playbook that is best for a first try: few steps, a job, no payload, nobody who must help."""
    return min(playbooks, key=_effort)


def _effort(playbook: Playbook) -> tuple[bool, bool, bool, int, str]:
    waits = {step.waits_for for step in playbook.steps.values() if step.has_action}
    schema = playbook.document.get("workload_schema") or {}
    return (
        bool(isinstance(schema, dict) and schema.get("required")),
        not waits <= {"worker"},  # a first execution should end by itself
        "worker" not in waits,
        abs(len(playbook.steps) - SHOWN_STEPS),
        playbook.path,
    )

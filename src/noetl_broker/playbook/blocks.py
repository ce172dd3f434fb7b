"""Blocks: the steps of a child playbook in the document of its parent.

A block is registered beside its playbook, as `path#step` of the same version. It has the location of its
step in the document, so findings and errors name the lines of the file.
"""

from __future__ import annotations

from typing import Final

from noetl_broker.playbook.model import Playbook

MARK: Final = "#"  # between the path of a playbook and the step that has the block
KEY: Final = "workflow"


def block_path(path: str, step: str) -> str:
    """The path of the block of a step."""
    return f"{path}{MARK}{step}"


def part_of(playbook: Playbook, path: str | None) -> Playbook | None:
    """The playbook itself, or its block of this path; None if it has no such block.

    An edited text may have another path. So only the part of `path` behind the playbook's path counts.
    """
    part: Playbook | None = playbook
    for step in _steps_to(playbook.path, path or ""):
        part = part.blocks.get(step) if part is not None else None
    return part


def _steps_to(own: str, path: str) -> list[str]:
    outer = own if path.startswith(own + MARK) or path == own else path.partition(MARK)[0]
    return path.removeprefix(outer).split(MARK)[1:]


def is_block(path: str) -> bool:
    """Whether a path names a block."""
    return MARK in path


def dotted(path: str, step: str) -> str:
    """A step as people name it from outside: `pay.charge` is the step `charge` in the block of `pay`."""
    return ".".join((*path.split(MARK)[1:], step))


def all_blocks(playbook: Playbook) -> list[Playbook]:
    """The blocks of a playbook and their blocks, in document order."""
    found: list[Playbook] = []
    for block in playbook.blocks.values():
        found += [block, *all_blocks(block)]
    return found

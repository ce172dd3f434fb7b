"""The watcher of `dev` finds YAML files, and notices each change once it is complete."""

from __future__ import annotations

from pathlib import Path

from noetl_broker.cli.dev.watch import FileChanges, Watcher, scan


def test_a_change_counts_when_two_polls_agree(tmp_path: Path) -> None:
    """An editor may empty a file before it writes it. The first poll counts at once."""
    file, watcher = tmp_path / "a.yaml", Watcher()
    file.write_text("one")
    answers = [watcher.compare(scan(tmp_path))]
    for text in ("", "two words", None):
        if text is not None:
            file.write_text(text)
        answers.append(watcher.compare(scan(tmp_path)))
    assert answers == [FileChanges([file], []), FileChanges([], []), FileChanges([], []), FileChanges([file], [])]


def test_a_renamed_file_is_gone_and_new_in_one_answer(tmp_path: Path) -> None:
    """So its path can move to the new file."""
    file, watcher = tmp_path / "a.yaml", Watcher()
    file.touch()
    watcher.compare(scan(tmp_path))
    file.rename(tmp_path / "b.yaml")
    answers = [watcher.compare(scan(tmp_path)) for _ in range(2)]
    assert answers == [FileChanges([], []), FileChanges([tmp_path / "b.yaml"], [file])]

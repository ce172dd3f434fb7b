"""The SVG form: read back as XML, box by box and arc by arc."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from noetl_broker.drawing.compose import picture_of_playbook
from noetl_broker.drawing.svg import as_svg
from noetl_broker.playbook import Rules, compile_playbook
from noetl_broker.resources import playbooks_folder
from tests.courses import picture_of_story
from tests.drawing.drawn import Drawing
from tests.drawing.hostile import CONDITION, NAMES, hostile_playbook
from tests.stories import playbook

FORTY = Path(__file__).with_name("forty_steps.yaml")
FILES = [*sorted(playbooks_folder().glob("*.yaml")), FORTY]


def drawn(file: Path) -> Drawing:
    """The picture of a playbook, read back."""
    return Drawing(as_svg(picture_of_playbook(compile_playbook(file.read_bytes(), file=file.name, rules=Rules()))))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_two_boxes_overlap(file: Path) -> None:
    """Each step has a place of its own."""
    boxes = drawn(file).boxes
    assert [pair for pair in combinations(boxes, 2) if boxes[pair[0]].meets(boxes[pair[1]])] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_labels_stand_beside_boxes_and_each_other(file: Path) -> None:
    """A condition covers no step, and no other condition."""
    drawing = drawn(file)
    labels = [arc.label for arc in drawing.arcs if arc.label is not None]
    others = [*drawing.boxes.values(), *labels]
    assert [label for label in labels for other in others if other is not label and label.meets(other)] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_arc_runs_from_its_source_to_its_target(file: Path) -> None:
    """Its line begins at the edge of one box, and its head points at the edge of the other."""
    drawing = drawn(file)
    playbook_ = compile_playbook(file.read_bytes(), rules=Rules())
    assert sorted((arc.source, arc.target) for arc in drawing.arcs) == sorted(
        (arc.source, arc.target) for arc in playbook_.arcs
    )
    assert [
        arc
        for arc in drawing.arcs
        if not drawing.boxes[arc.source].has_on_edge(arc.begins)
        or not drawing.boxes[arc.target].has_on_edge(arc.points_at)
    ] == []


def test_conditions_stand_in_their_order() -> None:
    """Those of which the first that holds counts are read from left to right."""
    arcs = drawn(playbooks_folder() / "diamond.yaml").arcs
    labels = sorted((arc.label.left, arc.texts[0]) for arc in arcs if arc.label is not None and arc.texts[0] != "else")
    assert [text[:2] for _, text in labels] == ["1:", "2:", "3:"]


def test_forty_steps_fit_a_screen_wide_and_a_few_high() -> None:
    """What is readable is neither scaled down nor spread out."""
    root = drawn(FORTY).root
    assert len(drawn(FORTY).boxes) == 40
    assert float(root.get("width", "0")) < 1900
    assert float(root.get("height", "0")) < 2600


def test_hostile_names_are_text_and_nothing_else() -> None:
    """Names, descriptions and conditions with every sign that means something in XML come back as they were."""
    drawing = Drawing(as_svg(picture_of_playbook(hostile_playbook())))
    assert {*NAMES, CONDITION} <= drawing.words
    assert {*NAMES} <= drawing.boxes.keys()
    elements = {element.tag.rpartition("}")[2] for element in drawing.root.iter()}
    assert elements == {"svg", "title", "desc", "style", "rect", "g", "path", "text"}


def test_what_xml_cannot_hold_stands_there_as_an_escape() -> None:
    """A control character in an error of a worker, half a character in a name."""
    body = """
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x}
    """
    story = """
        > execution_start
        > action_failed a {"message": "red \\u001b[31m \\ud800 alert\\n\\u0000 <b>"}
    """
    assert r"red \x1b[31m \ud800 alert \x00 <b>" in Drawing(as_svg(picture_of_story(body, story))).words


def test_it_needs_nothing_beside_itself() -> None:
    """No script, no font, no picture, no link: it may be mailed, or shown where nothing is loaded."""
    text = as_svg(picture_of_playbook(playbook("workflow:\n- {step: start, next: end}\n- {step: end}\n")))
    assert [word for word in ("<script", "href", "@import", "@font-face", "url(", "<image") if word in text] == []
    assert text.count("http") == text.count("http://www.w3.org/2000/svg") == 1


def test_it_says_what_it_is_to_who_cannot_see_it() -> None:
    """A role, a name, a description; each box and each arc has a caption."""
    drawing = drawn(playbooks_folder() / "conditional.yaml")
    root = drawing.root
    assert (root.get("role"), root.get("aria-label")) == ("img", "examples/conditional")
    assert root.findtext("{http://www.w3.org/2000/svg}desc") == "examples/conditional: 5 steps, 5 transitions."
    assert set(drawing.boxes) == {"start", "measure", "warn", "note", "end"}


def test_both_colour_schemes_are_styled() -> None:
    """Light by default, dark where the reader's system is."""
    text = as_svg(picture_of_playbook(playbook("workflow:\n- {step: start, next: end}\n- {step: end}\n")))
    assert "@media (prefers-color-scheme:dark)" in text


LOOP = """
    workflow:
    - {step: start, next: count}
    - {step: count, type: python, code: x, next: [{when: "count.n < 3", step: count}, {else: [end]}]}
    - {step: other, type: python, code: x, next: end}
    - {step: end}
"""


def test_the_path_taken_is_drawn_strong_and_counted() -> None:
    """What was not taken is drawn as such; a condition shows how it came out."""
    picture = picture_of_story(
        LOOP,
        """
        > execution_start
        > action_completed count {"n": 1}
        > action_completed count#2 {"n": 2}
        > action_completed count#3 {"n": 3}
        """,
    )
    drawing = Drawing(as_svg(picture))
    assert {(arc.source, arc.target): (arc.fate, arc.texts) for arc in drawing.arcs} == {
        ("start", "count"): ("taken", ()),
        ("count", "count"): ("taken", ("count.n < 3", "✓ 2  ✗ 1")),
        ("count", "end"): ("taken", ("else",)),
        ("other", "end"): ("missed", ()),
    }
    assert drawing.looks == {"start": "completed", "count": "completed", "other": "idle", "end": "completed"}
    assert {"count", "completed · 1.0 s", "00:00:03 · 3 visits", "not run"} <= drawing.words


def test_states_differ_in_words_and_symbol_and_not_in_colour_alone() -> None:
    """A failure says so, and why."""
    body = """
        workflow:
        - {step: start, next: [a, b]}
        - {step: a, type: python, code: x}
        - {step: b, type: python, code: x}
    """
    drawing = Drawing(as_svg(picture_of_story(body, '> execution_start\n> action_failed a {"message": "it broke"}')))
    assert drawing.looks == {"start": "completed", "a": "failed", "b": "cancelled"}
    assert {"failed · 1.0 s", "it broke", "in step a: it broke", "cancelled · 1.0 s"} <= drawing.words


def test_a_mark_says_in_words_only_what_its_symbol_cannot() -> None:
    """`end` needs no more than its name, until it waits for others."""
    body = """
        workflow:
        - {step: start, next: [a, b]}
        - {step: a, type: python, code: x, next: end}
        - {step: b, type: python, code: x, next: end}
        - {step: end}
    """
    waiting = Drawing(as_svg(picture_of_story(body, "> execution_start\n> action_completed a {}")))
    assert (waiting.looks["start"], waiting.looks["end"]) == ("completed", "waits")
    assert "waits for others · 1 here" in waiting.words
    assert "completed" not in waiting.words


def test_the_same_picture_is_the_same_text() -> None:
    """So that a committed picture changes only where the playbook does."""
    picture = picture_of_playbook(compile_playbook(FORTY.read_bytes(), rules=Rules()))
    assert as_svg(picture) == as_svg(picture)

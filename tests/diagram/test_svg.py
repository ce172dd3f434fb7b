"""Diagrams as SVG, parsed as XML and checked box by box and edge by edge."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from noetl_broker.diagram.build import picture_of_playbook
from noetl_broker.diagram.svg import render_svg
from noetl_broker.playbook import PlaybookRules, compile_playbook
from noetl_broker.resources import playbooks_folder
from tests.diagram.drawn import Drawing
from tests.diagram.hostile import CONDITION, NAMES, hostile_playbook
from tests.paths import picture_of_story
from tests.stories import playbook

FORTY = Path(__file__).with_name("forty_steps.yaml")
FILES = [*sorted(playbooks_folder().glob("*.yaml")), FORTY]


def drawn(file: Path) -> Drawing:
    """The parsed SVG of a playbook."""
    return Drawing(
        render_svg(picture_of_playbook(compile_playbook(file.read_bytes(), file=file.name, rules=PlaybookRules())))
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_boxes_and_labels_overlap_nothing(file: Path) -> None:
    """Each step has a place of its own, and a condition hides no step and no other condition."""
    drawing = drawn(file)
    places = [*drawing.boxes.values(), *(arc.label for arc in drawing.arcs if arc.label is not None)]
    assert [pair for pair in combinations(places, 2) if pair[0].meets(pair[1])] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_edge_runs_from_its_source_to_its_target(file: Path) -> None:
    """It starts at the border of one box, and its head points at the border of the other."""
    drawing = drawn(file)
    playbook_ = compile_playbook(file.read_bytes(), rules=PlaybookRules())
    assert sorted((arc.source, arc.target) for arc in drawing.arcs) == sorted(
        (arc.source, arc.target) for arc in playbook_.arcs
    )
    assert [
        arc
        for arc in drawing.arcs
        if not drawing.boxes[arc.source].has_on_edge(arc.begins)
        or not drawing.boxes[arc.target].has_on_edge(arc.points_at)
    ] == []


def test_exclusive_conditions_are_in_order_from_left_to_right() -> None:
    """Of an exclusive choice."""
    arcs = drawn(playbooks_folder() / "diamond.yaml").arcs
    labels = sorted((arc.label.left, arc.texts[0]) for arc in arcs if arc.label is not None and arc.texts[0] != "else")
    assert [text[:2] for _, text in labels] == ["1:", "2:", "3:"]


def test_forty_steps_are_one_screen_wide_and_a_few_high() -> None:
    """At a readable scale."""
    root = drawn(FORTY).root
    assert len(drawn(FORTY).boxes) == 40
    assert float(root.get("width", "0")) < 1900
    assert float(root.get("height", "0")) < 2600


def test_hostile_names_are_only_text_in_xml() -> None:
    """Names, descriptions and conditions with XML syntax are read back unchanged."""
    drawing = Drawing(render_svg(picture_of_playbook(hostile_playbook())))
    assert {*NAMES, CONDITION} <= drawing.words
    assert {*NAMES} <= drawing.boxes.keys()
    elements = {element.tag.rpartition("}")[2] for element in drawing.root.iter()}
    assert elements == {"svg", "title", "desc", "style", "rect", "g", "path", "text"}


def test_characters_that_xml_cannot_hold_are_escaped() -> None:
    """A control character in an error, a lone surrogate in a name."""
    body = """
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x}
    """
    story = """
        > execution_start
        > action_failed a {"message": "red \\u001b[31m \\ud800 alert\\n\\u0000 <b>"}
    """
    assert r"red \x1b[31m \ud800 alert \x00 <b>" in Drawing(render_svg(picture_of_story(body, story))).words


def test_a_block_has_a_frame_of_its_own() -> None:
    """Below the picture, with the name of its step; its steps are drawn as any."""
    drawing = drawn(playbooks_folder() / "ship_items.yaml")
    assert drawing.words >= {"ship", "block of ship", "pack", "label", "order_more", "stock >= count"}


def test_an_svg_is_self_contained() -> None:
    """No script, font, image or link; light by default, dark by the reader's setting; always the same text."""
    picture = picture_of_playbook(playbook("workflow:\n- {step: start, next: end}\n- {step: end}\n"))
    text = render_svg(picture)
    assert [word for word in ("<script", "href", "@import", "@font-face", "url(", "<image") if word in text] == []
    assert text.count("http") == text.count("http://www.w3.org/2000/svg") == 1
    assert "@media (prefers-color-scheme:dark)" in text
    assert render_svg(picture) == text


def test_an_svg_has_a_title_a_description_and_tooltips() -> None:
    """For screen readers and for each box and edge."""
    drawing = drawn(playbooks_folder() / "conditional.yaml")
    root = drawing.root
    assert (root.get("role"), root.get("aria-label")) == ("img", "examples/conditional")
    assert root.findtext("{http://www.w3.org/2000/svg}desc") == "examples/conditional: 5 steps, 5 transitions."
    assert set(drawing.boxes) == {"start", "measure", "warn", "note", "end"}


LOOP = """
    workflow:
    - {step: start, next: count}
    - {step: count, type: python, code: x, next: [{when: "count.n < 3", step: count}, {else: [end]}]}
    - {step: other, type: python, code: x, next: end}
    - {step: end}
"""


def test_taken_edges_are_thick_and_counted() -> None:
    """Other edges are dashed; a condition shows its outcome."""
    picture = picture_of_story(
        LOOP,
        """
        > execution_start
        > action_completed count {"n": 1}
        > action_completed count#2 {"n": 2}
        > action_completed count#3 {"n": 3}
        """,
    )
    drawing = Drawing(render_svg(picture))
    assert {(arc.source, arc.target): (arc.fate, arc.texts) for arc in drawing.arcs} == {
        ("start", "count"): ("taken", ()),
        ("count", "count"): ("taken", ("count.n < 3", "✓ 2  ✗ 1")),
        ("count", "end"): ("taken", ("else",)),
        ("other", "end"): ("missed", ()),
    }
    assert drawing.styles == {"start": "completed", "count": "completed", "other": "idle", "end": "completed"}
    assert {"count", "completed · 1.0 s", "00:00:03 · 3 visits", "not run"} <= drawing.words


def test_states_differ_in_words_and_symbols_and_not_only_in_colour() -> None:
    """A failure shows its message."""
    body = """
        workflow:
        - {step: start, next: [a, b]}
        - {step: a, type: python, code: x}
        - {step: b, type: python, code: x}
    """
    drawing = Drawing(
        render_svg(picture_of_story(body, '> execution_start\n> action_failed a {"message": "it broke"}'))
    )
    assert drawing.styles == {"start": "completed", "a": "failed", "b": "cancelled"}
    assert {"failed · 1.0 s", "it broke", "in step a: it broke", "cancelled · 1.0 s"} <= drawing.words


def test_a_marker_has_state_words_only_where_its_symbol_is_not_enough() -> None:
    """`end` shows only its name until it waits."""
    body = """
        workflow:
        - {step: start, next: [a, b]}
        - {step: a, type: python, code: x, next: end}
        - {step: b, type: python, code: x, next: end}
        - {step: end}
    """
    waiting = Drawing(render_svg(picture_of_story(body, "> execution_start\n> action_completed a {}")))
    assert (waiting.styles["start"], waiting.styles["end"]) == ("completed", "waits")
    assert "waits for others · 1 here" in waiting.words
    assert "completed" not in waiting.words

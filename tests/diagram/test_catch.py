"""The arcs of a `catch` in diagrams."""

from __future__ import annotations

from noetl_broker.diagram.build import picture_of_playbook
from noetl_broker.diagram.mermaid import render_mermaid
from noetl_broker.diagram.svg import render_svg
from tests.broker.test_catch import CHARGE
from tests.paths import picture_of_story
from tests.stories import playbook

TYPO = '> execution_start {"limit": 5}\n> action_completed charge {"id": "c1"}'


def test_the_arcs_of_a_catch_are_red_and_dashed() -> None:
    """With their place in the list and their condition."""
    lines = render_mermaid(picture_of_playbook(playbook(CHARGE))).splitlines()
    assert lines[-3:] == [
        "  n1 -.->|\"1: catch error.type == 'declined'\"| n3",
        "  n1 -.->|\"2: catch error.type == 'template'\"| n4",
        "  linkStyle 2,3 stroke:#c93434,stroke-dasharray:6 4",
    ]


def test_the_entry_that_was_taken_is_thick() -> None:
    """The step failed, and its token went on."""
    text = render_mermaid(picture_of_story(CHARGE, TYPO))
    assert "  n1 ==>|\"✓ 2: catch error.type == 'template'\"| n4" in text
    assert "✗ failed, went on" in text


def test_an_svg_without_a_catch_has_no_style_for_it() -> None:
    """Its file stays as it was."""
    plain = CHARGE[: CHARGE.index("    catch:")] + CHARGE[CHARGE.index("  - {step: big") :]
    svgs = [render_svg(picture_of_playbook(playbook(body))) for body in (CHARGE, plain)]
    assert [(".catch" in svg, 'class="line catch"' in svg) for svg in svgs] == [(True, True), (False, False)]

"""Diagrams as Mermaid text: valid for every step name."""

from __future__ import annotations

import re

from noetl_broker.diagram.build import picture_of_playbook
from noetl_broker.diagram.mermaid import render_mermaid
from tests.diagram.hostile import NAMES, hostile_playbook
from tests.paths import picture_of_story
from tests.stories import playbook

# A box or an arc whose label, if it has one, is quoted and holds no quote; a line of the head, or a style.
LINE = re.compile(
    r'---|title: "[^"]*"|flowchart TD|  acc(Title|Descr): [^"<>{}\[\]#%;]*|  classDef \w+ [-\w:#,. ]+'
    r'|  n\d+[(\[{/]+"[^"]*"[)\]}\\]+(:::\w+)?|  n\d+ (-->|==>|-\.->)(\|"[^"]*"\|)? n\d+'
)


def test_a_small_playbook_is_rendered_exactly() -> None:
    """Shapes by kind, conditions as labels, traits in words."""
    body = """
        workflow:
        - {step: start, next: fetch}
        - step: fetch
          type: http
          url: x
          retry: 3
          on_error: continue
          next_mode: exclusive
          next:
          - {when: "{{ fetch.status == 'FAILED' }}", step: give_up}
          - {when: "{{ fetch.n > 10 }}", step: each, else: [choose]}
        - {step: give_up, type: python, code: x, next: end}
        - step: each
          type: iterator
          collection: "{{ fetch.rows }}"
          element: row
          task: {type: playbook, path: a/b}
          next: choose
        - {step: choose, type: router, next: [{when: "workload.sub", step: sub}, {step: end}]}
        - {step: sub, type: playbook, path: a/sub, next: end}
        - {step: end}
    """
    expected = """\
---
title: "story"
---
flowchart TD
  accTitle: story
  accDescr: story: 7 steps, 9 transitions.
  n0(["<b>start</b>"])
  n1["<b>fetch</b><br/>http<br/>continues on error · 3 attempts"]
  n2["<b>give_up</b><br/>python"]
  n3[/"<b>each</b><br/>playbook · a/b<br/>each row, one by one"\\]
  n4{{"<b>choose</b><br/>waits for all"}}
  n5[["<b>sub</b><br/>a/sub"]]
  n6((("<b>end</b>")))
  n0 --> n1
  n1 -->|"1: fetch.status == 'FAILED'"| n2
  n1 -->|"2: fetch.n #62; 10"| n3
  n1 -->|"2: unless fetch.n #62; 10"| n4
  n2 --> n6
  n3 --> n4
  n4 -->|"workload.sub"| n5
  n4 -->|"otherwise"| n6
  n5 --> n6
"""
    assert render_mermaid(picture_of_playbook(playbook(body))) == expected


def test_an_execution_shows_its_path_and_states() -> None:
    """Thick edges were taken, dotted ones not; each state has a class and a symbol."""
    body = """
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: [{when: "a.good", step: b}, {else: [c]}]}
        - {step: b, type: python, code: x}
        - {step: c, type: python, code: x}
    """
    lines = render_mermaid(
        picture_of_story(body, '> execution_start\n> action_completed a {"good": false}')
    ).splitlines()
    assert [line for line in lines if line.startswith("  n")] == [
        '  n0(["<b>start</b><br/>✓ completed"]):::completed',
        '  n1["<b>a</b><br/>python<br/>✓ completed · 1.0 s<br/>00:00:01"]:::completed',
        '  n2["<b>b</b><br/>python<br/>○ not yet"]:::idle',
        '  n3["<b>c</b><br/>python<br/>▶ running · 0 ms<br/>00:00:02"]:::running',
        "  n0 ==> n1",
        '  n1 -.->|"✗ a.good"| n2',
        '  n1 ==>|"else"| n3',
    ]
    assert [line.split()[1] for line in lines if "classDef" in line] == ["idle", "running", "completed"]


def test_hostile_names_do_not_break_the_mermaid_grammar() -> None:
    """Each line has one of our forms, with quoted labels that hold no quote, bracket or directive."""
    lines = render_mermaid(picture_of_playbook(hostile_playbook())).splitlines()
    assert [line for line in lines if LINE.fullmatch(line) is None] == []
    labels = re.findall(r'"([^"]*)"', "\n".join(lines[4:]))
    assert [label for label in labels if re.search(r"[\"`\[\]{}|%&$]|<(?!/?b>|br/>)", label)] == []


def test_escaped_text_can_be_decoded() -> None:
    """A syntax character is written as its number, which Mermaid draws as the character."""
    text = render_mermaid(picture_of_playbook(hostile_playbook()))
    shown = re.sub(r"#(\d+);", lambda number: chr(int(number[1])), text).replace("\u2060", "")
    assert [name for name in NAMES if f"<b>{name}</b>" not in shown] == []


def test_a_block_is_a_box_of_its_own() -> None:
    """With a line from the step that has it; a block in it stands beside it."""
    body = """
        workflow:
        - {step: start, next: pay}
        - step: pay
          type: playbook
          workflow:
          - {step: start, next: each}
          - {step: each, type: iterator, collection: [1], element: e, task: {workflow: [{step: start}]}}
    """
    expected = """\
  n0(["<b>start</b>"])
  n1[["<b>pay</b><br/>block"]]
  n0 --> n1
  subgraph n1_block["block of pay"]
  n1_n0(["<b>start</b>"])
  n1_n1[/"<b>each</b><br/>playbook · block<br/>each e, one by one"\\]
  n1_n0 --> n1_n1
  end
  n1 -.- n1_block
  subgraph n1_n1_block["block of each"]
  n1_n1_n0(["<b>start</b>"])
  end
  n1_n1 -.- n1_n1_block
"""
    drawn = render_mermaid(picture_of_playbook(playbook(body)))
    assert drawn.partition(" transitions.\n")[2] == expected


def test_an_iterator_has_its_shape_whoever_runs_its_items() -> None:
    """One worker runs the items of the first one, the broker starts a job for each item of the second one."""
    body = """
        workflow:
        - {step: start, next: one}
        - {step: one, type: iterator, collection: [1], element: e, task: {type: http}, next: all}
        - {step: all, type: iterator, collection: [1], element: e, distribute: true, task: {type: http}}
    """
    shapes = {node.step: node.shape for node in picture_of_playbook(playbook(body)).nodes}
    assert shapes == {"start": "start", "one": "iterator", "all": "iterator"}

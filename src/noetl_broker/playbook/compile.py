"""Makes a playbook from its document: loaded, read part by part, and joined to one frozen whole."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import NamedTuple

from noetl_broker.playbook.findings import PlaybookError, Report, Rules
from noetl_broker.playbook.graph import Graph
from noetl_broker.playbook.loader import Document, load_into
from noetl_broker.playbook.model import Action, Inputs, Playbook, Raw, Step
from noetl_broker.playbook.needs import reads_inputs, share_inputs
from noetl_broker.playbook.outline import Outline, read_outline
from noetl_broker.playbook.reading import MADE, Part, Reading
from noetl_broker.playbook.reads import reads_one_of, workload_paths
from noetl_broker.playbook.steps import read_step
from noetl_broker.playbook.unfinished import refuse_unfinished
from noetl_broker.playbook.vocabulary import END, START, TYPE_KEYS
from noetl_broker.playbook.work import TooMuchWork, Work
from noetl_broker.template import WORKER_WORDS, Path, Tree


class Draft(NamedTuple):
    """What reading a document gave: the reading with its report, and the playbook as far as there is one."""

    reading: Reading
    playbook: Playbook | None  # None where the workflow has no shape; otherwise it is whole only without errors


def compile_playbook(
    source: str | bytes, *, file: str = "<catalog>", rules: Rules, stopping: threading.Event | None = None
) -> Playbook:
    """Compile a playbook; PlaybookError holds every error that prevents it.

    Raises Abandoned where `stopping` is set meanwhile.
    """
    draft = read_document(source, file=file, rules=rules, stopping=stopping)
    errors = draft.reading.report.errors
    if errors or draft.playbook is None:
        raise PlaybookError(errors)
    return draft.playbook


def read_document(source: str | bytes, *, file: str, rules: Rules, stopping: threading.Event | None = None) -> Draft:
    """Read a document as far as it goes; errors are in the report, never raised."""
    work = Work(rules.most_work, rules.most_seconds, stopping)
    document = Document()
    reading = Reading(report=Report(file=file, positions=document), rules=rules, work=work)
    try:
        return _read(reading, document, source)
    except TooMuchWork as too_much:
        hint = "split it into playbooks that call each other"
        reading.report.error("too-much-work", (), f"to read the document takes more than {too_much}", hint)
        reading.broken = True
        return Draft(reading, None)


def _read(reading: Reading, document: Document, source: str | bytes) -> Draft:
    load_into(document, source, reading.report, reading.rules, reading.work)
    if document.fatal:
        return Draft(reading, None)
    outline = read_outline(reading, document.value)
    if outline is None:
        return Draft(reading, None)
    steps = _read_steps(reading, outline)
    workload = _read_workload(reading, outline)
    if START not in steps:
        return Draft(reading, None)
    playbook = _join(reading, outline, steps, workload)
    if not reading.broken:
        refuse_unfinished(reading, playbook)
    return Draft(reading, playbook)


def _read_steps(reading: Reading, outline: Outline) -> dict[str, Step]:
    return {written.name: share_inputs(read_step(reading, written)) for written in outline.steps}


def _read_workload(reading: Reading, outline: Outline) -> dict[str, Tree]:
    """Compile the defaults; a string that names a worker-side word is left as it stands, for the task that uses it."""
    part = Part(step=None, role="workload", worker=WORKER_WORDS)
    return {key: reading.tree(value, (*outline.workload_place, key), part) for key, value in outline.workload.items()}


def _unfinished(reading: Reading, workload: dict[str, Tree]) -> dict[Path, str]:
    """Give the defaults that only a worker can finish: those that name its words, and those that read such a one."""
    found: dict[Path, str] = {}
    for key, tree in workload.items():
        if tree.constant:
            continue
        reading.work.spend(MADE * len(found) * (1 + tree.templates))
        left = tree.leaving(reads_one_of(workload_paths(found, ())))
        found |= {(key, *path): template.source for path, template in left}
        found |= {(key, *path): text for path, text in tree.left_texts()}
    return found


def _join(reading: Reading, outline: Outline, steps: dict[str, Step], workload: dict[str, Tree]) -> Playbook:
    graph = Graph([*steps], [(arc.source, arc.target) for arc in reading.arcs])
    for name, step in steps.items():
        if step.join is None and name != END and graph.incoming(name) > 1:
            steps[name] = replace(step, join="all")
    arriving: dict[str, list[Inputs]] = {}
    for step in steps.values():
        for entry in step.next:
            for target in (*entry.then, *entry.otherwise):
                arriving.setdefault(target.step, []).append(target.inputs)
    for name, step in steps.items():
        if reads_inputs(step, arriving.get(name, ())):
            steps[name] = replace(step, reads_inputs=True)
    return Playbook(
        path=outline.path,
        name=outline.name,
        workload=workload,
        unfinished=_unfinished(reading, workload),
        steps=steps,
        start=steps[START],
        end=steps.get(END),
        graph=graph,
        arcs=tuple(reading.arcs),
        workbook=tuple(_action(name, raw) for name, (raw, _place) in reading.actions.items()),
        max_visits=outline.max_visits,
        deadline=outline.deadline,
        priority=outline.priority,
        document=outline.document,
    )


def _action(name: str, raw: Raw) -> Action:
    written = next((raw[word] for word in TYPE_KEYS if raw.get(word) is not None), "")
    return Action(name=name, type=str(written), raw=raw)

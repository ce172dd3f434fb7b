"""Compiles a playbook from its document: load YAML, read each part, join the parts."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from noetl_broker.errors import PlaybookFault
from noetl_broker.playbook.blocks import block_path, part_of
from noetl_broker.playbook.buckets import read_needs
from noetl_broker.playbook.compensate import refuse_step_reads
from noetl_broker.playbook.concurrency import read_concurrency
from noetl_broker.playbook.deferred import refuse_reads
from noetl_broker.playbook.diagnostics import Location, PlaybookError, PlaybookRules, Report
from noetl_broker.playbook.graph import Graph
from noetl_broker.playbook.header import Outline, read_block_outline, read_outline
from noetl_broker.playbook.inputs import reads_inputs, share_inputs
from noetl_broker.playbook.joins import refuse_unmet_needs
from noetl_broker.playbook.keywords import END, START, TYPE_KEYS
from noetl_broker.playbook.kinds import TRAITS
from noetl_broker.playbook.model import Action, Playbook, Raw, Step
from noetl_broker.playbook.on_failure import ON_LATE, read_alarm
from noetl_broker.playbook.reader import Reading, TemplateSite
from noetl_broker.playbook.scopes import arriving_inputs
from noetl_broker.playbook.signals import read_on_signal
from noetl_broker.playbook.steps import read_step
from noetl_broker.playbook.tags import read_tags
from noetl_broker.playbook.work_budget import TooMuchWork, Work
from noetl_broker.playbook.yaml_loader import Document, load_into
from noetl_broker.template import WORKER_WORDS, Tree


class Compilation(NamedTuple):
    """The reading of a document with its report, and the playbook; the same for each of its blocks."""

    reading: Reading
    playbook: Playbook | None  # None if there is no usable workflow; with errors, only for further checks
    locations: Mapping[str, Location] = MappingProxyType({})  # of the names of the steps
    blocks: Mapping[str, Compilation] = MappingProxyType({})  # by the step that has it


def compile_playbook(
    source: str | bytes,
    *,
    file: str = "<catalog>",
    path: str | None = None,
    rules: PlaybookRules,
    stopping: threading.Event | None = None,
) -> Playbook:
    """Compile a playbook, or the block of it that has this `path`.

    Raises PlaybookError with every error, PlaybookFault if there is no such block, and Abandoned if `stopping` is set
    meanwhile.
    """
    draft = read_document(source, file=file, rules=rules, stopping=stopping)
    errors = draft.reading.report.errors
    if errors or draft.playbook is None:
        raise PlaybookError(errors)
    part = part_of(draft.playbook, path)
    if part is None:
        raise PlaybookFault(f"{file} has no block {path}")
    return part


def read_document(
    source: str | bytes,
    *,
    file: str,
    rules: PlaybookRules,
    stopping: threading.Event | None = None,
    registering: bool = False,
) -> Compilation:
    """Read a document; errors are in the report, never raised.

    `registering`: also refuse what a version of the catalog may have.
    """
    work = Work(rules.most_work, rules.most_seconds, stopping)
    document = Document()
    report = Report(file=file, positions=document, registering=registering)
    reading = Reading(report=report, rules=rules, work=work)
    try:
        return _read(reading, document, source)
    except TooMuchWork as too_much:
        hint = "split it into playbooks that call each other"
        reading.report.error("too-much-work", (), f"reading the document takes more than {too_much}", hint)
        reading.broken = True
        return Compilation(reading, None)


def _read(reading: Reading, document: Document, source: str | bytes) -> Compilation:
    load_into(document, source, reading.report, reading.rules, reading.work)
    if document.fatal:
        return Compilation(reading, None)
    outline = read_outline(reading, document.value)
    if outline is None:
        return Compilation(reading, None)
    found = _read_outlined(reading, outline)
    if found.playbook is None:
        return found
    return found._replace(playbook=replace(found.playbook, needs=read_needs(reading)))


def _read_outlined(reading: Reading, outline: Outline) -> Compilation:
    """Read the steps of a playbook or of a block, and the blocks in them."""
    workload = _read_workload(reading, outline)
    reading.deferred_keys = frozenset(key for key, tree in workload.items() if tree.deferred)
    steps = _read_steps(reading, outline)
    blocks = {name: _read_block(reading, outline, name) for name in reading.blocks}
    if START not in steps:
        return Compilation(reading, None, blocks=blocks)
    playbook = _join(reading, outline, steps, workload)
    if not reading.broken:
        refuse_reads(reading, playbook)
        refuse_step_reads(reading, playbook)
    found = {name: block.playbook for name, block in blocks.items() if block.playbook is not None}
    undoes = any(step.has_compensate for step in steps.values()) or any(block.undoes for block in found.values())
    if found or undoes:
        playbook = replace(playbook, blocks=found, undoes=undoes)
    locations = {one.name: (*one.location, "step" if "step" in one.raw else "name") for one in outline.steps}
    return Compilation(reading, playbook, locations, blocks)


def _read_block(reading: Reading, outline: Outline, name: str) -> Compilation:
    block = reading.blocks[name]
    inner = reading.of_block(block_path(reading.path, name), block.location)
    return _read_outlined(inner, read_block_outline(inner, outline, name, block))


def _read_steps(reading: Reading, outline: Outline) -> dict[str, Step]:
    return {written.name: share_inputs(read_step(reading, written)) for written in outline.steps}


def _read_workload(reading: Reading, outline: Outline) -> dict[str, Tree]:
    """Compile the defaults of the workload."""
    part = TemplateSite(step=None, role="workload", worker=WORKER_WORDS)
    return {
        key: reading.tree(value, (*outline.workload_location, key), part) for key, value in outline.workload.items()
    }


def _join(reading: Reading, outline: Outline, steps: dict[str, Step], workload: dict[str, Tree]) -> Playbook:
    graph = Graph([*steps], [(arc.source, arc.target) for arc in reading.arcs])
    for name, step in steps.items():
        if step.join is None and name != END and graph.incoming(name) > 1:
            steps[name] = replace(step, join="all")
    refuse_unmet_needs(reading, steps, graph, {written.name: written.location for written in outline.steps})
    arriving = arriving_inputs(steps)
    for name, step in steps.items():
        if reads_inputs(step, (inputs for _, inputs in arriving.get(name, ()))):
            steps[name] = replace(step, reads_inputs=True)
    return Playbook(
        path=outline.path,
        name=outline.name,
        workload=workload,
        deferred={(key, *path): text for key, tree in workload.items() for path, text in tree.deferred_texts()},
        workload_schema=outline.workload_schema,
        steps=steps,
        start=steps[START],
        end=steps.get(END),
        graph=graph,
        arcs=tuple(reading.arcs),
        workbook=tuple(_action(name, raw) for name, (raw, _location) in reading.actions.items()),
        max_visits=outline.max_visits,
        deadline=outline.deadline,
        late_after=outline.late_after,
        late_steps=any(step.late_after is not None for step in steps.values()),
        leaves_timers=outline.deadline is not None
        or outline.late_after is not None
        or any(step.start_timeout is not None or step.late_after is not None for step in steps.values()),
        keeps_timers=any(TRAITS[step.kind].has_timer for step in steps.values()),
        priority=outline.priority,
        pool=outline.pool,
        on_signal=read_on_signal(reading, outline.metadata),
        concurrency=read_concurrency(reading, outline.metadata.get("concurrency"), outline.limit_location),
        on_failure=read_alarm(reading, outline.metadata),
        tags=read_tags(reading, outline.metadata),
        on_late=read_alarm(reading, outline.metadata, ON_LATE),
        bucket=outline.bucket,
        document=outline.document,
    )


def _action(name: str, raw: Raw) -> Action:
    written = next((raw[word] for word in TYPE_KEYS if raw.get(word) is not None), "")
    return Action(name=name, type=str(written), raw=raw)

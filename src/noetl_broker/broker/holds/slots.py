"""Slots: at most so many executions of one key run. The others are queued, skipped, failed, or replace those that run.

An execution may want two slots: its schedule has one (`overlap`), and its playbook (`metadata.concurrency`). It
takes all of them or none. The store knows which are free. The answer is asked as `Known`, under the locks of the
slots, and recorded in the facts of the turn. An execution keeps its slots until it has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from noetl_broker.broker.draft.wants import want_slot_locks, want_slots
from noetl_broker.broker.flow.failures import end_as_cancelled, fail_execution
from noetl_broker.broker.holds.pauses import NO_HOLD, admit_execution, join_line, queue_execution, resume_execution
from noetl_broker.broker.model.decision import Refused
from noetl_broker.broker.model.effects import FactsUsed, Slot, SlotsChanged
from noetl_broker.broker.state.state import PAUSED, QUEUED
from noetl_broker.broker.writing.errors import wrong_value
from noetl_broker.playbook.concurrency import CANCEL_RUNNING, FAIL, KEY_FORMS, QUEUE, SKIP, slot_key
from noetl_broker.text import OF_SCHEDULE, slot_name

if TYPE_CHECKING:
    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.draft.known import Known
    from noetl_broker.broker.model.event import Event
    from noetl_broker.broker.model.values import JSON

CONCURRENCY = "concurrency"  # a type of error
OVERLAPS = {"skip": SKIP, "queue": QUEUE, "cancel": CANCEL_RUNNING}


def wanted_slots(draft: Draft) -> tuple[Slot, ...]:
    """The slots that a start must take: first the slot of its schedule. Raises TemplateError.

    A fork or a retry is queued, whatever the playbook says: a person asked for it.
    """
    meta = draft.event.meta if isinstance(draft.event.meta, dict) else {}
    spec = draft.playbook.concurrency
    if spec is None and "overlap" not in meta:
        return ()
    found = [*_slot_of_schedule(meta)]
    if spec is not None:
        key = ""
        if spec.key is not None:
            value = draft.templates.render(spec.key, draft.templates.scope({}, None))
            try:
                key = slot_key(value)
            except ValueError:
                raise wrong_value(spec.key, f"`key` must be {KEY_FORMS}", value) from None
        found.append(Slot(draft.playbook.path, key, spec.limit, spec.on_limit, label=spec.label))
    if "fork" in meta:
        found = [slot._replace(on_limit=QUEUE) for slot in found]
    return tuple(found)


def _slot_of_schedule(meta: dict[str, JSON]) -> list[Slot]:
    """The slot that the start of a schedule wants: its meta has `overlap`, {schedule, on_limit}."""
    overlap = meta.get("overlap")
    if not isinstance(overlap, dict) or not isinstance(overlap.get("schedule"), str):
        return []
    word = OVERLAPS.get(str(overlap.get("word")))
    return [] if word is None else [Slot(OF_SCHEDULE, overlap["schedule"], 1, word)]


def take_slots(draft: Draft) -> bool:
    """Take the slots that the execution wants; returns whether it has them.

    If one is not free, the execution is queued, or ends.
    """
    answers = _ask(draft)
    draft.add(FactsUsed({"slots": answers}))
    pairs = [*zip(draft.state.slots, answers, strict=True)]
    busy = [(slot, answer) for slot, answer in pairs if not answer["free"]]
    for slot, answer in busy:
        if slot.on_limit in {SKIP, FAIL}:
            _give_up(draft, slot, answer)
            return False
    names = [_name(slot) for slot, _ in busy]
    own = [(slot._replace(number=answer["number"]), answer) for slot, answer in pairs if not answer.get("shared")]
    draft.state.slots = tuple(slot for slot, _ in own)
    if not busy:
        if own:
            draft.add(SlotsChanged("held", draft.state.slots))
        return True
    # only a slot that is not free has anybody to cancel
    claims = tuple(slot if not answer["free"] else slot._replace(on_limit=QUEUE) for slot, answer in own)
    draft.add(SlotsChanged("waiting", claims))
    queue_execution(draft, f"waits for a slot: {', '.join(names)}", waits=True)
    return False


def _ask(draft: Draft) -> list[dict[str, Any]]:
    """What the store says about each slot: {free, number}, `shared` if an ancestor holds it, `holder` if it is taken.

    A replay reads what the turn recorded. In a story without an answer all slots are free.
    """
    given = draft.event.slots
    if given is None:
        given = draft.known.ask(want_slots(tuple(slot[:3] for slot in draft.state.slots)))
    if isinstance(given, list) and len(given) == len(draft.state.slots) and all(map(_is_answer, given)):
        return given
    return [{"free": True, "number": draft.turn.number} for _ in draft.state.slots]


def _is_answer(value: JSON) -> bool:
    return isinstance(value, dict) and isinstance(value.get("free"), bool) and type(value.get("number")) is int


def _give_up(draft: Draft, slot: Slot, answer: dict[str, Any]) -> None:
    """End an execution whose slot is taken: cancelled where the slot says `skip`, failed where it says `fail`."""
    holder = f", execution {answer['holder']} holds it" if answer.get("holder") else ""
    message = f"no slot is free: {_name(slot)}{holder}"
    if slot.on_limit == FAIL:
        fail_execution(draft, {"message": message, "type": CONCURRENCY})
    else:
        end_as_cancelled(draft, {"message": f"skipped: {message}", "type": CONCURRENCY})


def _name(slot: Slot) -> str:
    return slot_name(slot.path, slot.key, slot.label)


def waits_for_slot(draft: Draft) -> bool:
    """Whether the execution was told that its slots are taken, and was not admitted since."""
    return not (draft.state.hold or NO_HOLD).admitted and any(slot.number for slot in draft.state.slots)


def is_given(event: Event) -> bool:
    """Whether a `place_free` comes with the slots: whoever freed them has given them to this execution."""
    return isinstance(event.meta, dict) and event.meta.get("given") is True


def receive_slot(draft: Draft) -> None:
    """`place_free`: a queued execution runs if it has its slots; otherwise it asks for them.

    A paused execution that was never admitted gives its slots back. Raises Refused if there is nothing to do.
    """
    if join_line(draft):
        return
    waits = waits_for_slot(draft)
    if draft.state.status == PAUSED:
        if not (waits and is_given(draft.event)):
            raise Refused("recorded")
        draft.known.ask(want_slot_locks(tuple(slot[:2] for slot in draft.state.slots)))
        draft.add(SlotsChanged("returned", draft.state.slots))
    elif waits and not is_given(draft.event):
        raise Refused("recorded")  # its playbook is not paused any more, but its slot is not free
    elif waits or not draft.state.slots or take_slots(draft):
        admit_execution(draft)


def resume_queued(draft: Draft) -> None:
    """`execution_resume`: as `resume_execution`. An execution that waited for slots asks for them again."""
    resume_execution(draft)
    if draft.state.status == QUEUED and waits_for_slot(draft) and take_slots(draft):
        admit_execution(draft)


def free_slots(draft: Draft) -> None:
    """Free what an execution that ends holds or waits for. The store admits the next ones."""
    change = freed(draft.known, draft.state.slots)
    if change is not None:
        draft.add(change)
    draft.state.slots = ()


def freed(known: Known, slots: tuple[Slot, ...]) -> SlotsChanged | None:
    """The end of a claim of these slots, under their locks; None if they were never asked for."""
    if not any(slot.number for slot in slots):
        return None
    known.ask(want_slot_locks(tuple(slot[:2] for slot in slots)))
    return SlotsChanged("freed", slots)

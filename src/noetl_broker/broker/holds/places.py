"""Places: at most so many executions of one key run. The others are queued, skipped, failed, or replace those that run.

An execution may want two places: its schedule has one (`overlap`), and its playbook (`metadata.concurrency`). It
takes all of them or none. The store knows which are free. The answer is asked as `Known`, under the locks of the
places, and recorded in the facts of the turn. An execution keeps its places until it has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from noetl_broker.broker.draft.wants import want_place_locks, want_places
from noetl_broker.broker.flow.failures import end_as_cancelled, fail_execution
from noetl_broker.broker.holds.pauses import NO_HOLD, admit_execution, queue_execution, resume_execution
from noetl_broker.broker.model.effects import FactsUsed, Place, PlacesChanged
from noetl_broker.broker.state.state import PAUSED, QUEUED
from noetl_broker.broker.work.items import Refused
from noetl_broker.broker.writing.errors import wrong_value
from noetl_broker.playbook.concurrency import CANCEL_RUNNING, FAIL, KEY_FORMS, QUEUE, SKIP, place_key
from noetl_broker.text import OF_SCHEDULE, place_name

if TYPE_CHECKING:
    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.draft.known import Known
    from noetl_broker.broker.model.event import Event
    from noetl_broker.broker.model.values import JSON

CONCURRENCY, RING = "concurrency", "concurrency_ring"  # types of errors
OVERLAPS = {"skip": SKIP, "queue": QUEUE, "cancel": CANCEL_RUNNING}


def wanted_places(draft: Draft) -> tuple[Place, ...]:
    """The places that a start must take: first the place of its schedule. Raises TemplateError.

    A fork or a retry is queued, whatever the playbook says: a person asked for it. An undo execution wants none.
    """
    meta = draft.event.meta if isinstance(draft.event.meta, dict) else {}
    spec = draft.playbook.concurrency
    if "undo" in meta or (spec is None and "overlap" not in meta):
        return ()
    found = [*_place_of_schedule(meta)]
    if spec is not None:
        key = ""
        if spec.key is not None:
            value = draft.templates.render(spec.key, draft.templates.scope({}, None))
            try:
                key = place_key(value)
            except ValueError:
                raise wrong_value(spec.key, f"`key` must be {KEY_FORMS}", value) from None
        found.append(Place(draft.playbook.path, key, spec.limit, spec.on_limit, label=spec.label))
    if "fork" in meta:
        found = [place._replace(on_limit=QUEUE) for place in found]
    return tuple(found)


def _place_of_schedule(meta: dict[str, JSON]) -> list[Place]:
    """The place that the start of a schedule wants: its meta has `overlap`, {schedule, on_limit}."""
    overlap = meta.get("overlap")
    if not isinstance(overlap, dict) or not isinstance(overlap.get("schedule"), str):
        return []
    word = OVERLAPS.get(str(overlap.get("word")))
    return [] if word is None else [Place(OF_SCHEDULE, overlap["schedule"], 1, word)]


def take_places(draft: Draft) -> bool:
    """Take the places that the execution wants; returns whether it has them.

    If one is not free, the execution is queued, or ends.
    """
    answers = _ask(draft)
    draft.add(FactsUsed({"places": answers}))
    pairs = [*zip(draft.state.places, answers, strict=True)]
    busy = [(place, answer) for place, answer in pairs if not answer["free"]]
    for place, answer in busy:
        if place.on_limit in {SKIP, FAIL}:
            _give_up(draft, place, answer)
            return False
    names = [_name(place) for place, _ in busy]
    own = [(place._replace(number=answer["number"]), answer) for place, answer in pairs if not answer.get("shared")]
    draft.state.places = tuple(place for place, _ in own)
    if not busy:
        if own:
            draft.add(PlacesChanged("held", draft.state.places))
        return True
    # only a place that is not free has anybody to cancel
    claims = tuple(place if not answer["free"] else place._replace(on_limit=QUEUE) for place, answer in own)
    draft.add(PlacesChanged("waiting", claims))
    queue_execution(draft, f"waits for a place: {', '.join(names)}", waits=True)
    return False


def _ask(draft: Draft) -> list[dict[str, Any]]:
    """What the store says about each place: {free, number}, `shared` if an ancestor holds it, `holder` if it is taken.

    A replay reads what the turn recorded. In a story without an answer all places are free.
    """
    given = draft.event.places
    if given is None:
        given = draft.known.ask(want_places(tuple(place[:3] for place in draft.state.places)))
    if isinstance(given, list) and len(given) == len(draft.state.places) and all(map(_is_answer, given)):
        return given
    return [{"free": True, "number": draft.turn.number} for _ in draft.state.places]


def _is_answer(value: JSON) -> bool:
    return isinstance(value, dict) and isinstance(value.get("free"), bool) and type(value.get("number")) is int


def _give_up(draft: Draft, place: Place, answer: dict[str, Any]) -> None:
    """End an execution whose place is taken: cancelled where the place says `skip`, failed where it says `fail`."""
    holder = f", execution {answer['holder']} holds it" if answer.get("holder") else ""
    message = f"no place is free: {_name(place)}{holder}"
    if place.on_limit == FAIL:
        fail_execution(draft, {"message": message, "type": CONCURRENCY})
    else:
        end_as_cancelled(draft, {"message": f"skipped: {message}", "type": CONCURRENCY})


def _name(place: Place) -> str:
    return place_name(place.path, place.key, place.label)


def waits_for_place(draft: Draft) -> bool:
    """Whether the execution was told that its places are taken, and was not admitted since."""
    return not (draft.state.hold or NO_HOLD).admitted and any(place.number for place in draft.state.places)


def is_given(event: Event) -> bool:
    """Whether a `place_free` comes with the places: whoever freed them has given them to this execution."""
    return isinstance(event.meta, dict) and event.meta.get("given") is True


def receive_place(draft: Draft) -> None:
    """`place_free`: a queued execution runs if it has its places; otherwise it asks for them.

    A paused execution that was never admitted gives its places back. Raises Refused if there is nothing to do.
    """
    waits = waits_for_place(draft)
    if draft.state.status == PAUSED:
        if not (waits and is_given(draft.event)):
            raise Refused("recorded")
        draft.known.ask(want_place_locks(tuple(place[:2] for place in draft.state.places)))
        draft.add(PlacesChanged("returned", draft.state.places))
    elif waits and not is_given(draft.event):
        raise Refused("recorded")  # its playbook is not paused any more, but its place is not free
    elif waits or not draft.state.places or take_places(draft):
        admit_execution(draft)


def resume_queued(draft: Draft) -> None:
    """`execution_resume`: as `resume_execution`. An execution that waited for places asks for them again."""
    resume_execution(draft)
    if draft.state.status == QUEUED and waits_for_place(draft) and take_places(draft):
        admit_execution(draft)


def break_ring(draft: Draft) -> None:
    """`place_ring`: executions wait for each other's places; this one, the youngest, fails."""
    if not waits_for_place(draft):
        raise Refused("recorded")
    context = draft.event.context if isinstance(draft.event.context, dict) else {}
    others = [one for one in context.get("executions") or () if one != draft.turn.execution_id]
    names = ", ".join(_name(place) for place in draft.state.places)
    ring = f", with it {', '.join(map(str, others))}" if others else ""
    message = f"a ring of executions waits for places: this one for {names}{ring}"
    fail_execution(draft, {"message": message, "type": RING, "executions": others})


def free_places(draft: Draft) -> None:
    """Free what an execution that ends holds or waits for. The store admits the next ones."""
    change = freed(draft.known, draft.state.places)
    if change is not None:
        draft.add(change)
    draft.state.places = ()


def freed(known: Known, places: tuple[Place, ...]) -> PlacesChanged | None:
    """The end of a claim of these places, under their locks; None if they were never asked for."""
    if not any(place.number for place in places):
        return None
    known.ask(want_place_locks(tuple(place[:2] for place in places)))
    return PlacesChanged("freed", places)

"""Signals: facts from outside. The oldest open wait that fits takes a signal; a signal that fits no wait is kept.

The store brings at most one signal at a time to a wait, which is `signalled` then. A wait that does not take it is open
again.
The state keeps the turn that read a kept signal, and the fields that waits compare. Its payload is loaded when a wait
tries it. A wait that begins tries the kept signals in their order. A turn tries MOST_TRIED of them; a timer brings the
next turn.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from noetl_broker.broker.draft.wants import want_signal
from noetl_broker.broker.flow.transitions import complete_at_once, complete_with
from noetl_broker.broker.model.effects import (
    SignalConditionFailed,
    SignalSent,
    TimerSet,
    WaitEnded,
    WaitOpened,
    WaitReopened,
)
from noetl_broker.broker.model.limits import MAX_RESULT_BYTES
from noetl_broker.broker.model.values import JSON, Visit
from noetl_broker.broker.state.state import NO_INPUTS, Awaited, KeptSignal, decode_result, encode_result
from noetl_broker.broker.state.trail import SignalTried
from noetl_broker.broker.waits.due import due_of_fork
from noetl_broker.broker.writing.errors import wrong_value
from noetl_broker.broker.writing.inputs import condition_scope, inputs_as_request, inputs_of_job
from noetl_broker.playbook.keywords import SIGNAL
from noetl_broker.playbook.signals import (
    KEY_FORMS,
    NAME_FORMS,
    NAMES_FORMS,
    signal_key,
    signal_name,
    signal_names,
)
from noetl_broker.template import NotLoaded, TemplateError
from noetl_broker.template.durations import DURATION_FORMS, after, parse_duration
from noetl_broker.template.output import size_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.model.event import Event
    from noetl_broker.broker.state.state import Arrival, RenderedInputs, ResultRef, Token
    from noetl_broker.playbook.model import Step, WaitSpec
    from noetl_broker.template import Tree
    from noetl_broker.template.scope import Scope

SIGNALS, TIMEOUT = "signals", "timeout"  # purposes of timers
MOST_TRIED = 100  # kept signals whose payload one turn reads
LOADED_TOGETHER = 8
RESULT_WORDS = frozenset({"result", "this"})
WORDS = ("name", "key", "payload", "at")  # of a signal, as templates read it


def signal_of(event: Event) -> dict[str, Any] | None:
    """The signal of an event as templates read it, {name, key, payload, at}; None if the event has none."""
    context = event.context
    if event.broken or not isinstance(context, dict):
        return None
    if not isinstance(context.get("name"), str) or not isinstance(context.get("key"), str):
        return None
    return {word: context.get(word) for word in WORDS}


def age_of(event: Event) -> float:
    """The seconds by which the signal was sent before the execution started; 0 if it was sent later."""
    before = event.context.get("before_start") if isinstance(event.context, dict) else None
    return float(before) if isinstance(before, int | float) and not isinstance(before, bool) else 0.0


# A wait begins


def begin_signal_wait(draft: Draft, step: Step, visit: int, given: RenderedInputs, arrival: Arrival) -> None:
    """Begin a wait for a signal, or complete it with a signal that was kept. Raises TemplateError."""
    wait = _wait_of(step)
    scope = draft.templates.scope(given.values, arrival.result)
    awaited, due = _render(draft, wait, scope)
    token = draft.state.tokens[step.name, visit]._replace(awaited=awaited)
    draft.state.tokens[step.name, visit] = token
    candidates = [kept for kept in draft.state.signals if fits(awaited, kept)]
    if candidates and not _is_behind(draft, token, candidates):
        kept = _first_fitting(draft, step, token, candidates, lambda: (given, arrival.result))
        if kept is not None:
            complete_at_once(draft, step, token, _result(token, _load(draft, kept)), given, arrival.passed)
            draft.state.signals.remove(kept)  # only now: a failed `next` has not taken it
            return
    elif candidates:
        _try_later(draft, token, 0)
    request = inputs_as_request(given)
    if arrival.result is not None and _reads_result(wait):
        request["result_turn"] = encode_result(arrival.result)
    key = awaited.key if awaited.key is not None else str(draft.turn.execution_id)
    draft.add(WaitOpened(step.name, visit, SIGNAL, request, awaited.names, key, awaited.since))
    if due is not None:
        due_at = due_of_fork(arrival) or after(draft.turn.at, due)
        draft.add(TimerSet(step.name, visit, TIMEOUT, due_at))


def _render(draft: Draft, wait: WaitSpec, scope: Scope) -> tuple[Awaited, float | None]:
    """What a wait is for, and its timeout in seconds."""
    names = _rendered(draft, wait.signals, scope, lambda value: (signal_names(value), isinstance(value, list)),
                      f"`signal` must be {NAMES_FORMS}")  # fmt: skip
    key = _rendered(draft, wait.key, scope, signal_key, f"`key` must be {KEY_FORMS}")
    since = _rendered(draft, wait.since, scope, parse_duration, f"`since` must be {DURATION_FORMS}")
    timeout = _rendered(draft, wait.timeout, scope, parse_duration, f"`timeout` must be {DURATION_FORMS}")
    if names is None:
        raise TemplateError("the step waits for no signal", template="", at="")
    if key == str(draft.turn.execution_id):
        key = None
    return Awaited(names[0], names[1], key, since or 0.0, draft.turn.number), timeout


def _rendered(draft: Draft, tree: Tree | None, scope: Scope, parse: Callable[[JSON], Any], wanted: str) -> Any:
    """The value of a template as `parse` gives it; None without a template. Raises TemplateError."""
    if tree is None:
        return None
    value = draft.templates.render(tree, scope)
    try:
        return parse(value)
    except ValueError:
        raise wrong_value(tree, wanted, value) from None


def fits(awaited: Awaited, kept: KeptSignal) -> bool:
    """Whether a signal has what a wait is for: the name, the key, and it is not too old."""
    return kept.name in awaited.names and kept.key == awaited.key and kept.before <= awaited.since


def _is_behind(draft: Draft, token: Token, candidates: list[KeptSignal]) -> bool:
    """Whether an older wait has not tried some of these signals yet: it comes first."""
    return any(
        other.awaited is not None
        and other is not token
        and other.awaited.tried is not None
        and any(fits(other.awaited, kept) for kept in candidates)
        for other in draft.state.tokens.values()
    )


# A signal arrives


def receive_signal(draft: Draft) -> None:
    """`execution_signal`: the oldest open wait that fits takes the signal; otherwise it is kept."""
    event, signal = draft.event, signal_of(draft.event)
    if signal is None:
        raise TypeError("the event has no signal")
    key = None if signal["key"] == str(draft.turn.execution_id) else signal["key"]
    arrived = KeptSignal(draft.turn.number, signal["name"], key, age_of(event))
    taker = _taker(draft, arrived, signal)
    if taker is None:
        _keep(draft, arrived)
    else:
        step = draft.playbook.steps[taker.step]
        _complete(draft, step, taker, signal, inputs_of_wait(draft, step, taker)[0])
    visit = (event.step or "", event.visit or 1)
    waiting = draft.state.tokens.get(visit)
    if waiting is not None and waiting.awaited is not None:
        draft.add(WaitReopened(*visit))


def _taker(draft: Draft, arrived: KeptSignal, signal: dict[str, Any]) -> Token | None:
    """The oldest open wait that fits. A wait that has kept signals to try comes to this one after them."""
    behind = False
    for token in oldest_first(draft):
        awaited = token.awaited
        if awaited is None or not fits(awaited, arrived):
            continue
        if awaited.tried is not None:
            behind = True
        elif behind:
            _try_later(draft, token, arrived.turn - 1)
        else:
            step = draft.playbook.steps[token.step]
            if _holds(draft, step, token, arrived, signal, partial(inputs_of_wait, draft, step, token)):
                return token
    return None


def oldest_first(draft: Draft) -> list[Token]:
    """The open waits for signals: by the turn in which they began, then in the order of the document."""
    steps = draft.playbook.steps
    waits = [(token.awaited.turn, steps[token.step].index, token.visit, token)
             for token in draft.state.tokens.values() if token.awaited is not None]  # fmt: skip
    return [token for *_, token in sorted(waits, key=lambda entry: entry[:3])]


def _keep(draft: Draft, arrived: KeptSignal) -> None:
    """Keep a signal that fits no wait; past the limit the oldest one goes."""
    draft.state.signals.append(arrived)
    limit = draft.known.rules.max_signals
    if len(draft.state.signals) > limit:
        gone = draft.state.signals.pop(0)
        draft.writes.note = (
            f"signal {gone.name} of turn {gone.turn} was dropped: {limit} later ones fit no wait; "
            f"the limit max_signals is {limit}"
        )


def inputs_of_wait(draft: Draft, step: Step, token: Token) -> tuple[RenderedInputs, ResultRef]:
    """The inputs of an open wait, and the result that it was given; loaded only if a template may read them."""
    wait = _wait_of(step)
    if not step.reads_inputs and not _reads_result(wait):
        return NO_INPUTS, None
    request = draft.templates.request_of(step, token.visit)
    return inputs_of_job(request), decode_result(request.get("result_turn"))


def _complete(draft: Draft, step: Step, token: Token, signal: dict[str, Any], given: RenderedInputs) -> None:
    """Complete a wait of an earlier turn."""
    draft.add(WaitEnded(token.step, token.visit, "done"))
    complete_with(draft, step, token, _result(token, signal), given)


def _result(token: Token, signal: dict[str, Any]) -> JSON:
    """The result of a wait: the payload; with the name if the wait is for a list of names."""
    listed = token.awaited is not None and token.awaited.listed
    return {"signal": signal["name"], "payload": signal["payload"]} if listed else signal["payload"]


# Kept signals


def continue_signals(draft: Draft) -> None:
    """`timer_due` for signals: go on trying the kept signals, in their order; each with the oldest wait first.

    At most one wait is completed. If there may be more to do, a timer brings the next turn.
    """
    for kept in [*draft.state.signals]:
        for token in oldest_first(draft):
            awaited = token.awaited
            if awaited is None or awaited.tried is None or awaited.tried >= kept.turn or not fits(awaited, kept):
                continue
            if _is_full(draft):
                _post(draft, token)
                return
            step = draft.playbook.steps[token.step]
            _mark_tried(draft, token, kept.turn)
            signal = _load(draft, kept)
            if _holds(draft, step, token, kept, signal, partial(inputs_of_wait, draft, step, token)):
                draft.state.signals.remove(kept)
                _go_on_later(draft, but=token)
                _complete(draft, step, draft.state.tokens[token.step, token.visit], signal,
                          inputs_of_wait(draft, step, token)[0])  # fmt: skip
                return
    for token in oldest_first(draft):
        if token.awaited is not None and token.awaited.tried is not None:
            _mark_tried(draft, token, None)


def _first_fitting(
    draft: Draft,
    step: Step,
    token: Token,
    candidates: list[KeptSignal],
    given_of: Callable[[], tuple[RenderedInputs, ResultRef]],
) -> KeptSignal | None:
    """The first kept signal that a new wait takes. Past the limit of a turn, a timer brings the rest."""
    tried = 0
    for index, kept in enumerate(candidates):
        if _is_full(draft):
            _try_later(draft, token, tried)
            return None
        signal = _load(draft, kept, candidates[index : index + LOADED_TOGETHER])
        if _holds(draft, step, token, kept, signal, given_of):
            return kept
        tried = kept.turn
    return None


def _is_full(draft: Draft) -> bool:
    """Whether the turn tries no further signal; counts one more otherwise."""
    if draft.tried >= MOST_TRIED or (draft.tried and draft.allowance.is_nearly_spent):
        return True
    draft.tried += 1
    return False


def _load(draft: Draft, kept: KeptSignal, ahead: list[KeptSignal] | None = None) -> dict[str, Any]:
    """A kept signal as templates read it. NotLoaded names those `ahead` too."""
    answers = draft.known.answers
    if want_signal(kept.turn) not in answers and ahead:
        raise NotLoaded(frozenset(want for one in ahead if (want := want_signal(one.turn)) not in answers))
    context = draft.known.ask(want_signal(kept.turn))
    return {word: context.get(word) for word in WORDS}


def _try_later(draft: Draft, token: Token, tried: int) -> None:
    """Let a wait try the kept signals after turn `tried` in a later turn."""
    _mark_tried(draft, token, tried)
    _post(draft, token)


def _go_on_later(draft: Draft, *, but: Token) -> None:
    """Bring a next turn if another wait may have signals to try."""
    for token in oldest_first(draft):
        if token.awaited is not None and token.awaited.tried is not None and token[:2] != but[:2]:
            _post(draft, token)


def _mark_tried(draft: Draft, token: Token, tried: int | None) -> None:
    current = draft.state.tokens[token.step, token.visit]
    if current.awaited is not None:
        draft.state.tokens[token.step, token.visit] = current._replace(awaited=current.awaited._replace(tried=tried))


def _post(draft: Draft, token: Token) -> None:
    draft.add(TimerSet(token.step, token.visit, SIGNALS, draft.turn.at))


# Conditions


def _holds(
    draft: Draft,
    step: Step,
    token: Token,
    kept: KeptSignal,
    signal: dict[str, Any],
    given_of: Callable[[], tuple[RenderedInputs, ResultRef]],
) -> bool:
    """Whether the `when` of a wait is true for a signal. An error means that it does not fit; the turn notes it."""
    when = _wait_of(step).when
    if when is None:
        return True
    given, result = given_of()
    scope = condition_scope(draft, given, result, {SIGNAL: signal})
    visit: Visit = (token.step, token.visit)
    try:
        holds = draft.templates.holds(when, scope)
    except TemplateError as fault:
        draft.writes.note = f"the `when` of {token.step} failed, so signal {kept.name} does not fit: {fault}"
        draft.add(SignalConditionFailed(*visit))
        draft.trail.append(SignalTried(visit, kept, signal, scope, holds=False, fault=fault.message))
        return False
    draft.trail.append(SignalTried(visit, kept, signal, scope, holds=holds))
    return holds


def _reads_result(wait: WaitSpec) -> bool:
    return wait.when is not None and not RESULT_WORDS.isdisjoint(wait.when.names)


def _wait_of(step: Step) -> WaitSpec:
    if step.wait is None:
        raise TemplateError("the step waits for nothing", template="", at=step.name)
    return step.wait


# A step that sends


def send_signal(draft: Draft, step: Step, visit: int, _ordinal: int, given: RenderedInputs, arrival: Arrival) -> None:
    """Send the signal of a `signal` step; the visit completes at once. Raises TemplateError."""
    spec = step.signal
    if spec is None:
        raise TemplateError("the step sends no signal", template="", at=step.name)
    scope = draft.templates.scope(given.values, arrival.result)
    name = _rendered(draft, spec.name, scope, signal_name, f"`signal` must be {NAME_FORMS}")
    own = str(draft.turn.execution_id)
    key = own if spec.key is None else _rendered(draft, spec.key, scope, signal_key, f"`key` must be {KEY_FORMS}")
    payload = None if spec.payload is None else draft.templates.render(spec.payload, scope)
    if spec.payload is not None and size_of(payload) > MAX_RESULT_BYTES:
        message = f"the payload of a signal takes {size_of(payload)} characters; the limit is {MAX_RESULT_BYTES} bytes"
        raise TemplateError(message, spec.payload.source, spec.payload.at)
    hops = draft.state.hops + 1
    draft.add(SignalSent(step.name, visit, name, key, payload, hops, own=key == own))
    token = draft.state.tokens[step.name, visit]
    complete_at_once(draft, step, token, {"name": name, "key": key}, given, arrival.passed)

"""Reads `retry`: true, false, a number of attempts, or a mapping."""

from __future__ import annotations

from typing import Any

from noetl_broker.playbook.diagnostics import Location, json_type_name
from noetl_broker.playbook.keywords import PLAIN_RETRY_WORDS, RETRY_KEYS, RETRY_WORDS
from noetl_broker.playbook.model import Retry
from noetl_broker.playbook.plain_values import DELAYS, Range, read_boolean, read_integer, read_number, read_seconds
from noetl_broker.playbook.reader import NO_NAMES, Reading, TemplateSite
from noetl_broker.playbook.template_reads import reads_of

CODE = "bad-retry"
ATTEMPTS = Range(1, 1_000)
MULTIPLIERS = Range(0, 1_000)

# Keys of a newer dialect, with hints.
NEWER_KEYS = {
    "on_error": "write max_attempts, initial_delay and retry_when directly under `retry`",
    "on_success": "the broker does not repeat a step that succeeded: make a loop of steps with a condition",
}
# `error` is a text. For some keys that authors expect in it, there is another word.
IN_PLACE_OF_KEYS = {
    **dict.fromkeys(("type", "kind"), "error_type"),
    **dict.fromkeys(("status_code", "status", "code"), "status_code"),
}


def read_retry(
    reading: Reading, step: str, raw: Any, location: Location, *, names: frozenset[str] = NO_NAMES
) -> Retry | None:
    """Read a `retry`; None if it is null, or wrong (then an error is reported).

    `names` are the names of an item, which its conditions find, too.
    """
    if raw is None:
        return None
    if isinstance(raw, bool):
        return Retry() if raw else Retry(max_attempts=1)
    if isinstance(raw, int):
        attempts = read_integer(reading, raw, location, ATTEMPTS, CODE)
        return None if attempts is None else Retry(max_attempts=attempts)
    if isinstance(raw, dict):
        return _read_mapping(reading, step, raw, location, names)
    reading.report.error(
        CODE,
        location,
        f"`retry` is {json_type_name(raw)}",
        "write true, false, a number of attempts, or {max_attempts: 3, …}",
    )
    return None


def refuse_keys_of_retry_words(reading: Reading) -> None:
    """Report retry conditions that read a key of a text or a number, which has none.

    Registration refuses them. Compiling does not: playbooks that are registered already keep running.
    """
    for use in reading.uses:
        if use.part.role != "retry" or not isinstance(use.value, str):
            continue
        for word, key in sorted({(path[0], path[1]) for path in reads_of(use.value) if len(path) > 1}, key=str):
            what = PLAIN_RETRY_WORDS.get(str(word))
            is_character = isinstance(key, int) and what is not None and what.startswith("a text")
            if what is None or word in reading.steps or is_character:
                continue
            instead = IN_PLACE_OF_KEYS.get(str(key), word) if word == "error" else word
            found = f"a condition of a retry can read {', '.join(PLAIN_RETRY_WORDS)} and result"
            message = f"`{use.location[-1]}` reads `{word}.{key}`, and `{word}` is {what}"
            reading.report.error(CODE, use.location, message, f"write `{instead}`; {found}")


def _read_mapping(reading: Reading, step: str, raw: dict[str, Any], location: Location, names: frozenset[str]) -> Retry:
    for key in raw:
        if key not in RETRY_KEYS:
            hint = NEWER_KEYS.get(key) or reading.report.did_you_mean(key, RETRY_KEYS)
            reading.report.error(CODE, (*location, key), f"unknown key `{key}` in `retry`", hint, key=True)
    default = Retry()

    def number(key: str, allowed: Range, otherwise: float) -> float:
        if raw.get(key) is None:
            return otherwise
        read = read_seconds if allowed is DELAYS else read_number
        found = read(reading, raw[key], (*location, key), allowed, CODE)
        return otherwise if found is None else found

    attempts = default.max_attempts
    if raw.get("max_attempts") is not None:
        where = (*location, "max_attempts")
        attempts = read_integer(reading, raw["max_attempts"], where, ATTEMPTS, CODE) or attempts
    jitter: bool | None = default.jitter
    if raw.get("jitter") is not None:
        jitter = read_boolean(reading, raw["jitter"], (*location, "jitter"), CODE)
    part = TemplateSite(step=step, role="retry", names=RETRY_WORDS | names)
    conditions = {
        key: reading.condition(raw[key], (*location, key), part, code=CODE)
        for key in ("retry_when", "stop_when")
        if key in raw
    }
    for key, template in conditions.items():
        for name in sorted(RETRY_WORDS & reading.steps.keys() & (template.names if template is not None else NO_NAMES)):
            message = f"the step `{name}` hides the word of that name in `{key}`"
            reading.report.warning("shadowed-name", (*location, key), message, "rename the step")
    return Retry(
        max_attempts=attempts,
        initial_delay=number("initial_delay", DELAYS, default.initial_delay),
        backoff_multiplier=number("backoff_multiplier", MULTIPLIERS, default.backoff_multiplier),
        max_delay=number("max_delay", DELAYS, default.max_delay),
        jitter=bool(jitter),
        retry_when=conditions.get("retry_when"),
        stop_when=conditions.get("stop_when"),
    )
